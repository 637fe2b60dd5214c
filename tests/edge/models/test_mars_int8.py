"""A real MARS graph in int8: the chosen experts' weights are gathered, and their products stay float."""

from __future__ import annotations

import numpy as np
import onnx
import pytest

pytest.importorskip("torch")
pytest.importorskip("onnxruntime")
pytest.importorskip("onnxscript")

from networks import SIDE, small, windows

from mmedge.calibration.observe import observe, with_outputs
from mmedge.calibration.qdq import linear_layers, quantized
from mmedge.edge.export import to_onnx


def behind(graph: onnx.GraphProto, names: set[str]) -> set[str]:
    """Names of all that is computed from some values."""
    found = set(names)
    for node in graph.node:
        if found & set(node.input):
            found |= set(node.output)
    return found


def test_products_of_gathered_experts_stay_float() -> None:
    sensors = ("optical", "sar")
    model = to_onnx(small("mars"), sensors, mixed=False, window_px=SIDE)
    for node in model.graph.node:
        node.name = node.name or node.output[0]
    data, valid = windows(sensors)
    feeds = {m: data[m].numpy() for m in sensors} | {f"{m}_valid": valid[m].numpy() for m in sensors}
    gathered = {n.output[0] for n in model.graph.node if n.op_type == "Gather" and n.input[0].startswith("experts.")}
    weights = behind(model.graph, gathered)
    products = {n.name for n in model.graph.node if n.op_type == "MatMul" and n.input[0] in weights}
    assert len(gathered) == 4
    assert len(products) >= 2

    layers = linear_layers(model)
    assert not products & {layer.node for layer in layers}
    clips = {name: h.top for name, h in observe(model, sorted({x.input for x in layers}), [feeds]).items()}
    int8 = quantized(model, layers, clips)
    pairs = {name for node in int8.graph.node if node.op_type == "DequantizeLinear" for name in node.output}
    for node in int8.graph.node:
        if node.name in products:
            assert not pairs & set(node.input)
    assert sum(node.op_type in ("Conv", "MatMul") and node.input[1] in pairs for node in int8.graph.node) == len(layers)
    before, after = (with_outputs(m, ()).run(["logits"], feeds)[0] for m in (model, int8))
    noise = 10 * np.log10((before**2).mean() / ((after - before) ** 2).mean())
    assert 10 < noise < 80  # it is int8, and it is close
