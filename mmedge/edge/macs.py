"""Multiply-accumulates of a graph, from its shapes: what a set of sensors costs."""

from __future__ import annotations

from collections.abc import Mapping
from math import prod
from pathlib import Path

import onnx


def graph_macs(path: Path, shapes: Mapping[str, tuple[int, ...]]) -> int:
    """Multiply-accumulates of the MatMuls and Convs of a graph for inputs of `shapes`."""
    model = onnx.load(path, load_external_data=False)
    for value in model.graph.input:
        for dim, size in zip(value.type.tensor_type.shape.dim, shapes[value.name], strict=True):
            dim.Clear()
            dim.dim_value = size
    for value in model.graph.output:
        value.type.tensor_type.ClearField("shape")
    known = onnx.shape_inference.infer_shapes(model, strict_mode=True, data_prop=True).graph
    sizes = {i.name: tuple(i.dims) for i in known.initializer}
    for value in (*known.input, *known.output, *known.value_info):
        sizes[value.name] = tuple(d.dim_value for d in value.type.tensor_type.shape.dim)
    total = 0
    for node in known.node:
        if node.op_type in ("MatMul", "Conv"):
            weight = sizes[node.input[1]]
            total += prod(sizes[node.output[0]]) * (prod(weight[1:]) if node.op_type == "Conv" else weight[-2])
    if not total:
        raise ValueError(f"the shapes of `{path.name}` cannot be inferred")
    return total
