"""`mmedge batch` as people meet it: lines, JSON lines, the table on a terminal, exit codes."""

from __future__ import annotations

import json
import os
import pty
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from mmedge.cli.app import run

ROOT = Path(__file__).parents[2]


@pytest.fixture
def scenes(chile: Path, tmp_path: Path) -> Path:
    """A good scene and a bad one."""
    folder = tmp_path / "scenes"
    folder.mkdir()
    shutil.copy(chile / "scene.tif", folder / "good.tif")
    (folder / "bad.tif").write_text("no raster")
    return folder


def everything(folder: Path) -> dict[str, int]:
    return {str(p.relative_to(folder)): p.stat().st_mtime_ns for p in sorted(folder.rglob("*")) if p.is_file()}


def test_lines_for_people_and_paths_for_pipes(
    scenes: Path, small: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "maps"
    assert run(["batch", str(scenes), "--out", str(out), "-m", str(small)]) == 1
    said, err = capfd.readouterr()
    assert said == f"{out}/good_map.tif\n"
    assert "\x1b" not in err
    lines = err.splitlines()
    assert lines[0].startswith("[1/2] FAILED      bad: ")
    assert lines[1].startswith("[2/2] mapped      good in ")
    assert lines[2].startswith("1 mapped, 0 up to date, 1 failed in ")
    assert lines[3].startswith("  bad: `")
    (scenes / "bad.tif").unlink()
    assert run(["batch", str(scenes), "--out", str(out), "-m", str(small), "-q"]) == 0
    assert capfd.readouterr() == (f"{out}/good_map.tif\n", "")


def test_a_json_line_a_scene_and_the_summary_last(
    scenes: Path, small: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    assert run(["batch", str(scenes), "--out", str(tmp_path / "maps"), "-m", str(small), "--json", "-q"]) == 1
    bad, good, summary = (json.loads(line) for line in capfd.readouterr().out.splitlines())
    assert (bad["id"], bad["status"], bad["attempts"]) == ("bad", "failed", 1)
    assert "is not a raster" in bad["reason"]
    assert (good["id"], good["status"], good["why"]) == ("good", "done", "new")
    assert good["run"]["mapped"] == 224 * 224
    assert (summary["schema"], summary["done"]) == ("mmedge.batch/1", 1)
    assert [scene["id"] for scene in summary["failed"]] == ["bad"]


def test_a_dry_run_touches_nothing_and_exits_as_the_real_run_would(
    scenes: Path, small: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    told = ["batch", str(scenes), "--out", str(tmp_path / "maps"), "-m", str(small), "--dry-run"]
    assert run([*told, "--json"]) == 1
    bad, good = (json.loads(line) for line in capsys.readouterr().out.splitlines())
    assert (bad["id"], bad["would"]) == ("bad", "fail")
    assert (good["would"], good["why"], good["sensors"]) == ("map", "new", ["optical", "sar", "elevation"])
    assert good["writes"][-1] == str(tmp_path / "maps" / "good_map.tif")
    assert not (tmp_path / "maps").exists()
    (scenes / "bad.tif").unlink()
    assert run(told) == 0
    assert run(told[:-1]) == 0
    before = everything(tmp_path)
    capsys.readouterr()
    assert run(told) == 0
    assert capsys.readouterr().out == "skip  good: up to date\n"
    assert everything(tmp_path) == before


@pytest.mark.parametrize(
    ("told", "code", "said"),
    [
        (["batch"], 2, "no scenes given"),
        (["batch", "nowhere"], 2, "no such file or folder: `nowhere`"),
        (["batch", "{scenes}", "--shard", "3/2"], 2, "is not I/N"),
        (["batch", "{scenes}", "--shard", "one"], 2, "is not I/N"),
        (["batch", "{scenes}", "--available", "thermal"], 2, "knows optical, sar, elevation"),
        (["batch", "{scenes}", "--available", "sar", "--require", "optical"], 2, "is not in `--available`"),
        (["batch", "{scenes}", "--aoi", "nofile.gpkg"], 2, "no such file: `nofile.gpkg`"),
        (["batch", "{scenes}", "--precision", "int8"], 2, "has no int8 graphs"),
        (["batch", "{scenes}", "--workers", "0"], 2, "--workers"),
        (["batch", "{scenes}", "--pattern", "{{id}}.tif"], 2, "does not say which part"),
        (["batch", "{scenes}", "--out", "{scenes}/good.tif"], 2, "cannot write in"),
    ],
)
def test_mistakes_of_usage_are_said_before_any_work(
    told: list[str],
    code: int,
    said: str,
    scenes: Path,
    small: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MMEDGE_MODEL", str(small))
    assert run([word.format(scenes=scenes) for word in told]) == code
    out, err = capsys.readouterr()
    assert out == ""
    assert said in err
    assert "hint: " in err
    assert not list(tmp_path.rglob("*_map.tif"))


def test_a_table_where_somebody_looks(scenes: Path, small: Path, tmp_path: Path) -> None:
    ours, theirs = pty.openpty()
    told = ["batch", str(scenes), "--out", str(tmp_path / "maps"), "-m", str(small)]
    process = subprocess.Popen(
        [sys.executable, "-c", "from mmedge.cli.app import main; main()", *told],
        stdout=subprocess.DEVNULL,
        stderr=theirs,
        env={**os.environ, "PYTHONPATH": str(ROOT), "TERM": "xterm", "COLUMNS": "100"},
    )
    os.close(theirs)
    seen = b""
    try:
        while block := os.read(ours, 1 << 12):
            seen += block
    except OSError:  # the terminal is gone with the process
        pass
    finally:
        os.close(ours)
    assert process.wait(60) == 1
    shown = seen.decode()
    assert "of 2 scenes in" in shown
    assert "worker" in shown
    assert "FAILED      bad" in shown
