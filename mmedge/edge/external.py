"""Weights of several graphs in one safetensors file: its header and raw bytes serve ONNX as external data."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

import onnx
from onnx import TensorProto

WEIGHTS = "weights.safetensors"


def places(path: Path) -> dict[str, tuple[int, int]]:
    """Offset and length in bytes of each tensor of a safetensors file."""
    with path.open("rb") as file:
        size = int.from_bytes(file.read(8), "little")
        header: Mapping[str, dict[str, list[int]]] = json.loads(file.read(size))
    spans = {name: t["data_offsets"] for name, t in header.items() if name != "__metadata__"}
    return {name: (8 + size + begin, end - begin) for name, (begin, end) in spans.items()}


def refer(graph: onnx.ModelProto, stored: Mapping[str, tuple[int, int]]) -> None:
    """Replace the weights inside a graph that are stored in the weights file by their places there."""
    for initializer in graph.graph.initializer:
        if initializer.name not in stored:
            continue
        offset, length = stored[initializer.name]
        for field in ("raw_data", "float_data", "int32_data", "int64_data", "double_data", "uint64_data"):
            initializer.ClearField(field)
        initializer.data_location = TensorProto.EXTERNAL
        del initializer.external_data[:]
        for key, value in (("location", WEIGHTS), ("offset", str(offset)), ("length", str(length))):
            initializer.external_data.add(key=key, value=value)
