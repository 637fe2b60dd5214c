"""Many small real scenes with one worker and with two; a worker's memory and handles; what a batch costs a long scene.

    python -m benchmarks.batch --report docs/results/batch.json --page docs/results/batch.md

Small scenes are crops of the example, each at another place; every worker has one thread. A batch is timed from its
first result to its last, so that opening the model (paid once a worker) does not count; the whole is given, too. Runs
with one and with two workers alternate. Long scenes are the example, mirrored: `infer` in a loop against a batch of one
worker with the same threads, all cores, so that no idle core hides what the batch does beside. Both begin with a
warm-up and are timed from its end to the last result.

A part that is done is in the report, and is not done again: a run that was stopped goes on with the same command. The
machine should be quiet; load before each part and processor seconds of the batch's own process are in the report.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import tempfile
import threading
import time
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

import rasterio
from rasterio.windows import Window

from benchmarks.infer import mirrored
from benchmarks.machine import machine
from mmedge import __version__
from mmedge.bundle import open_bundle
from mmedge.edge.batch.orders import BatchOptions
from mmedge.edge.batch.run import run_batch
from mmedge.edge.batch.summary import Result
from mmedge.edge.batch.worklist import find_work
from mmedge.edge.infer import open_engines, run
from mmedge.edge.request import Request

ROOT = Path(__file__).parents[1]
WANTED_SPEED_UP, WANTED_OVERHEAD = 1.8, 0.03

Part = Callable[[], dict[str, Any]]


def make_scenes(folder: Path, count: int, side: int) -> Path:
    """Crops of the example, each at another place."""
    folder.mkdir(parents=True)
    with rasterio.open(ROOT / "examples/chile/scene.tif") as src:
        room = src.height - side
        for i in range(count):
            window = Window((7 * i) % (room + 1), (11 * i) % (room + 1), side, side)
            profile = {**src.profile, "height": side, "width": side, "transform": src.window_transform(window)}
            with rasterio.open(folder / f"crop_{i:04}.tif", "w", **profile) as out:
                out.write(src.read(window=window))
                out.descriptions, out.scales, out.offsets = src.descriptions, src.scales, src.offsets
    return folder


def make_long_scenes(folder: Path, count: int, side: int) -> Path:
    """A small scene to warm up with, and one of side x side pixels under `count` names."""
    make_scenes(folder, 1, 128)
    (folder / "crop_0000.tif").rename(folder / "a_warm_up.tif")
    first = mirrored(folder / "long_0.tif", side)
    for i in range(1, count):
        os.link(first, folder / f"long_{i}.tif")
    return folder


class Watch:
    """Resident memory [MiB] and open files of this process and its children, sampled while a batch runs."""

    def __init__(self) -> None:
        self.samples: dict[int, list[tuple[float, int]]] = {}
        self._end = threading.Event()
        self._thread = threading.Thread(target=self._run)

    def __enter__(self) -> Watch:
        self._thread.start()
        return self

    def __exit__(self, *exc: object) -> None:
        self._end.set()
        self._thread.join()

    def _run(self) -> None:
        while not self._end.wait(0.5):
            self._sample(os.getpid())
            for task in Path("/proc/self/task").iterdir():
                for pid in map(int, (task / "children").read_text().split()):
                    self._sample(pid)

    def _sample(self, pid: int) -> None:
        try:
            pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
            files = len(list(Path(f"/proc/{pid}/fd").iterdir()))
        except (FileNotFoundError, ProcessLookupError):
            return  # it has just ended
        self.samples.setdefault(pid, []).append((pages * os.sysconf("SC_PAGE_SIZE") / 2**20, files))

    def growth(self) -> list[dict[str, Any]]:
        """For the batch and each worker: medians of the quarters of its life."""
        found = []
        for pid, samples in self.samples.items():
            edges = [len(samples) * i // 4 for i in range(5)]
            quarters = [samples[a:b] or samples for a, b in pairwise(edges)]
            found.append(
                {
                    "process": "batch" if pid == os.getpid() else "worker",
                    "memory_mib": [round(statistics.median(s[0] for s in q), 1) for q in quarters],
                    "files": [round(statistics.median(s[1] for s in q)) for q in quarters],
                }
            )
        return found


def small_scenes(scenes: Path, out: Path, model: str, workers: int) -> dict[str, Any]:
    """A batch of all of them."""
    ends: list[float] = []
    busy: list[float] = []

    def report(result: Result) -> None:
        ends.append(_end(result))
        busy.append(result.record["seconds"]["total"])

    options, template = BatchOptions(workers=workers), Request(scene=None, model=model, threads=1, require=())
    begin, own = time.monotonic(), time.process_time()
    with Watch() as watch:
        summary = run_batch(find_work([str(scenes)]).works, out, template, options, report=report)
    steady = ends[-1] - ends[0]
    return {
        "workers": workers,
        "scenes": summary.done,
        "whole_s": round(time.monotonic() - begin, 2),
        "scenes_per_s": round((summary.done - 1) / steady, 3),
        "median_scene_s": round(sorted(busy)[len(busy) // 2], 4),
        "beside_scenes_s": round((steady * workers - sum(busy[1:])) / (summary.done - 1), 4),
        "batch_cpu_s_per_scene": round((time.process_time() - own) / summary.done, 4),
        "growth": watch.growth(),
    }


def _end(result: Result) -> float:
    if result.status != "done":
        raise SystemExit(f"{result.id}: {result.reason}")
    return time.monotonic()


def long_infer(scenes: Path, out: Path, model: str) -> dict[str, Any]:
    """`infer` in a loop: the model is opened once, nothing else is shared."""
    out.mkdir()
    template = Request(scene=None, model=model)
    engines = open_engines(template, open_bundle(model))
    ends = []
    for path in sorted(scenes.glob("*.tif")):
        run(Request(scene=path, model=model, output=out / f"{path.stem}_map.tif"), engines=engines)
        ends.append(time.monotonic())
    return _each(ends)


def long_batch(scenes: Path, out: Path, model: str) -> dict[str, Any]:
    """A batch of one worker."""
    ends: list[float] = []
    template, own = Request(scene=None, model=model, require=()), time.process_time()
    run_batch(
        find_work([str(scenes)]).works,
        out,
        template,
        BatchOptions(),
        report=lambda result: ends.append(_end(result)),
    )
    return {**_each(ends), "batch_cpu_s_per_scene": round((time.process_time() - own) / len(ends), 4)}


def _each(ends: list[float]) -> dict[str, Any]:
    seconds = [b - a for a, b in pairwise(ends)]
    return {"scene_s": [round(s, 3) for s in seconds], "mean_s": round(statistics.mean(seconds), 3)}


def do(parts: dict[str, Part], report: Path, asked: dict[str, Any]) -> dict[str, Any]:
    """The parts that the report does not hold yet; it is written after each."""
    document: dict[str, Any] = {"schema": "mmedge.bench.batch/2", "asked": asked, "parts": {}}
    if report.exists():
        document = json.loads(report.read_text())
        if document.get("asked") != asked:
            raise SystemExit(f"`{report}` is of another run: remove it, or give another --report")
    for name, part in parts.items():
        if name in document["parts"]:
            print(f"{name}: done before")
            continue
        load, start = os.getloadavg()[0], time.monotonic()
        found = part()
        about = {"load_before": round(load, 2), "mmedge": __version__, "machine": machine()}
        document["parts"][name] = {**found, **about}
        report.parent.mkdir(parents=True, exist_ok=True)
        report.write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8")
        print(f"{name}: {time.monotonic() - start:.0f} s", flush=True)
    return document


def verdict(parts: dict[str, Any]) -> dict[str, float]:
    """Best of the repetitions for throughput; means for the cost of a long scene."""
    best = {n: max(p["scenes_per_s"] for p in parts.values() if p.get("workers") == n) for n in (1, 2)}
    loop, batch = (
        statistics.mean(s for name, p in parts.items() if name.startswith(kind) for s in p["scene_s"])
        for kind in ("long infer", "long batch")
    )
    return {
        "speed_up": round(best[2] / best[1], 3),
        "long_scene_s": round(loop, 1),
        "overhead": round(batch / loop - 1, 4),
    }


def _list(values: list[float]) -> str:
    return ", ".join(map(str, values))


def page(document: dict[str, Any]) -> str:
    asked, parts, found = document["asked"], document["parts"], document["found"]
    small = [p for name, p in parts.items() if name.startswith("small")]
    about = small[0]["machine"]
    rows = "\n".join(
        f"| {p['workers']} | {p['scenes_per_s']} | {p['whole_s']} | {p['median_scene_s']} | "
        f"{p['batch_cpu_s_per_scene']} | {p['load_before']} | {p['machine']['commit']} |"
        for p in small
    )
    growth = "\n".join(
        f"| {p['workers']} | {g['process']} | {_list(g['memory_mib'])} | {_list(g['files'])} |"
        for p in small
        for g in p["growth"]
    )
    longs = "\n".join(
        f"| {name.split()[1]} | {_list(p['scene_s'])} | {p['mean_s']} | {p['load_before']} | {p['machine']['commit']} |"
        for name, p in parts.items()
        if name.startswith("long")
    )
    return f"""# Batches, measured

    python -m benchmarks.batch --report docs/results/batch.json --page docs/results/batch.md

{about["cpu"]}, {about["threads"]} cores, OpenVINO {about["openvino"]}, rasterio {about["rasterio"]},
model `{asked["model"]}`. Raw: [batch.json](batch.json).

## {asked["scenes"]} scenes of {asked["side_px"]} x {asked["side_px"]} pixels

Two workers of one thread each do **{found["speed_up"]}** times the scenes of one (wanted: {WANTED_SPEED_UP}).

| workers | scenes a second | whole, s | median scene, s | its own CPU s a scene | load before | commit |
|---|---|---|---|---|---|---|
{rows}

Memory and handles in the four quarters of each process's life, medians:

| workers | process | resident MiB | open files |
|---|---|---|---|
{growth}

## Long scenes

{asked["long_scenes"]} scenes, {asked["long_side_px"]} pixels a side, all cores, strips kept. A scene takes
{found["long_scene_s"]} s by `infer` in a loop, and **{100 * found["overhead"]:.2f} %** more in a batch of one worker
(wanted: at most {WANTED_OVERHEAD:.0%}).

| | seconds of each scene | mean | load before | commit |
|---|---|---|---|---|
{longs}
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--scenes", type=int, default=1000)
    parser.add_argument("--side", type=int, default=128, help="pixels of a small scene")
    parser.add_argument("--long-scenes", type=int, default=3)
    parser.add_argument("--long-side", type=int, default=3400, help="pixels of a long scene; about 60 s")
    parser.add_argument("--model", default="mamol-terra")
    parser.add_argument("--repeat", type=int, default=1)
    parser.add_argument("--report", type=Path, required=True)
    parser.add_argument("--page", type=Path)
    args = parser.parse_args()
    asked = {
        "scenes": args.scenes,
        "side_px": args.side,
        "long_scenes": args.long_scenes,
        "long_side_px": args.long_side,
        "model": Path(args.model).name,
        "repeat": args.repeat,
    }
    with tempfile.TemporaryDirectory(prefix="bench_batch_") as name:
        folder = Path(name)
        many = make_scenes(folder / "many", args.scenes, args.side)
        few = make_long_scenes(folder / "few", args.long_scenes, args.long_side)
        parts: dict[str, Part] = {}
        for i in range(args.repeat):
            for n in (1, 2):
                parts[f"small {n} {i}"] = lambda i=i, n=n: small_scenes(many, folder / f"maps_{i}_{n}", args.model, n)  # type: ignore[misc]
            parts[f"long infer {i}"] = lambda i=i: long_infer(few, folder / f"infer_{i}", args.model)  # type: ignore[misc]
            parts[f"long batch {i}"] = lambda i=i: long_batch(few, folder / f"batch_{i}", args.model)  # type: ignore[misc]
        document = do(parts, args.report, asked)
    document["found"] = verdict(document["parts"])
    args.report.write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8")
    print(json.dumps(document["found"], indent=1))
    if args.page:
        args.page.write_text(page(document), encoding="utf-8")


if __name__ == "__main__":
    main()
