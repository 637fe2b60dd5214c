"""ONNX external data inside safetensors files: a header and raw bytes, so that a graph can point at each tensor."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

from onnx import TensorProto

Place = tuple[int, int]


def places(path: Path) -> dict[str, Place]:
    """Offset and length in bytes of each tensor of a safetensors file."""
    with path.open("rb") as file:
        size = int.from_bytes(file.read(8), "little")
        header: Mapping[str, dict[str, list[int]]] = json.loads(file.read(size))
    spans = {name: t["data_offsets"] for name, t in header.items() if name != "__metadata__"}
    return {name: (8 + size + begin, end - begin) for name, (begin, end) in spans.items()}


def refer(tensor: TensorProto, location: str, place: Place) -> None:
    """Replace the values inside an initialiser by their place in a file beside the graph."""
    for field in ("raw_data", "float_data", "int32_data"):
        tensor.ClearField(field)
    tensor.data_location = TensorProto.EXTERNAL
    del tensor.external_data[:]
    for key, value in (("location", location), ("offset", str(place[0])), ("length", str(place[1]))):
        tensor.external_data.add(key=key, value=value)
