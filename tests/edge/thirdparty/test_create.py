"""A third party's network as a bundle: measured, wrapped, and mapped exactly as one pass over the scene would."""

from __future__ import annotations

import json
import platform
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest
import rasterio
from small_networks import classifier, segmenter, with_metadata

pytest.importorskip("safetensors")

from mmedge.bundle import open_bundle
from mmedge.cli.app import run
from mmedge.edge.infer import infer
from mmedge.edge.runtime import openvino
from mmedge.edge.runtime.open import open_runtime
from mmedge.edge.runtime.openvino import FOLDS
from mmedge.edge.runtime.session import GraphKey
from mmedge.edge.runtime.upsampling import fold_upsampling
from mmedge.edge.thirdparty.create import create_bundle
from mmedge.edge.thirdparty.field import Field
from mmedge.errors import BundleError, OutputError, UsageError

BANDS = ["B02", "B03", "B04", "B08"]
OPTICAL = {"bands": BANDS, "mean": [0.06, 0.08, 0.09, 0.25], "std": [0.05]}
TOLD: dict[str, Any] = {"gsd_m": 10, "inputs": {"optical": OPTICAL}, "classes": ["water", "trees", "crops"]}


@pytest.fixture
def network(tmp_path: Path) -> Path:
    return segmenter(tmp_path / "net.onnx", inputs={"image": 4})


def read(path: Path) -> Any:
    with rasterio.open(path) as src:
        return src.read(1)


def test_field_and_stride_are_measured_and_recorded(network: Path, tmp_path: Path) -> None:
    made = create_bundle(network, tmp_path / "b", TOLD)
    assert made.field == Field(radius_px=4, stride_px=2)
    bundle = open_bundle(tmp_path / "b")
    assert (bundle.tiling.kind, bundle.tiling.halo_px, bundle.tiling.align_px) == ("convolutional", 4, 2)
    assert bundle.tiling.resizable
    assert [str(key) for key in GraphKey.every(bundle)] == ["optical"]
    assert bundle.item["properties"]["mmedge:field"] == {"radius_px": 4, "stride_px": 2}


@pytest.mark.skipif(platform.machine().lower() not in FOLDS, reason="folded on x86-64 alone")
def test_openvino_folds_what_the_network_enlarges(
    network: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    create_bundle(network, tmp_path / "b", TOLD)
    bundle, folded = open_bundle(tmp_path / "b"), []
    monkeypatch.setattr(openvino, "fold_upsampling", lambda model: folded.append(fold_upsampling(model)))
    runtime, _ = open_runtime("openvino", precision="fp32", threads=1)
    runtime.load(bundle, GraphKey.every(bundle)[0], batch=1)
    assert folded == [1]


@pytest.mark.parametrize("window", [32, 64, 256])
def test_the_map_is_that_of_one_pass_over_the_whole_scene(
    chile: Path, network: Path, tmp_path: Path, window: int
) -> None:
    create_bundle(network, tmp_path / "b", {**TOLD, "window_px": window})
    record = infer(chile / "scene.tif", tmp_path / "map.tif", model=tmp_path / "b")
    with rasterio.open(chile / "scene.tif") as src:
        names = [name.split(":")[-1] for name in src.descriptions]
        data = src.read([names.index(band) + 1 for band in BANDS])
        # The lattice of the stride is anchored at the CRS origin.
        first = [round(v) % 2 for v in (src.transform.f / -10, src.transform.c / 10)]
    x = (data - np.reshape(OPTICAL["mean"], (4, 1, 1))) / OPTICAL["std"][0]
    pads = [(4 + f, 4 + (n + f) % 2) for f, n in zip(first, x.shape[1:], strict=True)]
    padded = np.pad(x, [(0, 0), *pads]).astype(np.float32)
    scores = onnxruntime.InferenceSession(network).run(None, {"image": padded[None]})[0][0]
    scores = scores[:, pads[0][0] :, pads[1][0] :][:, : x.shape[1], : x.shape[2]]
    margin = np.diff(np.sort(scores, axis=0)[-2:], axis=0)[0]
    differs = read(record.outputs.map) != scores.argmax(axis=0)
    assert not (differs & (margin > 1e-4)).any()
    assert (margin > 1e-4).mean() > 0.99


def test_model_json_is_a_valid_mlm_item(network: Path, tmp_path: Path) -> None:
    errors = pytest.importorskip("test_bundle_schema").errors
    create_bundle(network, tmp_path / "b", TOLD)
    assert errors(open_bundle(tmp_path / "b").item) == []


def test_two_sensors_have_a_graph_for_every_set_of_them_and_one_file_of_weights(chile: Path, tmp_path: Path) -> None:
    network = segmenter(tmp_path / "net.onnx", inputs={"radar": 2, "optical": 4})
    told = {**TOLD, "inputs": {"optical": OPTICAL, "sar": {"bands": ["VV", "VH"], "mean": [-11, -18], "std": [5]}}}
    create_bundle(network, tmp_path / "b", told)
    names = sorted(path.name for path in (tmp_path / "b" / "graphs").iterdir())
    assert names == ["optical+sar.fp32.onnx", "optical.fp32.onnx", "sar.fp32.onnx", "weights.safetensors"]
    whole = infer(chile / "scene.tif", tmp_path / "whole.tif", model=tmp_path / "b")
    alone = infer(chile / "scene.tif", tmp_path / "alone.tif", model=tmp_path / "b", available=("optical",))
    session = onnxruntime.InferenceSession(tmp_path / "b" / "graphs" / "optical+sar.fp32.onnx")
    assert {i.name for i in session.get_inputs()} == {"optical", "optical_valid", "sar", "sar_valid"}
    assert (read(whole.outputs.map) != read(alone.outputs.map)).any()


def test_what_is_invalid_is_the_mean_and_what_is_absent_too(network: Path, tmp_path: Path) -> None:
    create_bundle(network, tmp_path / "b", TOLD)
    session = onnxruntime.InferenceSession(tmp_path / "b" / "graphs" / "optical.fp32.onnx")
    rng = np.random.default_rng(0)
    x, valid = rng.normal(size=(1, 4, 32, 32)).astype(np.float32), rng.random((1, 1, 32, 32)) > 0.3
    mean = np.reshape(OPTICAL["mean"], (1, 4, 1, 1)).astype(np.float32)
    holed = session.run(None, {"optical": np.where(valid, x, np.float32(np.nan)), "optical_valid": valid})[0]
    filled = session.run(None, {"optical": np.where(valid, x, mean), "optical_valid": np.ones_like(valid)})[0]
    np.testing.assert_array_equal(holed, filled)


@pytest.mark.parametrize(("head", "outputs"), [("Softmax", 3), ("Sigmoid", 1)])
def test_probabilities_come_out_as_the_confidence_they_are(
    chile: Path, tmp_path: Path, head: str, outputs: int
) -> None:
    network = segmenter(tmp_path / "net.onnx", inputs={"image": 4}, classes=outputs, head=head)
    told = {**TOLD, "classes": TOLD["classes"][:outputs]}
    assert create_bundle(network, tmp_path / "b", told).head.kind == "probabilities"
    session = onnxruntime.InferenceSession(tmp_path / "b" / "graphs" / "optical.fp32.onnx")
    x = np.random.default_rng(0).normal(size=(1, 4, 32, 32)).astype(np.float32)
    logits = session.run(None, {"optical": x, "optical_valid": np.ones((1, 1, 32, 32), bool)})[0]
    power = np.exp(logits - logits.max(axis=1, keepdims=True))
    normal = (x - np.reshape(OPTICAL["mean"], (1, 4, 1, 1))) / OPTICAL["std"][0]
    wanted = onnxruntime.InferenceSession(network).run(None, {"image": normal.astype(np.float32)})[0]
    np.testing.assert_allclose((power / power.sum(axis=1, keepdims=True))[:, -outputs:], wanted, atol=1e-3)


def test_a_network_of_one_size_is_tiled_at_that_size(chile: Path, tmp_path: Path) -> None:
    network = classifier(tmp_path / "net.onnx", bands=4, classes=3, side=32)
    made = create_bundle(network, tmp_path / "b", TOLD)
    assert (made.tiling.kind, made.tiling.window_px, made.field) == ("attention", 32, None)
    labels = read(infer(chile / "scene.tif", tmp_path / "map.tif", model=tmp_path / "b").outputs.map)
    with rasterio.open(chile / "scene.tif") as src:
        row, col = (-round(v) % 32 for v in (src.transform.f / -10, src.transform.c / 10))
    blocks = labels[row : row + 160, col : col + 160].reshape(5, 32, 5, 32)
    assert (blocks == blocks[:, :1, :, :1]).all()
    assert len(np.unique(labels)) > 1


def test_a_small_answer_is_enlarged(chile: Path, tmp_path: Path) -> None:
    network = segmenter(tmp_path / "net.onnx", inputs={"image": 4}, halved=True)
    made = create_bundle(network, tmp_path / "b", TOLD)
    assert (made.head.scale, made.field.stride_px if made.field else None) == (2, 2)
    assert infer(chile / "scene.tif", tmp_path / "map.tif", model=tmp_path / "b").counts.mapped == 224 * 224


def test_what_a_deepness_model_says_of_itself_is_enough(tmp_path: Path) -> None:
    network = segmenter(tmp_path / "net.onnx", inputs={"input": 3}, side=64)
    with_metadata(
        network,
        model_type='"Segmentor"',
        class_names='{"0": "_background", "1": "building", "2": "road"}',
        resolution="50",
        standardization_mean="[0.5, 0.5, 0.5]",
        standardization_std="[0.25, 0.25, 0.25]",
    )
    create_bundle(network, tmp_path / "b", {})
    bundle = open_bundle(tmp_path / "b")
    (optical,) = bundle.modalities
    assert (optical.bands, optical.unit, optical.gsd_m) == (("B04", "B03", "B02"), "raw", 0.5)
    assert [c.name for c in bundle.classes] == ["_background", "building", "road"]
    scaling = bundle.item["properties"]["mlm:input"][0]["value_scaling"][0]
    assert scaling == {"type": "z-score", "mean": 127.5, "stddev": 63.75}


@pytest.mark.parametrize(
    ("changes", "hint"),
    [
        ({"inputs": {}}, "--bands"),
        ({"classes": ["water"]}, "--classes"),
        ({"gsd_m": None}, "--gsd"),
        ({"inputs": {"optical": {"bands": BANDS[:3]}}}, "--bands"),
        ({"inputs": {"optical": {**OPTICAL, "std": [0.0]}}}, "--std"),
        ({"inputs": {"optical": {**OPTICAL, "unit": "DN"}}}, "--input-unit"),
        ({"inputs": {"optical": OPTICAL, "sar": {"bands": ["VV"]}}}, "--bands"),
        ({"classes": [{"name": "a", "color": "blue"}, "b", "c"]}, "hexadecimal"),
        ({"colour": 1}, "known are"),
        ({"inputs": 3}, "bundle create"),
        ({"inputs": {"optical": 3}}, "bundle create"),
        ({"inputs": {"optical": {**OPTICAL, "bands": -1}}}, "bundle create"),
        ({"classes": -1}, "bundle create"),
        ({"classes": ["a", "a", "b"]}, "--classes"),
        ({"classes": [{"name": "a", "value": 1}, {"name": "b", "value": 1}, "c"]}, "--classes"),
        ({"gsd_m": float("nan")}, "--gsd"),
        ({"inputs": {"optical": {**OPTICAL, "std": [float("nan")]}}}, "a number"),
        ({"inputs": {"optical": {**OPTICAL, "fill": float("inf")}}}, "a number"),
        ({"inputs": {"optical": {**OPTICAL, "bands": ["B02", "B02", "B04", "B08"]}}}, "--bands"),
    ],
)
def test_what_is_missing_or_wrong_is_said(network: Path, tmp_path: Path, changes: dict[str, Any], hint: str) -> None:
    with pytest.raises((UsageError, BundleError)) as caught:
        create_bundle(network, tmp_path / "b", {**TOLD, **changes})
    assert hint in caught.value.hint
    assert sorted(path.name for path in tmp_path.iterdir()) == ["net.onnx"]


def test_an_argmax_inside_is_refused(tmp_path: Path) -> None:
    network = segmenter(tmp_path / "net.onnx", inputs={"image": 4}, head="ArgMax")
    with pytest.raises(BundleError, match="int64"):
        create_bundle(network, tmp_path / "b", TOLD)


def test_a_folder_that_is_no_bundle_is_never_replaced(network: Path, tmp_path: Path) -> None:
    (tmp_path / "b").mkdir()
    with pytest.raises(OutputError):
        create_bundle(network, tmp_path / "b", TOLD, overwrite=True)
    create_bundle(network, tmp_path / "c", TOLD)
    with pytest.raises(OutputError):
        create_bundle(network, tmp_path / "c", TOLD)
    create_bundle(network, tmp_path / "c", TOLD, overwrite=True)


def test_the_same_command_gives_the_same_bundle(
    network: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    description = tmp_path / "net.yaml"
    description.write_text("gsd_m: 10\ninputs:\n  optical: {bands: [B02, B03, B04, B08], mean: 0.1, std: 0.1}\n")
    command = ["bundle", "create", str(network), "--describe", str(description), "--classes", "0:water:1f78b4,b,c"]
    for folder in "xy":
        assert run([*command, "-o", str(tmp_path / folder), "--json"]) == 0
        assert json.loads(capsys.readouterr().out)["receptive_field_px"] == 9
    assert open_bundle(tmp_path / "x").sha256 == open_bundle(tmp_path / "y").sha256
    assert open_bundle(tmp_path / "x").classes[0].color == (0x1F, 0x78, 0xB4)
