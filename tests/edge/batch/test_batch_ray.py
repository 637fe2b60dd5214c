"""Batches on a real Ray cluster on this machine: a head node, worker processes, one of which is killed."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from secrets import token_hex

import pytest
from test_batch import ask, lengthened, outputs, right, spawn, three_scenes, until

from mmedge.edge.batch.crew_ray import _core_group, _room

__all__ = ["right"]  # a fixture

pytestmark = pytest.mark.skipif(find_spec("ray") is None, reason="needs ray: pip install 'mmedge[batch]'")


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of a cluster with room for three workers of one core."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    told = ["start", "--head", "--block", "--node-ip-address=127.0.0.1", f"--port={port}", "--num-cpus=3"]
    told += ["--include-dashboard=false", "--disable-usage-stats", "--object-store-memory=80000000"]
    command = [sys.executable, "-u", "-m", "ray.scripts.scripts", *told]
    folder = tmp_path_factory.mktemp("ray")
    with (folder / "log").open("w") as log, pytest.MonkeyPatch.context() as patch:
        patch.setenv("RAY_AUTH_MODE", "token")  # of those who join, too
        patch.setenv("RAY_AUTH_TOKEN", token_hex(32))
        patch.setenv("RAY_raylet_start_wait_time_s", "120")  # a busy machine
        head = subprocess.Popen(command, stdout=log, stderr=log)
        try:
            until(lambda: "Ray runtime started" in (folder / "log").read_text(), 120)
            yield f"127.0.0.1:{port}"
        finally:
            head.terminate()
            head.wait(30)


@pytest.fixture(scope="module")
def scenes(chile: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two short scenes, and one, b, that takes a moment."""
    return lengthened(three_scenes(chile, tmp_path_factory.mktemp("ray") / "scenes"))


def test_a_worker_killed_in_the_cluster_changes_no_byte(
    cluster: str, scenes: Path, right: dict[str, bytes], small: Path, tmp_path: Path
) -> None:
    out = tmp_path / "maps"
    told = ("-o", str(out), "-m", str(small), "--engine", "ray", "--address", cluster, "--threads", "1", "--json")
    process = spawn(str(scenes), *told, "--strips-from", "1")
    until(lambda: out.exists() and list(out.glob("b_map.tif.raw.part")) and ask(out, "SELECT 1 FROM strips"), 120)
    os.kill(ask(out, "SELECT worker FROM attempts WHERE scene='b'")[0][0], signal.SIGKILL)
    said, err = process.communicate(timeout=120)
    assert process.returncode == 0, err
    results = [json.loads(line) for line in said.splitlines()]  # Ray says nothing on stdout
    assert {r["id"]: r["attempts"] for r in results[:-1]} == {**dict.fromkeys("ac", 1), "b": 2}
    assert outputs(out) == right
    assert ask(out, "SELECT count(DISTINCT worker) FROM attempts WHERE scene='b'") == [(2,)]
    (killed, reason), (again, _) = ask(out, "SELECT resumed_from_row, reason FROM attempts WHERE scene='b'")
    assert "worker process has died" in reason
    assert killed == 0 < again
    assert not list(out.rglob("*.part"))


def test_a_killed_batch_leaves_nobody_who_writes_and_a_later_one_of_processes_goes_on(
    cluster: str, scenes: Path, right: dict[str, bytes], small: Path, tmp_path: Path
) -> None:
    out = tmp_path / "maps"
    told = ("-o", str(out), "-m", str(small), "--strips-from", "1")
    process = spawn(str(scenes), *told, "--engine", "ray", "--address", cluster, "--threads", "1", "--workers", "2")
    until(lambda: out.exists() and list(out.glob("b_map.tif.raw.part")) and ask(out, "SELECT 1 FROM strips"), 120)
    process.kill()
    process.communicate()
    process = spawn(str(scenes), *told, "--workers", "2")
    _, err = process.communicate(timeout=120)
    assert process.returncode == 0, err
    assert outputs(out) == right
    assert ask(out, "SELECT max(resumed_from_row) FROM attempts WHERE scene='b'")[0][0] > 0
    assert not list(out.rglob("*.part"))


def test_a_cluster_that_is_not_there_is_one_error(scenes: Path, small: Path, tmp_path: Path) -> None:
    told = ("-o", str(tmp_path / "maps"), "-m", str(small), "--engine", "ray", "--address", "127.0.0.1:1")
    process = spawn(str(scenes), *told)
    _, err = process.communicate(timeout=120)
    assert process.returncode == 3, err
    assert "no Ray cluster at `127.0.0.1:1`" in err


def test_how_workers_fit_a_cluster() -> None:
    """Machines of 16 and 6 cores, two GPUs in one of them; the head has no cores to give."""
    nodes = [{"CPU": 16.0, "GPU": 2.0}, {"CPU": 6.0}, {"memory": 1e9}]
    assert [_core_group(nodes, workers) for workers in (None, 4, 11, 40)] == [4, 4, 2, 1]
    assert _core_group([{"CPU": 2.0}], None) == 2
    assert [_room(nodes, threads, gpus) for threads, gpus in ((4, 0), (4, 1), (1, 2))] == [5, 2, 1]
