"""What a large area costs: measure maps of real scenes here, then play a fleet that works through a continent.

    python scripts/capacity.py measure --report docs/results/cost.json
    python scripts/capacity.py plan --cost docs/results/cost.json --report docs/results/capacity.json

`measure` maps mirrored crops of the example with several sets of sensors. It stores the processor seconds (not the
clock's: they depend little on what else the machine does), the bytes written, and those of the sensors' files, for each
pixel. `plan` draws scenes from these, and lets the workers of a fleet take them one by one from a queue. A scene takes
as long as the slowest of computing, reading and writing, which overlap; machines are taken away at random, and the
scenes on them go on from their last strip.
"""

from __future__ import annotations

import argparse
import heapq
import json
import random
import sys
import tempfile
import time
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from statistics import median
from typing import Any

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))

EXAMPLE, EXAMPLE_PX = ROOT / "examples/chile", 224**2
SETS = (("optical", "sar", "elevation"), ("optical", "sar"), ("sar",))
CONTINENTS_KM2 = {"Europe": 10.2e6, "Africa": 30.4e6}
SCENE_KM = 100.0  # a side
PX_PER_KM2 = 1e4  # 10 m
SCENE_PX = SCENE_KM**2 * PX_PER_KM2


@dataclass(frozen=True, slots=True, kw_only=True)
class Fleet:
    """Machines of `cores`, each core `speed` times the one that was measured, with `net_gbps` to the object store each.

    The store gives all of them together `store_gbps`. A machine is taken away after `life_h` on average (spot prices),
    another comes `restart_s` later; the scenes on it lose what was computed since their last strip.
    """

    machines: int = 10
    cores: int = 16
    speed: float = 1.0
    net_gbps: float = 10.0
    store_gbps: float = 200.0
    life_h: float = 24.0
    restart_s: float = 120.0


@dataclass(frozen=True, slots=True)
class Sample:
    """One measured map: its sensors, processor seconds a million pixels, bytes read and written a pixel."""

    sensors: str
    cpu_s_per_mpx: float
    read_bytes_per_px: float
    write_bytes_per_px: float


def measure(side: int, places: int, model: str) -> list[Sample]:
    """Maps of `side` x `side` pixels, mirrored from the example, of every set of sensors."""
    from benchmarks.infer import mirrored
    from mmedge.bundle import open_bundle
    from mmedge.edge.infer import open_engines, run
    from mmedge.edge.request import Request

    found = []
    with tempfile.TemporaryDirectory(prefix="capacity_") as name:
        folder = Path(name)
        scene = mirrored(folder / "scene.tif", side)
        template = Request(scene=scene, model=model, threads=1)
        engines = open_engines(template, open_bundle(model))
        for sensors in SETS:
            for place in range(places):
                step = 10 * (side // 2) / max(1, places - 1) * place
                box = _box(scene, step, 10 * (side // 2))
                wish = replace(template, available=sensors, bbox=box, output=folder / "map.tif", overwrite=True)
                if place == 0:
                    run(wish, engines=engines)  # graphs are compiled once a worker
                before = time.process_time()
                record = run(wish, engines=engines)
                seconds = time.process_time() - before
                written = sum(path.stat().st_size for path in record.outputs.paths)
                px = record.counts.pixels
                read = sum((EXAMPLE / f"{sensor}.tif").stat().st_size for sensor in sensors) / EXAMPLE_PX
                found.append(Sample("+".join(sensors), seconds / px * 1e6, read, written / px))
                print(found[-1], file=sys.stderr, flush=True)
    return found


def _box(scene: Path, step: float, length: float) -> tuple[float, float, float, float]:
    import rasterio

    with rasterio.open(scene) as dataset:
        left, top = dataset.bounds.left + step, dataset.bounds.top - step
    return left, top - length, left + length, top


def play(samples: list[Sample], scenes: int, fleet: Fleet, rng: random.Random) -> dict[str, Any]:
    """Seconds until the last scene is done, and how busy each resource was meanwhile."""
    workers = fleet.machines * fleet.cores
    rate = min(fleet.net_gbps / fleet.cores, fleet.store_gbps / workers) * 1e9 / 8  # bytes a second and worker
    free = [0.0] * workers
    busy = dict.fromkeys(("compute", "read", "write"), 0.0)
    lost = 0
    for _ in range(scenes):
        sample = rng.choice(samples)
        parts = {
            "compute": SCENE_PX / 1e6 * sample.cpu_s_per_mpx / fleet.speed,
            "read": SCENE_PX * sample.read_bytes_per_px / rate,
            "write": SCENE_PX * sample.write_bytes_per_px / rate,
        }
        for name, seconds in parts.items():
            busy[name] += seconds
        need = max(parts.values())
        strip = need * 512 / (SCENE_KM * 100)
        start, done = heapq.heappop(free), 0.0
        while (left := rng.expovariate(1 / (fleet.life_h * 3600))) < need - done:
            start += left + fleet.restart_s
            done += max(0.0, left - rng.uniform(0, strip))
            lost += 1
        heapq.heappush(free, start + need - done)
    end, total = max(free), workers * max(free)
    shares = {name: seconds / total for name, seconds in busy.items()}
    return {"hours": end / 3600, "busy": shares, "lost": lost, "idle": 1 - sum(free) / total}


def plan(samples: list[Sample], runs: int, seed: int) -> list[dict[str, Any]]:
    """Continents by fleets: the median and the worst of `runs` plays."""
    rows = []
    fleets = [Fleet(machines=machines) for machines in (1, 4, 16)]
    fleets += [Fleet(machines=4, speed=speed) for speed in (10.0, 50.0, 200.0)]
    for name, km2 in CONTINENTS_KM2.items():
        for fleet in fleets:
            rng = random.Random(seed)
            played = [play(samples, round(km2 / SCENE_KM**2), fleet, rng) for _ in range(runs)]
            busy = {k: median(p["busy"][k] for p in played) for k in played[0]["busy"]}
            hours = [p["hours"] for p in played]
            rows.append(
                {
                    "continent": name,
                    **asdict(fleet),
                    "hours": round(median(hours), 3),
                    "hours_worst": round(max(hours), 3),
                    "machine_days": round(median(hours) * fleet.machines / 24, 3),
                    "busy": {k: round(v, 3) for k, v in busy.items()},
                    "bottleneck": max(busy, key=lambda k: busy[k]),
                    "idle": round(median(p["idle"] for p in played), 3),
                    "machines_lost": round(median(p["lost"] for p in played)),
                }
            )
    return rows


def table(rows: list[dict[str, Any]]) -> str:
    """The plan for people."""
    lines = ["| area | machines | core | hours (worst) | machine-days | computing, reading, writing | idle |"]
    lines.append("|---" * 7 + "|")
    for row in rows:
        busy = ", ".join(f"{share:.0%}" for share in row["busy"].values())
        hours = f"{row['hours']:.2f} ({row['hours_worst']:.2f})"
        cells = [row["continent"], row["machines"], f"x {row['speed']:g}", hours, row["machine_days"], busy]
        lines.append(f"| {' | '.join(map(str, cells))} | {row['idle']:.0%} |")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    verbs = parser.add_subparsers(dest="verb", required=True)
    one = verbs.add_parser("measure")
    one.add_argument("--side", type=int, default=1344, help="pixels of the scene; its maps have half as many")
    one.add_argument("--places", type=int, default=4)
    one.add_argument("--model", default="mamol-terra")
    two = verbs.add_parser("plan")
    two.add_argument("--cost", type=Path, required=True)
    two.add_argument("--runs", type=int, default=20)
    two.add_argument("--seed", type=int, default=1)
    for verb in (one, two):
        verb.add_argument("--report", type=Path, required=True)
    args = parser.parse_args()
    if args.verb == "measure":
        from benchmarks.machine import machine

        samples = [asdict(sample) for sample in measure(args.side, args.places, args.model)]
        report = {"schema": "mmedge.cost/1", "model": args.model, "machine": machine(), "samples": samples}
    else:
        cost = json.loads(args.cost.read_text())
        samples_read = [Sample(**sample) for sample in cost["samples"]]
        rows = plan(samples_read, args.runs, args.seed)
        how = {"seed": args.seed, "runs": args.runs, "measured_on": cost["machine"]}
        report = {"schema": "mmedge.capacity/1", **how, "rows": rows}
        print(table(rows))
    args.report.parent.mkdir(parents=True, exist_ok=True)
    args.report.write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
