"""Scores of a bundle: the maps that `infer` makes, counted; mixtures and oracles by hand."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from mmedge.bundle import Bundle, open_bundle
from mmedge.edge.arrays import _map
from mmedge.edge.evaluation.blocks import TEST, TRAIN, Blocks
from mmedge.edge.evaluation.evaluate import UNMAPPED, Answers, Judged, cost, judge, report, trained_on, unseen
from mmedge.edge.evaluation.metrics import calibration_error
from mmedge.edge.evaluation.report import draw_confusions, markdown
from mmedge.edge.runtime.open import open_runtime
from mmedge.edge.runtime.session import Engines
from mmedge.geo_io.labels import LabelFile, read_labels
from mmedge.geo_io.scene import open_scene
from mmedge.modality import Availability


@pytest.fixture(scope="module")
def engines(small: Path) -> Engines:
    runtime, _ = open_runtime("openvino", precision="fp32", threads=1)
    return Engines(open_bundle(small), runtime, batch=4)


@pytest.fixture(scope="module")
def judged(chile: Path, engines: Engines) -> Judged:
    with open_scene(chile / "scene.tif", engines.bundle.modalities) as scene:
        labels = read_labels(LabelFile(path=chile / "landcover.tif"), scene.grid, engines.bundle.classes)
        labels[:40] = -1
        labels[:, :30] = -1
        return judge(scene, labels, engines, threads=1)


@pytest.mark.parametrize("name", ["sar", "optical+elevation"])
def test_the_answers_are_those_of_the_map(chile: Path, engines: Engines, judged: Judged, name: str) -> None:
    bundle = engines.bundle
    with open_scene(chile / "scene.tif", bundle.modalities) as scene:
        made = _map(scene, bundle, name.split("+"), "fp32", "openvino", 1)
        labels = read_labels(LabelFile(path=chile / "landcover.tif"), scene.grid, bundle.classes)
    labels[:40] = -1
    labels[:, :30] = -1
    answers = judged.answers[Availability.parse(name, bundle.order)]
    values = np.array([c.value for c in bundle.classes])
    np.testing.assert_array_equal(values[answers.classes], made.classes[labels >= 0])
    np.testing.assert_array_equal(answers.confidence, made.confidence[labels >= 0])
    np.testing.assert_array_equal(judged.reference, labels[labels >= 0])


def test_every_availability_its_mean_and_worst(engines: Engines, judged: Judged) -> None:
    document = report(judged, engines.bundle, [0.0, 0.5, 1.0])
    rows = document["availability"]
    assert list(rows) == [str(a) for a in Availability.every(engines.bundle.order)]
    oa = [row["oa"] for row in rows.values()]
    assert document["mean"]["oa"] == pytest.approx(np.mean(oa), abs=1e-4)
    assert document["worst"]["oa"] == min(oa)
    assert document["mixture"]["0"]["oa"] == oa[-1]
    assert document["mixture"]["1"]["oa"] == pytest.approx(np.mean(oa[:-1]), abs=1e-4)
    assert document["mixture"]["0.5"]["oa"] == pytest.approx((oa[-1] + np.mean(oa[:-1])) / 2, abs=1e-4)
    assert document["oracle_best_subset"]["optical+sar+elevation"] >= max(oa)
    assert document["oracle_best_subset"]["sar"] == rows["sar"]["oa"]


def small_judged(order: tuple[str, ...] = ("optical", "sar")) -> Judged:
    a, b, both = Availability.every(order)
    confident = np.full(4, 90, np.uint8)
    return Judged(
        reference=np.array([0, 0, 1, 1], np.int16),
        answers={
            a: Answers(classes=np.array([0, 1, 0, UNMAPPED], np.uint8), confidence=confident),
            b: Answers(classes=np.array([1, 0, 0, 1], np.uint8), confidence=confident),
            both: Answers(classes=np.array([1, 1, 0, 0], np.uint8), confidence=confident),
        },
    )


def test_the_oracle_takes_whichever_subset_is_right(engines: Engines) -> None:
    judged = small_judged()
    both = max(judged.answers, key=len)
    assert judged.best_subset(both) == 0.75
    assert judged.confusion(next(iter(judged.answers)), 2).counts.tolist() == [[1, 1], [1, 0]]
    assert (judged + judged).best_subset(both) == 0.75


def test_calibration_error_by_hand() -> None:
    confidence = np.array([0.9, 0.9, 0.9, 0.9, 0.5, 0.5])
    right = np.array([True, True, True, False, False, False])
    assert calibration_error(confidence, right) == pytest.approx((4 * 0.15 + 2 * 0.5) / 6)
    assert np.isnan(calibration_error(np.zeros(0), np.zeros(0, bool)))
    assert calibration_error(np.ones(3), np.ones(3, bool)) == 0


def test_what_trained_the_bundle_is_left_out(chile: Path, engines: Engines) -> None:
    bundle: Bundle = engines.bundle
    with open_scene(chile / "scene.tif", bundle.modalities) as scene:
        grid = scene.grid
    parts = np.array([[TRAIN, TEST], [TEST, TRAIN]], np.uint8)
    document = Blocks(grid=grid, block_px=112, parts=parts).document()
    item = {**bundle.item, "properties": {**bundle.item["properties"], "mmedge:training": {"scenes": [document]}}}
    labels = np.zeros(grid.shape, np.int16)
    kept = unseen(labels, replace(bundle, item=item), grid)
    assert (kept[:112, 112:] == 0).all()
    assert (kept[:112, :112] == -1).all()
    assert (unseen(labels, bundle, grid) == 0).all()
    assert trained_on(bundle, grid).min() == 255


def test_the_report_holds_every_figure(engines: Engines, judged: Judged, tmp_path: Path) -> None:
    document = {
        "schema": "mmedge.evaluate/1",
        "model": "small",
        "scene": "chile",
        "part": "all",
        "pixels": len(judged.reference),
        "classes": [c.name for c in engines.bundle.classes],
        **report(judged, engines.bundle, [0.3]),
        "oracle_method": {"sar": 0.9},
        "parameters": None,
        "device": "here",
        "precision": "fp32",
        "threads": 1,
        "cost": dict(cost(engines)),
    }
    text = markdown(document)
    for row in document["availability"].values():
        assert f"| {row['oa']} | {row['aa']} |" in text
    assert text.count("| sar |") == 5
    pytest.importorskip("matplotlib")
    draw_confusions(tmp_path / "a.png", document["confusion"], document["classes"])
    draw_confusions(tmp_path / "b.png", document["confusion"], document["classes"])
    assert (tmp_path / "a.png").read_bytes()[:4] == b"\x89PNG"
    assert (tmp_path / "a.png").read_bytes() == (tmp_path / "b.png").read_bytes()


def test_a_scene_says_nothing_of_sensors_that_it_lacks(chile: Path, engines: Engines) -> None:
    with open_scene(chile / "scene.tif", engines.bundle.modalities) as scene:
        labels = read_labels(LabelFile(path=chile / "landcover.tif"), scene.grid, engines.bundle.classes)
        labels[64:] = -1
        both = judge(scene.only(("optical", "sar")), labels, engines, threads=1)
        alone = judge(scene.only(("sar",)), labels, engines, threads=1)
    assert list(report(both, engines.bundle)["availability"]) == ["optical", "sar", "optical+sar"]
    document = report(alone, engines.bundle, [0.3])
    assert list(document["availability"]) == ["sar"]
    assert document["mixture"]["0.3"]["oa"] == document["availability"]["sar"]["oa"]
    pooled = report(both + alone, engines.bundle)["availability"]
    assert pooled["sar"]["pixels"] == 2 * pooled["optical"]["pixels"]


@pytest.mark.parametrize("name", ["mamol-terra", "mamol-conv"])
def test_bundles_that_ship_say_what_trained_them(chile: Path, name: str) -> None:
    bundle = open_bundle(name)
    with open_scene(chile / "scene.tif", bundle.modalities) as scene:
        kept = unseen(np.zeros(scene.grid.shape, np.int16), bundle, scene.grid)
    assert (kept == 0).sum() == 5 * 56**2
    assert (kept[:56, :56] == 0).all()
    assert (kept[:56, 56:168] == -1).all()
