"""The one recipe: what TensorRT, OpenVINO and ONNX Runtime all accept, and weights that are stored once."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import openvino as ov
import pytest

ort = pytest.importorskip("onnxruntime")
pytest.importorskip("safetensors")

from onnx import TensorProto, numpy_helper  # noqa: E402

from mmedge.bundle import Bundle, open_bundle  # noqa: E402
from mmedge.calibration.observe import observe, with_outputs  # noqa: E402
from mmedge.calibration.qdq import (  # noqa: E402
    INT8_WEIGHTS,
    Layer,
    constant_values,
    linear_layers,
    load_graph,
    quantized,
    save_quantized,
)
from mmedge.calibration.sensitivity import sensitivities, too_small  # noqa: E402
from mmedge.calibration.windows import SceneFiles, read_windows, stack  # noqa: E402
from mmedge.edge.device import sums_int8  # noqa: E402
from mmedge.edge.runtime.session import GraphKey, stored_graph  # noqa: E402
from mmedge.modality import Availability  # noqa: E402

Feeds = dict[str, np.ndarray]


@pytest.fixture(scope="module")
def bundle() -> Bundle:
    return open_bundle()


@pytest.fixture(scope="module")
def key(bundle: Bundle) -> GraphKey:
    return GraphKey(Availability.of(["sar"], bundle.order), False)


@pytest.fixture(scope="module")
def batch(bundle: Bundle, key: GraphKey, chile: Path) -> Feeds:
    scenes = [SceneFiles(chile / "scene.tif")]
    windows = read_windows(scenes, bundle, key.availability, np.random.default_rng(0), crops=4)
    return dict(stack([w for w in windows if w.key == key], 8)[0])


@pytest.fixture(scope="module")
def written(bundle: Bundle, key: GraphKey, batch: Feeds, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The shipped graph of radar alone in int8, with every layer that is worth it."""
    model, external = load_graph(stored_graph(bundle, key, "fp32"))
    small = too_small(linear_layers(model))
    layers = [layer for layer in linear_layers(model) if layer.name not in small]
    histograms = observe(model, sorted({layer.input for layer in layers}), [batch])
    folder = tmp_path_factory.mktemp("int8")
    (folder / "weights.safetensors").write_bytes((bundle.folder / "graphs/weights.safetensors").read_bytes())
    graph = quantized(model, layers, {name: h.top for name, h in histograms.items()})
    save_quantized({folder / "sar.int8.onnx": graph}, external)
    return folder / "sar.int8.onnx"


def test_the_recipe(written: Path) -> None:
    graph = onnx.load(written).graph
    values = {i.name: numpy_helper.to_array(i) for i in graph.initializer}
    made_by = {name: node for node in graph.node for name in node.output}
    pairs = [n for n in graph.node if n.op_type in ("QuantizeLinear", "DequantizeLinear")]
    assert len(pairs) > 60
    for node in pairs:
        zero = values[node.input[2]]
        assert zero.dtype == np.int8
        assert not zero.any()
    weights = [n for n in pairs if n.op_type == "DequantizeLinear" and n.input[0] in values]
    assert {values[n.input[0]].dtype for n in weights} == {np.dtype(np.int8)}  # so no bias: that would be int32
    for node in weights:
        (axis,) = [a.i for a in node.attribute if a.name == "axis"]
        assert values[node.input[1]].shape == (values[node.input[0]].shape[axis],)  # a scale for each channel
        assert np.abs(values[node.input[0]]).max() == 127
    for node in pairs:
        source = made_by.get(node.input[0])
        if node.op_type == "QuantizeLinear" and source is not None:
            assert source.op_type not in ("MatMul", "Conv", "Gemm")
    readers = {n.op_type for n in graph.node if any("DequantizeLinear" in name for name in n.input)}
    assert readers == {"MatMul", "Conv"}


def test_weights_are_stored_once_and_within_half_a_step(written: Path, bundle: Bundle, key: GraphKey) -> None:
    bare = onnx.load(written, load_external_data=False)
    places = {e.value for i in bare.graph.initializer for e in i.external_data if e.key == "location"}
    assert places == {INT8_WEIGHTS, "weights.safetensors"}
    assert written.stat().st_size < 100_000
    model, _ = load_graph(stored_graph(bundle, key, "fp32"))
    layers = {layer.name: layer for layer in linear_layers(model)}
    original = constant_values(model, {layers["blocks.2.mlp.fc1"].weight})[layers["blocks.2.mlp.fc1"].weight]
    found = {i.name: numpy_helper.to_array(i) for i in onnx.load(written).graph.initializer}
    (name,) = [n for n in found if n.startswith("blocks.2.mlp.fc1.") and n.endswith("_quantized")]
    scale = found[name.replace("_quantized", "_scale")]
    assert np.abs(found[name] * scale - original).max() <= scale.max() / 2 * 1.001


def test_three_runtimes_read_one_file(written: Path, bundle: Bundle, key: GraphKey, batch: Feeds) -> None:
    reference = ort.InferenceSession(stored_graph(bundle, key, "fp32")).run(["logits"], batch)[0]
    in_ort = ort.InferenceSession(written).run(["logits"], batch)[0]
    in_openvino = ov.Core().compile_model(written, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})(batch)["logits"]
    for found in (in_ort, in_openvino) if sums_int8() else (in_ort,):
        noise = 10 * np.log10((reference**2).mean() / ((found - reference) ** 2).mean())
        assert 15 < noise < 60  # it is int8, and it is close
        assert (found.argmax(1) == reference.argmax(1)).mean() > 0.9
    if sums_int8():
        assert (in_ort.argmax(1) == in_openvino.argmax(1)).mean() > 0.97


def spoilt(small: Path) -> tuple[onnx.ModelProto, list[Layer], dict[str, float], dict[str, np.ndarray]]:
    """A graph, its layers, their clips, of which one is far too small, and windows."""
    bundle = open_bundle(small)
    key = next(k for k in GraphKey.every(bundle) if str(k) == "optical+sar")
    model, _ = load_graph(stored_graph(bundle, key, "fp32"))
    rng = np.random.default_rng(0)
    feeds = {m: rng.normal(size=(2, c, 64, 64)).astype(np.float32) for m, c in (("optical", 4), ("sar", 2))}
    feeds |= {f"{m}_valid": np.ones((2, 1, 64, 64), bool) for m in ("optical", "sar")}
    layers = linear_layers(model)
    clips = {n: h.top for n, h in observe(model, [layer.input for layer in layers], [feeds]).items()}
    return model, layers, clips | {"hidden": clips["hidden"] / 50}, feeds


def test_sensitivity_finds_the_layer_that_was_spoilt(small: Path) -> None:
    """A clip that is far too small for one layer makes that layer the most sensitive one."""
    model, layers, clips, feeds = spoilt(small)
    ranked = sensitivities(model, layers, clips, [feeds])
    assert ranked[0].layer == "second"
    assert ranked[0].sqnr_db < ranked[1].sqnr_db - 5
    assert "dB" in ranked[0].why()


@pytest.mark.skipif(not sums_int8(), reason="without VNNI OpenVINO's int8 is not used")
def test_sensitivity_is_that_of_openvino(small: Path) -> None:
    """It moves Q/DQ across the concatenation of pixels and mask, and rounds more than ONNX Runtime does."""
    model, layers, clips, feeds = spoilt(small)
    in_openvino = {s.layer: s.sqnr_db for s in sensitivities(model, layers, clips, [feeds])}["optical_w"]
    alone = quantized(model, [layer for layer in layers if layer.name == "optical_w"], clips)
    before, after = (with_outputs(m, ()).run(["logits"], feeds)[0] for m in (model, alone))
    assert in_openvino < 10 * np.log10((before**2).mean() / ((after - before) ** 2).mean()) - 10


def test_products_with_computed_weights_are_never_quantized() -> None:
    """MARS gathers its experts' weights: both factors are computed."""
    value = onnx.helper.make_tensor_value_info
    nodes = [
        onnx.helper.make_node("Gather", ["experts", "which"], ["w"], axis=0),
        onnx.helper.make_node("MatMul", ["x", "w"], ["y"], name="gathered"),
        onnx.helper.make_node("MatMul", ["y", "fixed"], ["z"], name="plain"),
    ]
    rng = np.random.default_rng(0)
    weights = [
        numpy_helper.from_array(rng.normal(size=(4, 16, 16)).astype(np.float32), "experts"),
        numpy_helper.from_array(rng.normal(size=(16, 16)).astype(np.float32), "fixed"),
    ]
    inputs = [value("x", TensorProto.FLOAT, ["b", 3, 16]), value("which", TensorProto.INT64, ["b"])]
    graph = onnx.helper.make_graph(nodes, "g", inputs, [value("z", TensorProto.FLOAT, None)], weights)
    model = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 20)], ir_version=10)
    assert [layer.node for layer in linear_layers(model)] == ["plain"]
    session = with_outputs(quantized(model, linear_layers(model), {"y": 3.0}), ())
    assert session.get_outputs()[0].name == "z"
