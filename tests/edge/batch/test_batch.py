"""Many scenes: what a batch makes, what it leaves alone, what it survives."""

from __future__ import annotations

import json
import os
import shutil
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
from rasterio.windows import Window

from mmedge.edge.batch.orders import BatchOptions
from mmedge.edge.batch.run import batch
from mmedge.edge.batch.summary import Result, Summary
from mmedge.edge.batch.worklist import Shard
from mmedge.edge.infer import infer
from mmedge.errors import BundleError, OutputError, UsageError
from mmedge.geo_io.gather import SceneOptions

ROOT = Path(__file__).parents[3]


@pytest.fixture
def scenes(chile: Path, tmp_path: Path) -> Path:
    """Three scenes of one file each: a, b, c."""
    return three_scenes(chile, tmp_path / "scenes")


def three_scenes(chile: Path, folder: Path) -> Path:
    folder.mkdir()
    for i, name in enumerate("abc"):
        cut(chile / "scene.tif", folder / f"{name}.tif", Window(16 * i, 24 * i, 96, 80))
    return folder


def cut(source: Path, target: Path, window: Window, times: int = 1) -> None:
    with rasterio.open(source) as src:
        data = src.read(window=window)
        profile = {**src.profile, "transform": src.window_transform(window)}
        profile |= {"height": data.shape[1] * times, "width": data.shape[2] * times}
        with rasterio.open(target, "w", **profile) as out:
            for i in range(times):
                for j in range(times):
                    where = Window(j * data.shape[2], i * data.shape[1], data.shape[2], data.shape[1])
                    out.write(data, window=where)
            out.descriptions, out.scales, out.offsets = src.descriptions, src.scales, src.offsets


def outputs(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir()) if path.is_file()}


def statuses(inputs: Any, out: Path, small: Path, **wishes: Any) -> dict[str, str]:
    """Run a batch; {id: status and, where it was mapped, why}."""
    found: list[Result] = []
    batch(inputs, out, model=small, report=found.append, **wishes)
    return {r.id: f"{r.status}: {r.why}" if r.why else r.status for r in sorted(found, key=lambda r: r.id)}


def test_a_mask_of_each_scene(scenes: Path, small: Path, tmp_path: Path, chile: Path) -> None:
    """`{id}` in the path of a mask is the scene's; another mask makes its map anew, and no other."""
    for name, rows in (("a", 10), ("b", 20)):
        with rasterio.open(scenes / f"{name}.tif") as src:
            profile = {**src.profile, "count": 1, "dtype": "uint8", "nodata": None, "predictor": 1}
        with rasterio.open(tmp_path / f"{name}_clouds.tif", "w", **profile) as out:
            out.write((np.indices((80, 96))[0] < rows).astype(np.uint8), 1)
    options = SceneOptions(masks={"optical": [tmp_path / "{id}_clouds.tif"]})
    found: list[Result] = []
    batch([scenes], tmp_path / "maps", model=small, report=found.append, options=options)
    by_id = {result.id: result for result in found}
    assert by_id["a"].record["lost"]["optical"] == {"mask": 10 / 80}
    assert by_id["b"].record["lost"]["optical"] == {"mask": 20 / 80}
    assert by_id["c"].status == "failed"
    assert "c_clouds.tif" in by_id["c"].reason
    shutil.copy(tmp_path / "b_clouds.tif", tmp_path / "a_clouds.tif")
    again = statuses([scenes], tmp_path / "maps", small, options=options)
    assert (again["a"], again["b"]) == ("done: other inputs", "skipped")


def ask(out: Path, question: str) -> list[Any]:
    database = sqlite3.connect(out / ".mmedge" / "1-of-1.sqlite")
    try:
        return database.execute(question).fetchall()
    finally:
        database.close()


def spawn(*told: str, **more: Any) -> subprocess.Popen[str]:
    """The command line in a process of its own."""
    return subprocess.Popen(
        [sys.executable, "-c", "from mmedge.cli.app import main; main()", "batch", *told],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        **more,
    )


def workers_of(process: subprocess.Popen[str]) -> list[int]:
    listed = Path(f"/proc/{process.pid}/task/{process.pid}/children")
    return [int(pid) for pid in listed.read_text().split()]


def until(condition: Any, seconds: float = 60.0) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.002)


def test_a_batch_makes_the_files_that_infer_makes(scenes: Path, small: Path, tmp_path: Path) -> None:
    (tmp_path / "one").mkdir()
    for name in "abc":
        infer(scenes / f"{name}.tif", tmp_path / "one" / f"{name}_map.tif", model=small)
    summary = batch(scenes, tmp_path / "maps", model=small, how=BatchOptions(workers=2))
    assert (summary.done, summary.skipped, summary.failed) == (3, 0, ())
    assert outputs(tmp_path / "maps") == outputs(tmp_path / "one")
    assert ask(tmp_path / "maps", "SELECT state FROM scenes") == [("done",)] * 3


def test_what_is_up_to_date_is_left_alone_and_what_is_stale_is_redone(
    scenes: Path, small: Path, tmp_path: Path
) -> None:
    out = tmp_path / "maps"
    assert set(statuses(scenes, out, small).values()) == {"done: new"}
    first = {path: path.stat().st_mtime_ns for path in out.iterdir() if path.is_file()}
    assert set(statuses(scenes, out, small).values()) == {"skipped"}
    assert first == {path: path.stat().st_mtime_ns for path in first}
    right = outputs(out)

    os.utime(scenes / "a.tif")  # touched, not changed
    (out / "b_map_sensors.tif").unlink()
    (out / "c_map.tif").write_bytes(right["c_map.tif"][:-1] + b"x")
    found = statuses(scenes, out, small)
    assert found["a"] == "skipped"
    assert "`b_map_sensors.tif` is missing or damaged" in found["b"]
    assert "`c_map.tif` is missing or damaged" in found["c"]
    assert outputs(out) == right

    shutil.copy(scenes / "b.tif", scenes / "a.tif")
    assert statuses(scenes, out, small) == {"a": "done: other inputs", "b": "skipped", "c": "skipped"}
    assert outputs(out)["a_map.tif"] == right["b_map.tif"].replace(b"b.tif", b"a.tif")


def test_other_options_redo_everything_and_leave_no_file_of_the_old_ones(
    scenes: Path, small: Path, tmp_path: Path
) -> None:
    out = tmp_path / "maps"
    statuses(scenes, out, small, probs=True)
    assert (out / "a_map_probs.tif").exists()
    found = statuses(scenes, out, small, available=("optical",))
    assert set(found.values()) == {"done: other options, another model or version"}
    assert not list(out.glob("*_probs.tif"))
    batch(scenes, tmp_path / "fresh", model=small, available=("optical",))
    assert outputs(out) == outputs(tmp_path / "fresh")


def test_a_change_that_keeps_size_and_time_is_seen_with_checksums(scenes: Path, small: Path, tmp_path: Path) -> None:
    path, out = scenes / "a.tif", tmp_path / "maps"
    statuses(scenes, out, small)
    stat, content = path.stat(), bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
    os.utime(path, ns=(stat.st_atime_ns, stat.st_mtime_ns))
    assert statuses(scenes, out, small)["a"] == "skipped"
    found = statuses(scenes, out, small, how=BatchOptions(checksums=True))
    assert found["a"].endswith("other inputs")
    assert found["b"] == "skipped"


def test_overwrite_maps_again(scenes: Path, small: Path, tmp_path: Path) -> None:
    statuses(scenes, tmp_path / "maps", small)
    assert set(statuses(scenes, tmp_path / "maps", small, overwrite=True).values()) == {"done: --overwrite"}


def test_a_file_that_is_no_map_of_the_batch_is_not_replaced(scenes: Path, small: Path, tmp_path: Path) -> None:
    out = tmp_path / "maps"
    out.mkdir()
    (out / "b_map.tif").write_text("mine")
    summary = batch(scenes, out, model=small)
    assert (summary.done, [r.id for r in summary.failed]) == (2, ["b"])
    assert "exists already" in summary.failed[0].reason
    assert (out / "b_map.tif").read_text() == "mine"
    assert [r.id for r in batch(scenes, out, model=small).failed] == ["b"]
    assert batch(scenes, out, model=small, overwrite=True).done == 3


def test_bad_scenes_among_good_ones(scenes: Path, small: Path, tmp_path: Path) -> None:
    content = (scenes / "a.tif").read_bytes()
    (scenes / "cut.tif").write_bytes(content[: len(content) // 2])
    (scenes / "text.tif").write_text("no raster")
    listed = tmp_path / "list.txt"
    listed.write_text("\n".join(["# scenes", *(str(p) for p in sorted(scenes.iterdir())), str(scenes / "gone.tif")]))
    summary = batch(listed, tmp_path / "maps", model=small, how=BatchOptions(workers=2))
    assert summary.done == 3
    reasons = {r.id: r.reason for r in summary.failed}
    assert set(reasons) == {"cut", "text", "gone"}
    assert "cut.tif" in reasons["cut"]
    assert "is not a raster" in reasons["text"]
    assert "no such file" in reasons["gone"]
    assert not list((tmp_path / "maps").rglob("*.part"))
    (scenes / "cut.tif").write_bytes(content)  # copied again
    found = statuses(listed, tmp_path / "maps", small)
    assert found == {
        **dict.fromkeys("abc", "skipped"),
        "cut": "done: other inputs",
        "text": "failed: failed before",
        "gone": "failed: failed before",
    }


def test_fail_fast_stops_at_the_first_failure(scenes: Path, small: Path, tmp_path: Path) -> None:
    (scenes / "a.tif").write_text("no raster")
    summary = batch(scenes, tmp_path / "maps", model=small, how=BatchOptions(fail_fast=True))
    assert [r.id for r in summary.failed] == ["a"]
    assert summary.left == 2
    assert outputs(tmp_path / "maps") == {}


def test_available_is_an_upper_bound_and_require_is_strict(chile: Path, small: Path, tmp_path: Path) -> None:
    for scene, sensors in (("x", ("optical", "sar")), ("y", ("sar", "elevation")), ("z", ("elevation",))):
        for sensor in sensors:
            cut(chile / f"{sensor}.tif", tmp_path / f"{scene}_{sensor}.tif", Window(0, 0, 96, 80))
    found: list[Result] = []
    wishes = {"model": small, "available": ("sar", "optical"), "pattern": "{id}_{sensor}.tif"}
    batch(tmp_path, tmp_path / "maps", report=found.append, **wishes)
    assert {r.id: r.record["sensors"] for r in found if r.status == "done"} == {"x": ["optical", "sar"], "y": ["sar"]}
    assert [(r.id, "none of `--available" in r.reason) for r in found if r.status == "failed"] == [("z", True)]
    summary = batch(tmp_path, tmp_path / "strict", require=("optical",), **wishes)
    assert (summary.done, sorted(r.id for r in summary.failed)) == (1, ["y", "z"])
    with pytest.raises(UsageError, match="knows optical, sar, elevation"):
        batch(tmp_path, tmp_path / "maps", model=small, available=("thermal",), pattern="{id}_{sensor}.tif")


def test_a_required_sensor_that_is_valid_nowhere_fails_the_scene(scenes: Path, small: Path, tmp_path: Path) -> None:
    with rasterio.open(scenes / "b.tif", "r+") as dataset:
        for index, name in enumerate(dataset.descriptions, 1):
            if name.startswith("sar:"):
                dataset.write(dataset.read(index) * float("nan"), index)
    summary = batch(scenes, tmp_path / "maps", model=small, require=("radar",))
    assert [(r.id, r.reason) for r in summary.failed] == [("b", "`--require sar`: it is valid nowhere in the scene")]
    assert not list((tmp_path / "maps").glob("b_*"))


def test_shards_share_the_work_and_a_later_batch_of_all_knows_it(scenes: Path, small: Path, tmp_path: Path) -> None:
    for i in range(4):
        shutil.copy(scenes / "a.tif", scenes / f"more{i}.tif")
    out, parts = tmp_path / "maps", [BatchOptions(shard=Shard(i, 2)) for i in (1, 2)]
    done = [batch(scenes, out, model=small, how=how).done for how in parts]
    assert sum(done) == 7
    assert min(done) > 0
    assert set(statuses(scenes, out, small).values()) == {"skipped"}


def test_a_damaged_bundle_is_one_error_not_one_a_scene(scenes: Path, small: Path, tmp_path: Path) -> None:
    shutil.copytree(small, tmp_path / "bundle")
    graph = next((tmp_path / "bundle" / "graphs").iterdir())
    graph.write_bytes(graph.read_bytes() + b"x")
    with pytest.raises(BundleError, match="differs from its checksum"):
        batch(scenes, tmp_path / "maps", model=tmp_path / "bundle")


def test_two_batches_on_one_folder_do_not_collide(scenes: Path, small: Path, tmp_path: Path) -> None:
    out = tmp_path / "maps"
    cut(scenes / "a.tif", scenes / "long.tif", Window(0, 0, 96, 80), times=16)
    told = (str(scenes / "long.tif"), "-o", str(out), "-m", str(small), "--threads", "1", "--strips-from", "1000")
    process = spawn(*told)
    until(lambda: list(out.glob("*.part")))
    for shard in (Shard(1, 1), Shard(1, 2)):
        with pytest.raises(OutputError, match=rf"in use by process {process.pid} on .*last sign of life") as caught:
            batch(scenes, out, model=small, how=BatchOptions(shard=shard))
        assert "--shard" in caught.value.hint
    _, err = process.communicate(timeout=60)
    assert process.returncode == 0, err
    assert batch(scenes, out, model=small).skipped == 1


@pytest.fixture
def long(scenes: Path) -> Path:
    """A scene whose mapping takes a moment, b, beside the short ones."""
    return lengthened(scenes)


def lengthened(scenes: Path) -> Path:
    cut(scenes / "a.tif", scenes / "b.tif", Window(0, 0, 96, 80), times=16)
    return scenes


@pytest.fixture(scope="module")
def right(chile: Path, small: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    """What an undisturbed batch makes of `long`."""
    folder = tmp_path_factory.mktemp("right")
    batch(lengthened(three_scenes(chile, folder / "scenes")), folder / "maps", model=small)
    return outputs(folder / "maps")


@pytest.mark.parametrize(("sent", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_stopped_batch_leaves_no_part_and_goes_on_in_the_middle_of_a_scene(
    sent: signal.Signals, code: int, long: Path, right: dict[str, bytes], small: Path, tmp_path: Path
) -> None:
    out = tmp_path / "maps"
    process = spawn(str(long), "-o", str(out), "-m", str(small), "--threads", "1", "--strips-from", "1")
    until(lambda: out.exists() and (out / "a_map.tif").exists() and ask(out, "SELECT 1 FROM strips"))
    process.send_signal(sent)
    _, err = process.communicate(timeout=60)
    assert process.returncode == code, err
    assert "stopped by" in err
    assert not [path for path in out.glob("*") if path.name.endswith(".part")]
    assert "b_map.tif" not in outputs(out)
    found = statuses(long, out, small, how=BatchOptions(strips_from_px=1_000_000))
    assert found == {"a": "skipped", "b": "done: was interrupted", "c": "done: new"}
    assert ask(out, "SELECT max(resumed_from_row) FROM attempts WHERE scene='b'")[0][0] > 0
    assert not list(out.rglob("*.part"))
    assert outputs(out) == right


def test_a_damaged_strip_is_made_again(scenes: Path, small: Path, tmp_path: Path) -> None:
    """A tall scene: the first two of its strips are done long before the last one."""
    cut(scenes / "a.tif", scenes / "b.tif", Window(0, 0, 24, 80), times=32)
    out = tmp_path / "maps"
    process = spawn(str(scenes), "-o", str(out), "-m", str(small), "--threads", "1", "--strips-from", "1")
    until(lambda: out.exists() and (out / "a_map.tif").exists() and len(ask(out, "SELECT 1 FROM strips")) > 1)
    process.kill()
    process.communicate(timeout=60)
    strips = out / ".mmedge" / "strips-1-of-1" / "b.part"
    content = bytearray(strips.read_bytes())
    content[ask(out, "SELECT min(end) FROM strips")[0][0] + 1000] ^= 1  # in the second strip
    strips.write_bytes(content)
    assert statuses(scenes, out, small)["b"] == "done: was interrupted"
    batch(scenes, tmp_path / "right", model=small)
    assert outputs(out) == outputs(tmp_path / "right")


def test_a_scene_that_hangs_costs_its_worker_not_the_batch(long: Path, small: Path, tmp_path: Path) -> None:
    out = tmp_path / "maps"
    process = spawn(str(long), "-o", str(out), "-m", str(small), "--timeout", "12", "--retries", "1")
    until(lambda: out.exists() and list(out.glob("b_map.tif.raw.part")))
    os.kill(workers_of(process)[0], signal.SIGSTOP)
    _, err = process.communicate(timeout=120)
    assert process.returncode == 0, err
    attempts = ask(out, "SELECT scene, outcome, reason FROM attempts ORDER BY scene, attempt")
    hung = ("b", "failed", "it took longer than 12 s")
    assert attempts == [("a", "done", ""), hung, ("b", "done", ""), ("c", "done", "")]
    assert ask(out, "SELECT count(DISTINCT worker) FROM attempts") == [(2,)]
    assert not list(out.rglob("*.part"))


def test_a_worker_killed_by_memory_costs_one_scene_and_a_retry_saves_it(
    long: Path, small: Path, tmp_path: Path
) -> None:
    out = tmp_path / "maps"
    told = (str(long), "-o", str(out), "-m", str(small), "--threads", "1", "--strips-from", "1", "--json")
    for retries, code in (("0", 1), ("1", 0)):
        process = spawn(*told, "--overwrite", "--retries", retries)
        until(lambda: out.exists() and list(out.glob("b_map.tif.raw.part")))
        os.kill(workers_of(process)[0], signal.SIGKILL)
        said, err = process.communicate(timeout=60)
        assert process.returncode == code, err
        scene = next(line for line in map(json.loads, said.splitlines()) if line.get("id") == "b")
        if code:
            assert "SIGKILL" in scene["reason"]
            assert "memory" in scene["reason"]
        else:
            assert (scene["status"], scene["attempts"]) == ("done", 2)
        assert not list(out.glob("*.part"))


def test_running_out_of_memory_is_a_reason_and_the_next_scene_is_mapped(
    long: Path, small: Path, tmp_path: Path
) -> None:
    """The limit is set on the worker alone, while it maps the large scene; its successor has none. It is half of what
    the worker has: nothing that it gives back can be had again.

    Memory may run out anywhere: a Python thread that finds none when it starts can hang its parent for ever, which is
    what the timeout is for, and native code that does not look can end the worker.
    """
    import resource

    out = tmp_path / "maps"
    told = (str(long), "-o", str(out), "-m", str(small), "--threads", "1", "--strips-from", "1000", "--json")
    process = spawn(*told, "--timeout", "15")
    until(lambda: out.exists() and list(out.glob("b_map.tif.raw.part")))
    worker = workers_of(process)[0]
    used = int(Path(f"/proc/{worker}/statm").read_text().split()[0]) * resource.getpagesize()
    resource.prlimit(worker, resource.RLIMIT_AS, (used // 2, used // 2))
    said, err = process.communicate(timeout=60)
    found = {line["id"]: line for line in map(json.loads, said.splitlines()) if "id" in line}
    assert process.returncode == 1, err
    assert found["b"]["status"] == "failed", found["b"]
    ended = (f"the worker was ended by {name}" for name in ("SIGSEGV", "SIGABRT"))
    assert found["b"]["reason"] in ("the memory ran out", "it took longer than 15 s", *ended), found["b"]
    assert (found["a"]["status"], found["c"]["status"]) == ("done", "done"), found["c"]
    assert ask(out, "SELECT count(DISTINCT worker) FROM attempts") == [(2,)]


def test_an_input_that_vanishes_is_a_reason(long: Path, small: Path, tmp_path: Path) -> None:
    out = tmp_path / "maps"
    process = spawn(str(long), "-o", str(out), "-m", str(small), "--threads", "1", "--strips-from", "1000", "--json")
    until(lambda: out.exists() and list(out.glob("b_map.tif.raw.part")))
    (long / "b.tif").unlink()
    (long / "c.tif").unlink()
    said, err = process.communicate(timeout=60)
    found = {line["id"]: line for line in map(json.loads, said.splitlines()) if "id" in line}
    assert process.returncode == 1, err
    assert found["a"]["status"] == "done"
    assert "b.tif" in found["b"]["reason"]
    assert "no such file" in found["c"]["reason"]
    assert [name for name in outputs(out) if not name.startswith("a_")] == []


def test_an_input_that_changes_while_it_is_read_is_a_reason(long: Path, small: Path, tmp_path: Path) -> None:
    """Half of the map is of the old file: it is not published. The next batch maps the new one."""
    out = tmp_path / "maps"
    process = spawn(str(long), "-o", str(out), "-m", str(small), "--threads", "1", "--strips-from", "1000", "--json")
    until(lambda: out.exists() and list(out.glob("b_map.tif.raw.part")))
    cut(long / "a.tif", long / "new.tif", Window(0, 0, 80, 96), times=8)
    (long / "new.tif").replace(long / "b.tif")  # the worker's open file is still the old one
    said, err = process.communicate(timeout=60)
    found = {line["id"]: line for line in map(json.loads, said.splitlines()) if "id" in line}
    assert process.returncode == 1, err
    assert "changed while it was read" in found["b"]["reason"]
    assert not [name for name in outputs(out) if name.startswith("b_")]
    assert statuses(long, out, small) == {"a": "skipped", "b": "done: other inputs", "c": "skipped"}


def mounted(folder: Path, options: str) -> bool:
    folder.mkdir(exist_ok=True)
    done = subprocess.run(["mount", "-t", "tmpfs", "-o", options, "tmpfs", folder], capture_output=True, check=False)
    return done.returncode == 0


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 1 MiB."""
    folder = tmp_path / "disk"
    if not mounted(folder, "size=1m"):
        pytest.skip("needs the right to mount a small file system")
    yield folder
    subprocess.run(["umount", "-l", folder], check=True)


def test_a_full_disk_loses_nothing_that_is_done(long: Path, right: dict[str, bytes], small: Path, disk: Path) -> None:
    out = disk / "maps"
    summary = batch(long, out, model=small)
    assert summary.done == 2
    assert [r.id for r in summary.failed] == ["b"]
    assert "disk" in summary.failed[0].reason or "space" in summary.failed[0].reason
    assert not list(out.rglob("*.part"))
    subprocess.run(["mount", "-o", "remount,size=64m", disk], check=True)
    assert statuses(long, out, small) == {"a": "skipped", "b": "done: failed before", "c": "skipped"}
    assert outputs(out) == right


def test_a_disk_that_is_full_from_the_start_is_one_error(scenes: Path, small: Path, disk: Path) -> None:
    (disk / "maps" / ".mmedge").mkdir(parents=True)
    with (disk / "filler").open("wb", buffering=0) as file:
        while shutil.disk_usage(disk).free:
            file.write(bytes(1 << 12))
    with pytest.raises(OutputError, match=r"journal|cannot write in"):
        batch(scenes, disk / "maps", model=small)


def test_an_output_folder_that_cannot_be_written_is_one_error(scenes: Path, small: Path, disk: Path) -> None:
    (disk / "maps").mkdir()
    subprocess.run(["mount", "-o", "remount,ro", disk], check=True)
    with pytest.raises(OutputError, match="Read-only file system"):
        batch(scenes, disk / "maps", model=small)
    with pytest.raises(OutputError, match="cannot write in"):
        batch(scenes, scenes / "a.tif", model=small)


def test_random_kills_change_no_byte(small: Path) -> None:
    script = ROOT / "scripts" / "kill_test.py"
    told = [sys.executable, script, "--kills", "4", "--each", "4", "--seed", "5", "--large", "4", "--model", small]
    done = subprocess.run(
        told, capture_output=True, text=True, env={**os.environ, "PYTHONPATH": str(ROOT)}, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    report = json.loads(done.stdout)
    assert report["kills"] == 4
    assert report["complaints"] == []


def test_the_summary_names_what_failed(tmp_path: Path) -> None:
    failed = Result(id="b", status="failed", map=tmp_path / "b_map.tif", reason="it is damaged", hint="copy it again")
    summary = Summary(out=tmp_path, done=2, skipped=1, failed=(failed,), left=3, warnings=0, seconds=1.0)
    first, second = summary.text().split("\n")
    assert first == "2 mapped, 1 up to date, 1 failed, 3 not finished in 1.0 s"
    assert second == "  b: it is damaged (hint: copy it again)"
