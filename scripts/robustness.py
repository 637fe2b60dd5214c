"""How maps suffer when a part of one sensor's pixels fails: `python scripts/robustness.py --data ../shared/data`.

The shipped bundles on the test blocks of the three TerraMesh scenes, all sensors there, one of them failing at a
fraction of its pixels (geo_io/failures/simulate.py). Two ways: the failed pixels are marked invalid, as mmedge does,
or they are zeros that pass for data. A row is a bundle, sensor, cause, fraction and seed; rows that are in
docs/results/robustness.json are not run again. Writes the page and the plot beside it; `--check` fails where they are
stale.
"""

from __future__ import annotations

import argparse
import json
import platform
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from robustness_page import BUNDLES, FRACTIONS, PAGE, PLOT, ROWS, page, plot

from mmedge.edge.device import cpu_flags, cpu_name
from mmedge.edge.evaluation.metrics import Confusion
from mmedge.edge.export import load_eager
from mmedge.edge.models.network import Network
from mmedge.edge.training.samples import CLASS_VALUES, LabelledScene, read_scene
from mmedge.edge.training.score import score_scene
from mmedge.edge.training.split import BLOCKS, TEST, part_of_pixels
from mmedge.geo_io.failures.causes import Cause
from mmedge.geo_io.failures.injection import Levels
from mmedge.geo_io.failures.simulate import draw
from mmedge.grid import Window

Row = dict[str, Any]
FOLDER = Path("mmedge/bundles")
CAUSES: dict[str, tuple[Cause, ...]] = {
    "optical": ("cloud", "missing_swath", "dead_line"),
    "sar": ("missing_swath", "dead_line"),
    "elevation": ("lidar_void", "missing_swath"),
}
WAYS = ("masked", "zero")


def wanted(seeds: int) -> Iterator[Row]:
    """What names each row. Without a failure, and where all has failed, cause and seed do not matter."""
    for bundle in BUNDLES:
        yield {"bundle": bundle, "sensor": None, "cause": None, "fraction": 0.0, "seed": 0}
        for sensor in CAUSES:
            yield {"bundle": bundle, "sensor": sensor, "cause": None, "fraction": 1.0, "seed": 0}
    for seed in range(seeds):
        for bundle in BUNDLES:
            for sensor, causes in CAUSES.items():
                for cause in causes:
                    for fraction in FRACTIONS[1:-1]:
                        yield {"bundle": bundle, "sensor": sensor, "cause": cause, "fraction": fraction, "seed": seed}


def failed(scene: LabelledScene, key: Row) -> np.ndarray[tuple[int, int], np.dtype[np.bool_]]:
    """Where the sensor has failed. The same for every bundle."""
    data, valid = scene.data[key["sensor"]], scene.valid[key["sensor"]]
    if key["cause"] is None:
        return np.ones_like(valid)
    rng = np.random.default_rng([key["seed"], *key["cause"].encode(), round(100 * key["fraction"])])
    failure = draw(key["cause"], valid.shape, Levels.of(data, valid, 0.5), rng, fraction=key["fraction"])
    return failure.mask(Window(0, 0, *valid.shape))


def failing(scene: LabelledScene, key: Row, way: str) -> LabelledScene:
    """The scene with its failure: invalid, or zeros in the units of the network's input that pass for data."""
    sensor = key["sensor"]
    if sensor is None:
        return scene
    mask = failed(scene, key)
    if way == "masked":
        return replace(scene, valid={**scene.valid, sensor: scene.valid[sensor] & ~mask})
    zeros = np.where(mask, np.float32(0), scene.data[sensor])
    return replace(scene, data={**scene.data, sensor: zeros}, valid={**scene.valid, sensor: scene.valid[sensor] | mask})


def run(network: Network, scenes: list[LabelledScene], key: Row) -> Row:
    """Scores of both ways, and the share of the scored pixels that had failed."""
    row: Row = {}
    tests = {s.name: part_of_pixels(s.name) == TEST for s in scenes}
    if key["sensor"]:
        shares = [failed(s, key)[tests[s.name]].mean() for s in scenes]
        row["failed"] = round(float(np.mean(shares)), 4)
    for way in WAYS:
        total = Confusion(np.zeros((len(CLASS_VALUES),) * 2, np.int64))
        for scene in scenes:
            holed = failing(scene, key, way)
            total += score_scene(network, holed, network.sensors, tests[scene.name])
        row[way] = {"oa": round(total.overall_accuracy, 4), "miou": round(total.mean_iou, 4)}
    return row


def conditions() -> Row:
    commit, changed = (
        subprocess.run(["git", *command], capture_output=True, text=True, check=True).stdout.strip()
        for command in (("rev-parse", "--short", "HEAD"), ("status", "--porcelain", "--", "mmedge", "scripts"))
    )
    return {
        "cpu": cpu_name(),
        "flags": " ".join(cpu_flags()),
        "threads": 1,
        "python": platform.python_version(),
        "torch": torch.__version__,
        "commit": commit + ("+changes" if changed else ""),
    }


def measure(args: argparse.Namespace) -> None:
    torch.set_num_threads(1)
    scenes = [read_scene(args.data / "open/terramesh" / name) for name in BLOCKS]
    document = json.loads(ROWS.read_text(encoding="utf-8")) if ROWS.exists() else {"conditions": [], "rows": []}
    now = conditions()
    if now not in document["conditions"]:
        document["conditions"].append(now)
    done = [{k: r[k] for k in ("bundle", "sensor", "cause", "fraction", "seed")} for r in document["rows"]]
    networks = {name: load_eager(FOLDER / name) for name in BUNDLES}
    start = time.monotonic()
    for key in wanted(args.seeds):
        if key in done:
            continue
        if time.monotonic() - start > 60 * args.minutes:
            break
        document["rows"].append({**key, **run(networks[key["bundle"]], scenes, key)})
        ROWS.write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8")
        print(*document["rows"][-1].values(), flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=Path("../shared/data"))
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--minutes", type=float, default=1e9, help="begin no row after this time")
    parser.add_argument("--check", action="store_true", help="change nothing, exit 1 where page or plot are stale")
    args = parser.parse_args()
    if not args.check:
        measure(args)
    document = json.loads(ROWS.read_text(encoding="utf-8"))
    for path, content in ((PAGE, page(document)), (PLOT, plot(document["rows"]))):
        if args.check and (not path.exists() or path.read_text(encoding="utf-8") != content):
            sys.exit(f"stale: {path}; run `python scripts/robustness.py`")
        path.write_text(content, encoding="utf-8")


if __name__ == "__main__":
    main()
