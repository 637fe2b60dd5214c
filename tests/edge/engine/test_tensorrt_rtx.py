"""TensorRT for RTX without a GPU: it really parses, types, profiles and builds the shipped graphs.

`scripts/build_engines.py` builds every one of them; here all are parsed and typed, those of one sensor built.
"""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import onnx
import pytest

trt = pytest.importorskip("tensorrt_rtx", reason="tensorrt-rtx is not installed (x86-64 only): mmedge[tensorrt-rtx]")

from onnx import TensorProto, helper  # noqa: E402
from onnx.reference import ReferenceEvaluator  # noqa: E402

from mmedge.bundle import Bundle, open_bundle  # noqa: E402
from mmedge.cli.app import run  # noqa: E402
from mmedge.edge.device import gpu  # noqa: E402
from mmedge.edge.engine.build import BuildError, build, check_types, creation_flags, layer_types, make_logger  # noqa: E402
from mmedge.edge.engine.compilers import graph_file  # noqa: E402
from mmedge.edge.engine.half import to_half  # noqa: E402
from mmedge.edge.engine.key import BuildOptions  # noqa: E402
from mmedge.edge.runtime.session import GraphKey, input_shapes, stored_graph  # noqa: E402

BUNDLE = open_bundle()
SHIPPED = {name: open_bundle(name) for name in ("mamol-terra", "mamol-conv")}
GRAPHS = [(n, key, p) for n, b in SHIPPED.items() for key in GraphKey.every(b) for p in (*b.precisions(), "fp16")]


@pytest.fixture(scope="module")
def bundle() -> Bundle:
    return BUNDLE


def parse(path: Path) -> dict[str, int]:
    logger = make_logger(trt)
    builder = trt.Builder(logger)
    network = builder.create_network(creation_flags(trt))
    parser = trt.OnnxParser(network, logger)
    assert parser.parse_from_file(str(path)), [parser.get_error(i).desc() for i in range(parser.num_errors)]
    return layer_types(trt, network)


@pytest.mark.parametrize(("model", "key", "precision"), GRAPHS, ids=lambda value: str(value))
def test_every_node_of_every_shipped_graph_parses_with_the_type_it_should(
    model: str, key: GraphKey, precision: str
) -> None:
    with graph_file(SHIPPED[model], key, precision) as path:
        layers = parse(path)
        check_types(layers, precision, path.name)
        wanted = sum(
            node.op_type == "LayerNormalization" for node in onnx.load(path, load_external_data=False).graph.node
        )
    assert layers.get("NORMALIZATION:FLOAT", 0) == wanted  # normalisation stays fp32
    assert (wanted > 0) == (model == "mamol-terra")


@pytest.mark.parametrize(
    ("model", "precision"), [(n, p) for n, b in SHIPPED.items() for p in (*b.precisions(), "fp16")]
)
def test_graphs_of_one_sensor_build(model: str, precision: str) -> None:
    bundle = SHIPPED[model]
    key = next(k for k in GraphKey.every(bundle) if str(k) == "sar")
    said: list[str] = []
    with graph_file(bundle, key, precision) as path:
        built = build(
            trt, path, input_shapes(bundle, key, 1), precision, BuildOptions(batch=(1, 2, 4)), say=said.append
        )
    assert len(built.plan) > 1 << 19
    assert said  # a build is never silent


def test_the_command_builds_stores_and_finds_again(
    tmp_path: Path, small: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    if gpu() is not None:
        pytest.skip("with a GPU, engines are accepted on a scene")
    arguments = ["compile", str(small), "--backend", "tensorrt-rtx", "--precision", "fp16", "--available", "sar"]
    arguments += ["--cache", str(tmp_path), "--batch", "2", "--json"]
    assert run(arguments) == 0
    first = json.loads(capsys.readouterr().out)["engines"]
    assert [row["graph"] for row in first] == ["sar", "sar.mixed"]
    assert not any(row["accepted"] or row["cached"] for row in first)
    sidecar = json.loads(Path(first[0]["engine"]).with_suffix(".json").read_text())
    assert sidecar["key"]["version"] == trt.__version__
    assert sidecar["layers"]["CONVOLUTION:HALF"] == 2
    assert run(arguments) == 0
    assert all(row["cached"] for row in json.loads(capsys.readouterr().out)["engines"])


def test_an_fp32_graph_is_not_taken_for_fp16(bundle: Bundle) -> None:
    key = next(k for k in GraphKey.every(bundle) if str(k) == "sar")
    path = stored_graph(bundle, key, "fp32")
    with pytest.raises(BuildError, match="asked for in fp16"):
        build(trt, path, input_shapes(bundle, key, 1), "fp16", BuildOptions())


def tiny(tmp_path: Path, op: str, domain: str = "") -> Path:
    value = helper.make_tensor_value_info
    node = helper.make_node(op, ["x"], ["y"], name="bad one", domain=domain)
    graph = helper.make_graph(
        [node], "g", [value("x", TensorProto.FLOAT, ["b", 3])], [value("y", TensorProto.FLOAT, ["b", 3])]
    )
    opsets = [helper.make_opsetid("", 20), helper.make_opsetid("made.up", 1)]
    path = tmp_path / "tiny.onnx"
    onnx.save(helper.make_model(graph, opset_imports=opsets, ir_version=10), path)
    return path


def test_an_unknown_node_is_named(tmp_path: Path) -> None:
    with pytest.raises(BuildError, match="bad one"):
        build(trt, tiny(tmp_path, "Wonder", "made.up"), {"x": (1, 3)}, "fp32", BuildOptions())


def test_a_profile_that_does_not_fit_is_said(tmp_path: Path) -> None:
    with pytest.raises(BuildError, match="cannot build"):
        build(trt, tiny(tmp_path, "Relu"), {"x": (1, 5)}, "fp32", BuildOptions())


def test_a_damaged_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "broken.onnx").write_bytes(b"no graph")
    with pytest.raises(BuildError, match="cannot parse"):
        build(trt, tmp_path / "broken.onnx", {}, "fp32", BuildOptions())


def test_the_products_of_a_half_graph_are_in_true_fp16() -> None:
    """Large values overflow. (ONNX Runtime computes fp16 in fp32 on a CPU, and would not see it.)"""
    value = helper.make_tensor_value_info
    weight = onnx.numpy_helper.from_array(np.full((4, 4), 60.0, np.float32), "w")
    nodes = [helper.make_node("MatMul", ["x", "w"], ["h"]), helper.make_node("MatMul", ["h", "w"], ["logits"])]
    outputs = [value("logits", TensorProto.FLOAT, ["b", 4])]
    graph = helper.make_graph(nodes, "g", [value("x", TensorProto.FLOAT, ["b", 4])], outputs, [weight])
    half = to_half(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10))
    ones = np.ones((1, 4), np.float32)
    evaluator = ReferenceEvaluator(half)
    np.testing.assert_allclose(evaluator.run(None, {"x": ones / 10})[0], ones * 240 * 24, atol=10)
    with np.errstate(over="ignore"):
        assert np.isinf(evaluator.run(None, {"x": ones * 10})[0]).all()
