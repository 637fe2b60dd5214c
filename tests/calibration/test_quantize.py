"""`mmedge quantize` from end to end on a small bundle: gates, a bundle that maps in int8, temperatures."""

from __future__ import annotations

import contextlib
import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
from small_bundle import write_bundle

pytest.importorskip("onnxruntime")
pytest.importorskip("safetensors")

from mmedge.bundle import open_bundle
from mmedge.calibration.score import Pixels, fit_temperature
from mmedge.cli.app import run
from mmedge.edge.infer import infer

SENSORS = 3


def read(path: Path) -> Any:
    with rasterio.open(path) as src:
        return src.read(1)


@pytest.fixture(scope="module")
def own_map(chile: Path, small: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What the float model says of the example: labels that it gets right everywhere, and int8 may miss."""
    return infer(chile / "scene.tif", tmp_path_factory.mktemp("own") / "map.tif", model=small).outputs.map


@pytest.fixture(scope="module")
def done(chile: Path, small: Path, own_map: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Any]:
    folder = tmp_path_factory.mktemp("quantized")
    capture = folder / "report.json"
    arguments = ["quantize", str(small), "--scenes", str(chile / "scene.tif"), "--labels", str(own_map)]
    with capture.open("w") as out, contextlib.redirect_stdout(out):
        code = run([*arguments, "-o", str(folder / "small-int8"), "--windows", "8", "--max-drop", "10", "--json", "-q"])
    assert code == 0
    return folder / "small-int8", json.loads(capture.read_text())


def test_the_report_has_a_row_for_every_availability(done: tuple[Path, Any]) -> None:
    folder, report = done
    assert len(report["rows"]) == 2**SENSORS - 1
    complete = report["rows"][-1]
    assert complete["availability"] == "optical+sar+elevation"
    assert complete["fp32_oa"] == 100.0
    assert complete["pixels"] == 224 * 224
    assert 90 <= complete["int8_oa"] == complete["agreement"]
    assert all(row["fp32_ms"] > 0 and row["int8_ms"] > 0 for row in report["rows"])
    size = sum(path.stat().st_size for path in folder.rglob("*.*"))
    assert report["bundle_bytes"] == pytest.approx(size, rel=0.01)


def test_the_bundle_maps_in_int8_and_in_fp32(done: tuple[Path, Any], chile: Path, small: Path, tmp_path: Path) -> None:
    bundle = open_bundle(done[0])
    assert bundle.precisions() == ("fp32", "int8")
    assert set(bundle.item["properties"]["mmedge:cost"]) >= {"sar", "optical+sar+elevation", "machine"}
    made = {
        precision: infer(chile / "scene.tif", tmp_path / f"{precision}.tif", model=done[0], precision=precision)
        for precision in ("fp32", "int8")
    }
    original = read(infer(chile / "scene.tif", tmp_path / "original.tif", model=small).outputs.map)
    np.testing.assert_array_equal(read(made["fp32"].outputs.map), original)
    assert (read(made["int8"].outputs.map) == original).mean() > 0.9
    assert made["int8"].provenance.precision == "int8"


def test_windows_too_large_for_a_batch_of_eight_are_quantized_too(chile: Path, tmp_path: Path) -> None:
    """A batch holds at most 512 x 512 pixels: 5 windows of 220."""
    folder = write_bundle(tmp_path / "wide", window_px=220)
    item = json.loads((folder / "model.json").read_text())
    arguments = ["quantize", str(folder), "--scenes", str(chile / "scene.tif"), "--windows", "8", "-q"]
    assert run([*arguments, "-o", str(tmp_path / "out")]) == 0
    made = json.loads((tmp_path / "out" / "model.json").read_text())["properties"]
    assert made["mmedge:tiling"] == item["properties"]["mmedge:tiling"]
    assert "batch of 5" in made["mmedge:cost"]["unit"]


def test_a_gate_that_fails_writes_nothing(
    chile: Path, small: Path, own_map: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Validation has no labels that count, so every layer is int8; the test labels are the float model's own map."""
    blank = tmp_path / "blank.tif"
    with rasterio.open(own_map) as src, rasterio.open(blank, "w", **src.profile) as out:
        out.write(np.zeros((1, *src.shape), np.uint8))
    scene = chile / "scene.tif"
    arguments = ["quantize", str(small), "--scenes", str(scene), "--validate", f"{scene}={blank}"]
    arguments += ["--test", f"{scene}={own_map}", "-o", str(tmp_path / "out"), "--windows", "8", "--max-drop", "0"]
    code = run(arguments)
    said = capsys.readouterr()
    assert code == 1
    assert "failed" in said.out
    assert "no bundle was written" in said.err
    assert not list(tmp_path.glob("out*"))


def test_an_output_is_never_overwritten_unasked(chile: Path, small: Path, tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    arguments = ["quantize", str(small), "--scenes", str(chile / "scene.tif"), "-o", str(tmp_path / "out")]
    assert run(arguments) == 2
    assert run([*arguments[:-1], str(tmp_path / "new"), "--method", "magic"]) == 2
    assert not (tmp_path / "new").exists()


def test_temperature_undoes_overconfidence() -> None:
    rng = np.random.default_rng(0)
    logits = rng.normal(size=(40_000, 4)).astype(np.float32) * 2
    share = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    labels = (share.cumsum(1) > rng.random((len(share), 1))).argmax(1)
    loud = Pixels(logits * 3, labels)
    temperature = fit_temperature(loud)
    assert temperature == pytest.approx(3, rel=0.03)
    assert loud.calibration_error() > 0.1
    assert loud.calibration_error(temperature) < 0.01


def test_a_stored_temperature_changes_confidence_and_no_class(
    done: tuple[Path, Any], chile: Path, tmp_path: Path
) -> None:
    """Bundles differ in model.json alone."""
    folder = tmp_path / "hot"
    shutil.copytree(done[0], folder)
    item = json.loads((folder / "model.json").read_text())
    item["properties"]["mmedge:temperature"] = dict.fromkeys(item["properties"]["mmedge:temperature"], 50.0)
    (folder / "model.json").write_text(json.dumps(item))
    cold = infer(chile / "scene.tif", tmp_path / "cold.tif", model=done[0]).outputs
    hot = infer(chile / "scene.tif", tmp_path / "hot.tif", model=folder).outputs
    np.testing.assert_array_equal(read(cold.map), read(hot.map))
    assert read(hot.confidence).mean() < read(cold.confidence).mean() - 10
