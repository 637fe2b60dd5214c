"""Many small real scenes: scenes per second with one worker and with two, and what a worker's memory and handles do.

    python -m benchmarks.batch --scenes 200 --report docs/results/batch.json

Scenes are crops of the example; every worker has one thread. A batch is timed from its first result to its last, so
that opening the model (paid once a worker) does not count; the whole is given, too. The orchestration is what is left
of the workers' time when the seconds that scenes took by themselves are taken away; where other work keeps the cores
busy that is mostly waiting for them, and the processor seconds of the batch's own process say more.
"""

from __future__ import annotations

import argparse
import json
import os
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

import rasterio
from rasterio.windows import Window

from benchmarks.machine import machine
from mmedge import __version__
from mmedge.edge.batch import run_batch
from mmedge.edge.orders import BatchOptions
from mmedge.edge.request import Request
from mmedge.edge.summary import Result
from mmedge.edge.worklist import find_work

ROOT = Path(__file__).parents[1]


def make_scenes(folder: Path, count: int, side: int) -> None:
    """Crops of the example, each at another place."""
    folder.mkdir()
    with rasterio.open(ROOT / "examples/chile/scene.tif") as src:
        room = src.height - side
        for i in range(count):
            window = Window((7 * i) % (room + 1), (11 * i) % (room + 1), side, side)
            profile = {**src.profile, "height": side, "width": side, "transform": src.window_transform(window)}
            with rasterio.open(folder / f"crop_{i:04}.tif", "w", **profile) as out:
                out.write(src.read(window=window))
                out.descriptions, out.scales, out.offsets = src.descriptions, src.scales, src.offsets


class Watch:
    """Resident memory [MiB] and open files of this process's children, sampled while a batch runs."""

    def __init__(self) -> None:
        self.samples: dict[int, list[tuple[float, float, int]]] = {}
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
            for task in Path("/proc/self/task").iterdir():
                for pid in map(int, (task / "children").read_text().split()):
                    self._sample(pid)

    def _sample(self, pid: int) -> None:
        try:
            pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
            files = len(list(Path(f"/proc/{pid}/fd").iterdir()))
        except (FileNotFoundError, ProcessLookupError):
            return  # it has just ended
        memory = pages * os.sysconf("SC_PAGE_SIZE") / 2**20
        self.samples.setdefault(pid, []).append((time.monotonic(), memory, files))

    def growth(self) -> list[dict[str, float]]:
        """For each worker: median of the second quarter of its life and of its last one."""
        found = []
        for samples in self.samples.values():
            quarter = max(1, len(samples) // 4)
            early, late = samples[quarter : 2 * quarter] or samples, samples[-quarter - 1 : -1] or samples
            row = {}
            for name, column in (("memory_mib", 1), ("files", 2)):
                row[f"{name}_early"], row[f"{name}_late"] = (
                    round(sorted(s[column] for s in part)[len(part) // 2], 1) for part in (early, late)
                )
            found.append(row)
        return found


def measure(scenes: Path, out: Path, model: str, workers: int) -> dict[str, Any]:
    ends: list[float] = []
    busy: list[float] = []

    def report(result: Result) -> None:
        if result.status != "done":
            raise SystemExit(f"{result.id}: {result.reason}")
        ends.append(time.monotonic())
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
        "orchestration_s_per_scene": round((steady * workers - sum(busy[1:])) / (summary.done - 1), 4),
        "batch_cpu_s_per_scene": round((time.process_time() - own) / summary.done, 4),
        "growth": watch.growth(),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--scenes", type=int, default=200)
    parser.add_argument("--side", type=int, default=128, help="pixels")
    parser.add_argument("--model", default="mamol-terra")
    parser.add_argument("--repeat", type=int, default=1)
    parser.add_argument("--report", type=Path)
    args = parser.parse_args()
    runs = []
    with tempfile.TemporaryDirectory(prefix="bench_batch_") as folder:
        make_scenes(Path(folder) / "scenes", args.scenes, args.side)
        for i in range(args.repeat):
            for workers in (1, 2):
                load = os.getloadavg()[0]
                run = measure(Path(folder) / "scenes", Path(folder) / f"maps_{i}_{workers}", args.model, workers)
                runs.append({**run, "load_before": round(load, 2)})
    one, two = (max(r["scenes_per_s"] for r in runs if r["workers"] == n) for n in (1, 2))
    document = {
        "schema": "mmedge.bench.batch/1",
        "mmedge": __version__,
        "model": Path(args.model).name,
        "machine": machine(),
        "side_px": args.side,
        "speed_up": round(two / one, 3),
        "runs": runs,
    }
    text = json.dumps(document, indent=1)
    print(text)
    if args.report:
        args.report.parent.mkdir(parents=True, exist_ok=True)
        args.report.write_text(text + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
