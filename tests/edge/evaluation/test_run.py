"""`mmedge evaluate`, and the same from Python: what is scored is what `infer` maps, at the precision asked for."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import rasterio

from mmedge.bundle import open_bundle
from mmedge.cli.app import run
from mmedge.edge.evaluation.report import report_files, write_report
from mmedge.edge.evaluation.run import EvaluateRequest, evaluate, plan_evaluation
from mmedge.edge.infer import infer
from mmedge.errors import OutputError, UsageError
from mmedge.geo_io.labels import LabelFile
from mmedge.geo_io.location import locate


def accuracy(made: Path, labels: Path, values: list[int]) -> float:
    with rasterio.open(made) as src, rasterio.open(labels) as truth:
        found, known = src.read(1), truth.read(1)
    some = np.isin(known, values) & (found != 255)
    return round(float((found == known)[some].mean()), 4)


def test_a_model_is_scored_from_python(chile: Path, small: Path, tmp_path: Path) -> None:
    scene, labels = chile / "scene.tif", chile / "landcover.tif"
    request = EvaluateRequest(thing=str(small), scene=locate(str(scene)), labels=LabelFile(path=labels), threads=1)
    assert not request.is_map
    assert plan_evaluation(request) == (str(small), str(labels), str(scene))
    steps: list[tuple[int, int]] = []
    document = evaluate(request, progress=lambda done, total: steps.append((done, total)))
    assert steps[-1] == (7, 7)
    assert (document["schema"], document["precision"]) == ("mmedge.evaluate/1", "fp32")
    infer(scene, tmp_path / "map.tif", model=small, available=("sar",))
    values = [c.value for c in open_bundle(small).classes]
    assert document["availability"]["sar"]["oa"] == accuracy(tmp_path / "map.tif", labels, values)
    of_map = EvaluateRequest(thing=str(tmp_path / "map.tif"), labels=LabelFile(path=labels))
    assert of_map.is_map
    assert plan_evaluation(of_map) == (str(tmp_path / "map.tif"), str(labels))
    assert evaluate(of_map)["schema"] == "mmedge.map_score/1"


def test_an_int8_model_is_scored_in_int8(chile: Path, tmp_path: Path) -> None:
    scene, labels = chile / "scene.tif", chile / "landcover.tif"
    arguments = ["evaluate", "mamol-conv", "--scene", str(scene), "--labels", str(labels), "--part", "all", "-q"]
    assert run([*arguments, "--precision", "int8", "-o", str(tmp_path / "score.json")]) == 0
    document = json.loads((tmp_path / "score.json").read_text())
    assert document["precision"] == "int8"
    assert set(document["cost"]["sar"]) == {"macs", "ms_per_window"}  # the times in the bundle are another machine's
    assert "in int8" in (tmp_path / "score.md").read_text()
    for precision in ("int8", "fp32"):
        infer(scene, tmp_path / f"{precision}.tif", model="mamol-conv", precision=precision)
    assert (tmp_path / "int8.tif").read_bytes() != (tmp_path / "fp32.tif").read_bytes()
    values = [c.value for c in open_bundle("mamol-conv").classes]
    assert document["availability"]["optical+sar+elevation"]["oa"] == accuracy(tmp_path / "int8.tif", labels, values)


def test_mistakes_are_said_before_any_work(chile: Path, small: Path, tmp_path: Path) -> None:
    labels = LabelFile(path=chile / "landcover.tif")
    with pytest.raises(UsageError, match="no part"):
        EvaluateRequest(thing=str(small), labels=labels, part="train")
    with pytest.raises(UsageError, match="between 0 and 1"):
        EvaluateRequest(thing=str(small), labels=labels, etas=(0.5, 1.5))
    request = EvaluateRequest(thing=str(small), labels=labels, precision="int8")
    for work in (evaluate, plan_evaluation):
        with pytest.raises(UsageError, match="has no int8 graphs"):
            work(request)
    arguments = ["evaluate", str(small), "--scene", str(chile / "scene.tif"), "--labels", str(labels.path)]
    assert run([*arguments, "--eta", "0.3;0.7"]) == 2
    assert run([*arguments, "-o", str(tmp_path / "no" / "score.json")]) == 2
    assert not list(tmp_path.iterdir())


def test_of_a_reports_files_none_appears_where_one_cannot_be_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    document = {"schema": "mmedge.map_score/1", "map": "m.tif", "labels": "l.tif", "unit": "pixel", "classes": ["a"]}
    document |= dict.fromkeys(("units", "oa", "aa", "kappa", "macro_f1", "miou"), 1.0) | {"confusion": [[1]]}
    notes: list[str] = []
    files = report_files(tmp_path / "score.json")
    files["png"].mkdir()
    pytest.importorskip("matplotlib")
    with pytest.raises(OutputError, match="cannot write"):
        write_report(files, document, note=notes.append)
    assert [path.name for path in tmp_path.iterdir()] == ["score.png"]
    files["png"].rmdir()
    monkeypatch.setattr("mmedge.edge.evaluation.report.find_spec", lambda name: None)
    write_report(files, document, note=notes.append)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["score.json", "score.md"]
    assert "no pictures without matplotlib" in notes[0]
