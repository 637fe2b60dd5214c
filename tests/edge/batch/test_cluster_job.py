"""The Kubernetes Job and the Argo workflow in docker/: their commands, run as processes, map each scene once."""

from __future__ import annotations

import json
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
ROOT = Path(__file__).parents[3]


def manifest(name: str) -> Any:
    return yaml.safe_load((ROOT / "docker" / name).read_text(encoding="utf-8"))["spec"]


class Pods:
    """Runs containers: `mmedge` on the path and a folder in the place of `/data` stand for the image and its volume."""

    def __init__(self, data: Path, small: Path) -> None:
        tool = data / "bin" / "mmedge"
        tool.parent.mkdir()
        code = f"import sys; sys.path[:] = {sys.path!r}; from mmedge.cli.app import main; main()"
        tool.write_text(f"#!{sys.executable}\n{code}\n")
        tool.chmod(0o755)
        path = f"{tool.parent}{os.pathsep}{os.environ['PATH']}"
        self._data, self._env = data, {**os.environ, "PATH": path, "MMEDGE_MODEL": str(small)}

    def run(self, container: Any, **env: str) -> list[str]:
        """The lines that it prints; it has to end well."""
        shell, flag = container["command"]
        text = container["args"][0].replace("/data/", f"{self._data}/")
        pod = subprocess.run(
            [shell, flag, text], env=self._env | env, capture_output=True, text=True, timeout=120, check=False
        )
        assert pod.returncode == 0, pod.stderr
        return pod.stdout.splitlines()

    @property
    def maps(self) -> str:
        return "".join(sorted(p.name[0] for p in (self._data / "maps").glob("?_map.tif")))


def done(lines: list[str]) -> int:
    return sum('"status": "done"' in line for line in lines)


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


def test_every_scene_is_in_one_pod_of_the_job(data: Path, small: Path) -> None:
    spec, pods = manifest("batch-job.yaml"), Pods(data, small)
    container = spec["template"]["spec"]["containers"][0]
    found = [done(pods.run(container, JOB_COMPLETION_INDEX=str(i))) for i in range(spec["completions"])]
    assert sum(found) == 6
    assert pods.maps == "abcdef"


def test_an_index_that_cannot_succeed_is_not_tried_again() -> None:
    rule = manifest("batch-job.yaml")["podFailurePolicy"]["rules"][0]
    assert rule["action"] == "FailIndex"
    assert rule["onExitCodes"] == {"operator": "In", "values": [2, 3, 70]}


def test_the_workflow_maps_every_scene_and_writes_the_catalogue(data: Path, small: Path) -> None:
    templates = {t["name"]: t for t in manifest("batch-argo.yaml")["templates"]}
    pods, (shards,) = Pods(data, small), templates["all"]["steps"][0]
    count, total = int(shards["withSequence"]["count"]), 0
    for item in range(1, count + 1):
        container = templates[shards["template"]]["container"]
        text = container["args"][0].replace("{{inputs.parameters.shard}}", str(item))
        assert text.count(f"--shard {item}/{count} ") == 1
        total += done(pods.run({**container, "args": [text]}))
    assert total == 6
    assert done(pods.run(templates["ledger"]["container"])) == 0  # nothing is left
    assert len(json.loads((data / "maps/collection.json").read_text())["links"]) >= 6
