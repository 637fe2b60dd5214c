"""The Kubernetes Job of docker/batch-job.yaml: its command, run for every index, maps each scene once."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import rasterio
from rasterio.windows import Window

yaml = pytest.importorskip("yaml")
ROOT = Path(__file__).parents[2]


def job() -> Any:
    return yaml.safe_load((ROOT / "docker/batch-job.yaml").read_text(encoding="utf-8"))["spec"]


@pytest.fixture
def data(chile: Path, tmp_path: Path) -> Path:
    (tmp_path / "scenes").mkdir()
    with rasterio.open(chile / "scene.tif") as src:
        window = Window(0, 0, 64, 64)
        profile = {**src.profile, "height": 64, "width": 64, "transform": src.window_transform(window)}
        with rasterio.open(tmp_path / "scenes/a.tif", "w", **profile) as out:
            out.write(src.read(window=window))
            out.descriptions = src.descriptions
    for name in "bcdef":
        shutil.copy(tmp_path / "scenes/a.tif", tmp_path / f"scenes/{name}.tif")
    return tmp_path


def test_every_scene_is_in_one_pod(data: Path, small: Path) -> None:
    """`mmedge` on the path and `/data` stand for the image and its volume."""
    spec = job()
    container = spec["template"]["spec"]["containers"][0]
    (data / "bin").mkdir()
    tool = data / "bin/mmedge"
    code = f"import sys; sys.path[:] = {sys.path!r}; from mmedge.cli.app import main; main()"
    tool.write_text(f"#!{sys.executable}\n{code}\n")
    tool.chmod(0o755)
    shell, flag = container["command"]
    text = container["args"][0].replace("/data/", f"{data}/")
    done: list[str] = []
    for index in range(spec["completions"]):
        path = f"{data / 'bin'}{os.pathsep}{os.environ['PATH']}"
        env = {**os.environ, "PATH": path, "JOB_COMPLETION_INDEX": str(index), "MMEDGE_MODEL": str(small)}
        pod = subprocess.run([shell, flag, text], env=env, capture_output=True, text=True, timeout=120, check=False)
        assert pod.returncode == 0, pod.stderr
        done += [line for line in pod.stdout.splitlines() if '"status": "done"' in line]
    assert len(done) == 6
    assert sorted(p.name for p in (data / "maps").glob("?_map.tif")) == [f"{name}_map.tif" for name in "abcdef"]


def test_an_index_that_cannot_succeed_is_not_tried_again() -> None:
    rule = job()["podFailurePolicy"]["rules"][0]
    assert rule["action"] == "FailIndex"
    assert rule["onExitCodes"] == {"operator": "In", "values": [2, 3, 70]}
