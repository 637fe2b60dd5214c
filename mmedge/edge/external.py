"""Weights of several graphs in one safetensors file: its header and raw bytes serve ONNX as external data."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

import onnx
from onnx import TensorProto

WEIGHTS = "weights.safetensors"
Place = tuple[int, int]


def places(path: Path) -> dict[str, Place]:
    """Offset and length in bytes of each tensor of a safetensors file."""
    with path.open("rb") as file:
        size = int.from_bytes(file.read(8), "little")
        header: Mapping[str, dict[str, list[int]]] = json.loads(file.read(size))
    spans = {name: t["data_offsets"] for name, t in header.items() if name != "__metadata__"}
    return {name: (8 + size + begin, end - begin) for name, (begin, end) in spans.items()}


def refer(graph: onnx.ModelProto, stored: Mapping[str, Place]) -> None:
    """Replace the weights inside a graph that are stored in the weights file by their places there."""
    for initializer in graph.graph.initializer:
        if initializer.name in stored:
            point(initializer, WEIGHTS, stored[initializer.name])


def point(tensor: TensorProto, location: str, place: Place) -> None:
    """Replace the values inside an initialiser by their place in a file beside the graph."""
    for field in ("raw_data", "float_data", "int32_data", "int64_data", "double_data", "uint64_data"):
        tensor.ClearField(field)
    tensor.data_location = TensorProto.EXTERNAL
    del tensor.external_data[:]
    for key, value in (("location", location), ("offset", str(place[0])), ("length", str(place[1]))):
        tensor.external_data.add(key=key, value=value)
