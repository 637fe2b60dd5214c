"""Parity on the example scene: equal where it must be, and the figures are those of numpy."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from mmedge.cli.app import run
from mmedge.edge.device import sums_int8
from mmedge.edge.parity import Difference


def test_figures_are_those_of_numpy() -> None:
    rng = np.random.default_rng(0)
    first = rng.normal(size=(2, 5, 8, 8)).astype(np.float32)
    second = first + rng.normal(size=first.shape).astype(np.float32) * 0.1
    found = Difference.of(first, second)
    assert found.max_abs == pytest.approx(np.abs(first - second).max(), rel=1e-5)
    assert found.sqnr_db == pytest.approx(20, abs=0.6)
    assert found.agreement == (first.argmax(1) == second.argmax(1)).mean() < 1
    assert Difference.of(first, first).sqnr_db == float("inf")


def test_two_backends_agree_on_the_example(chile: Path, small: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("onnxruntime")
    arguments = [
        "parity",
        str(small),
        "--scenes",
        str(chile / "scene.tif"),
        "--windows",
        "16",
        "--min-agreement",
        "99.9",
    ]
    assert run([*arguments, "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert set(document["graphs"]) >= {"sar", "optical", "optical+sar+elevation", "optical.mixed"}
    assert all(graph["max_abs"] < 1e-3 and graph["sqnr_db"] > 90 for graph in document["graphs"].values())
    assert document["layers"] == {}


def test_windows_of_any_size_are_compared_in_what_fits_the_scene(
    chile: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A batch of mamol-conv's own windows of 640 px would be one window, not eight."""
    arguments = ["parity", "mamol-conv", "--scenes", str(chile / "scene.tif"), "--available", "sar", "--json"]
    backend = "openvino" if sums_int8() else "onnxruntime"
    assert run([*arguments, "--second", f"{backend}:int8", "--min-agreement", "95"]) == 0
    graph = json.loads(capsys.readouterr().out)["graphs"]["sar.mixed"]
    assert 95 < 100 * graph["agreement"] < 100
    assert graph["sqnr_db"] > 20


def test_bf16_differs_and_every_layer_says_how_much(
    chile: Path, small: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ["parity", str(small), "--scenes", str(chile / "scene.tif"), "--available", "sar", "--layers"]
    assert run([*arguments, "--second", "openvino:bf16", "--min-agreement", "100"]) in (0, 1)
    said = capsys.readouterr().out
    assert "openvino:bf16 against openvino:fp32" in said
    assert "sar.mixed sar_out" in said
    assert "logits" in said


def test_a_sensor_that_the_model_does_not_know_is_named(chile: Path, small: Path) -> None:
    assert run(["parity", str(small), "--scenes", str(chile / "scene.tif"), "--available", "thermal"]) == 2
    assert run(["parity", str(small)]) == 2


def test_a_precision_that_does_not_exist_is_told_those_that_do(
    chile: Path, small: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(["parity", str(small), "--scenes", str(chile / "scene.tif"), "--second", "openvino:int4"]) == 2
    assert "one of fp32, bf16, int8" in capsys.readouterr().err
