"""`mmedge bench`: its report keeps its schema, its plots what was measured, its intervals what they should hold."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import jetson_trees
import numpy as np
import pytest

from mmedge.bundle import open_bundle
from mmedge.cli.app import run
from mmedge.edge.bench import run as bench_module
from mmedge.edge.bench.compare import compare, ratio_interval
from mmedge.edge.bench.page import page, ticks
from mmedge.edge.bench.power import find_meters
from mmedge.edge.bench.run import BenchOptions, bench
from mmedge.edge.bench.table import markdown
from mmedge.edge.memory import peak_mib, reset_peak

jsonschema = pytest.importorskip("jsonschema")
SCHEMA = json.loads((Path(__file__).parents[3] / "docs/schemas/mmedge.bench.1.json").read_text())
QUICK = BenchOptions(count=3, warmup_s=0, idle_s=0.1, batches=(1, 2), available=("optical", "sar"), threads=2)


@pytest.fixture(scope="module")
def report(small: Path) -> dict[str, Any]:
    return bench(open_bundle(small), QUICK)


def test_every_set_of_sensors_has_a_row_and_the_report_keeps_its_schema(report: dict[str, Any]) -> None:
    jsonschema.validate(report, SCHEMA)
    single = [row for row in report["rows"] if row["scenario"] == "single-stream" and row["batch"] == 2]
    assert [row["availability"] for row in single] == ["optical", "sar", "optical+sar"]
    for row in report["rows"]:
        assert len(row["latencies_ms"]) == row["batches"] == 3
        assert row["tiles_per_s"] == pytest.approx(3 * row["batch"] / row["seconds"], rel=0.05)
        assert row["mpx_per_s"] == pytest.approx(row["tiles_per_s"] * 60 * 60 / 1e6, rel=0.05)


def test_energy_comes_from_meters_alone(
    small: Path, report: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if not report["energy"]["meters"]:
        assert report["energy"]["missing"]
        assert all(row["energy"] is None for row in report["rows"])
    tree = jetson_trees.thor(tmp_path)
    monkeypatch.setattr(bench_module, "find_meters", lambda: find_meters(tree))
    measured = bench(open_bundle(small), QUICK)
    jsonschema.validate(measured, SCHEMA)
    assert measured["energy"]["idle_w"] == pytest.approx(31.5, rel=0.05)
    for row in measured["rows"]:
        assert row["energy"]["mean_w"] == pytest.approx(31.5, rel=0.05)
        assert row["energy"]["j_per_km2_above_idle"] == pytest.approx(0, abs=0.1 * row["energy"]["j_per_km2"])
    assert "J/km²" in markdown(measured)
    assert "Energy against batch" in page(measured)


def test_the_page_needs_nothing_from_anywhere(report: dict[str, Any]) -> None:
    text = page({**report, "model": "<script>alert(1)</script>"})
    assert "<script" not in text
    assert not re.search(r"""(src|href)\s*=|url\(|@import""", text)
    assert text.count("<svg") == 2
    assert text.count("<polyline") == 6 + 3


@pytest.mark.parametrize(
    ("top", "wanted"),
    [(1.0, [0, 0.2, 0.4, 0.6, 0.8, 1]), (44.3, [0, 10, 20, 30, 40]), (0.0021, [0, 0.0005, 0.001, 0.0015, 0.002])],
)
def test_axes_have_round_numbers(top: float, wanted: list[float]) -> None:
    assert ticks(top) == wanted


def test_what_is_not_there_is_a_row_that_says_so(small: Path, capsys: pytest.CaptureFixture[str]) -> None:
    command = ["bench", str(small), "--precision", "fp32,int8", "--backend", "openvino", "--available", "sar"]
    assert run([*command, "--count", "2", "--warmup", "0", "--idle", "0.1", "--json"]) == 0
    report = json.loads(capsys.readouterr().out)
    jsonschema.validate(report, SCHEMA)
    assert [("error" in row, row["precision"]) for row in report["rows"]] == [
        (False, "fp32"),
        (False, "fp32"),
        (True, "int8"),
        (True, "int8"),
    ]


def test_reports_are_written_and_compared(
    chile: Path, small: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out, html, text = tmp_path / "a.json", tmp_path / "a.html", tmp_path / "a.md"
    command = ["bench", str(small), "--available", "sar", "--count", "20", "--warmup", "0", "--idle", "0.1"]
    command += ["-o", str(out), "--html", str(html), "--markdown", str(text), "--scene", str(chile / "scene.tif")]
    assert run(command) == 0
    report = json.loads(out.read_text())
    jsonschema.validate(report, SCHEMA)
    assert report["end_to_end"]["pixels"] == 224 * 224
    assert set(report["end_to_end"]["utilisation"]) == {"read", "compute", "write", "wait"}
    assert "end to end" in text.read_text()
    assert html.read_text().startswith("<!doctype html>")
    assert run(command) == 2
    capsys.readouterr()
    assert run(["bench", "--compare", str(out), str(out), "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert {row["verdict"] for row in found["rows"]} == {"no difference seen"}
    assert [row["ratio"] for row in found["rows"]] == [1.0, 1.0]


@pytest.mark.parametrize("wrong", [["--batch", "x"], ["--scenario", "server"], ["--available", "lidar,thermal"]])
def test_mistakes_are_said(small: Path, wrong: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["bench", str(small), *wrong]) == 2
    assert "hint:" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("written", "said"),
    [
        (["-o", "nosuch/b.json"], "`nosuch` does not exist"),
        (["--html", ".", "--overwrite"], "output `.` is a folder"),
        (["-o", "b", "--markdown", "b"], "one file is to be two outputs"),
    ],
)
def test_what_cannot_be_written_is_said_before_anything_is_measured(
    small: Path,
    written: list[str],
    said: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    assert run(["bench", str(small), "--count", "1000000000", *written]) == 2
    assert said in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


def test_an_interval_holds_the_ratio_that_the_data_were_made_with() -> None:
    held = 0
    for seed in range(40):
        rng = np.random.default_rng(seed)
        a, b = rng.lognormal(0, 0.2, 300), 1.05 * rng.lognormal(0, 0.2, 300)
        low, ratio, high = ratio_interval(list(a), list(b), seed=seed)
        assert low <= ratio <= high
        held += low <= 1.05 <= high
    assert 32 <= held <= 40


def test_a_slower_run_is_seen(report: dict[str, Any]) -> None:
    rng = np.random.default_rng(0)
    row = {**report["rows"][0], "latencies_ms": list(10 + rng.random(200))}
    slow = {**row, "latencies_ms": [2 * v for v in row["latencies_ms"]]}
    found = compare({**report, "rows": [row]}, {**report, "rows": [slow]})
    assert found["rows"][0]["verdict"] == "slower"
    assert found["rows"][0]["low"] > 1.9


def test_the_peak_of_memory_begins_anew() -> None:
    if not reset_peak():
        pytest.skip("this kernel does not reset the peak (/proc/self/clear_refs)")
    before = peak_mib()
    block = np.ones(64 << 20, np.uint8)
    after = peak_mib()
    assert before is not None
    assert after is not None
    assert after - before > 50
    del block
