"""Multiply-accumulates of a graph, from its shapes: what a set of sensors costs."""

from __future__ import annotations

from collections.abc import Mapping
from math import prod
from pathlib import Path
from typing import Any


def graph_macs(path: Path, shapes: Mapping[str, tuple[int, ...]]) -> int:
    """Multiply-accumulates of the matrix products and convolutions of a graph for inputs of `shapes`.

    The shapes are those that OpenVINO finds: ONNX's own inference loses them where a graph computes shapes itself.
    """
    import openvino as ov

    model = ov.Core().read_model(path)
    model.reshape({name: ov.PartialShape(list(shape)) for name, shape in shapes.items()})
    total = sum(_macs(op) for op in model.get_ops())
    if not total:
        raise ValueError(f"`{path.name}` has neither products nor convolutions")
    return total


def _macs(op: Any) -> int:
    kind = op.get_type_name()
    if kind == "MatMul":
        first, turned = _shape(op, 0), op.get_attributes()["transpose_a"]
        return _size(op) * first[-2 if turned and len(first) > 1 else -1]
    if kind == "Convolution":
        return _size(op) * prod(_shape(op, 1)[1:])
    if kind == "GroupConvolution":
        return _size(op) * prod(_shape(op, 1)[2:])
    if kind == "ConvolutionBackpropData":
        return prod(_shape(op, 0)) * prod(_shape(op, 1)[1:])
    return 0


def _size(op: Any) -> int:
    return prod(int(n) for n in op.get_output_shape(0))


def _shape(op: Any, i: int) -> tuple[int, ...]:
    return tuple(int(n) for n in op.get_input_shape(i))
