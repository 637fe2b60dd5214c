"""How far `mmedge infer` is from its floor, in one run on one machine.

    python -m benchmarks.infer --side 5000 --out infer.json

Three figures: `mmedge --help`, `mmedge infer` on the example (both as whole processes, median of five), and end to end
on the example mirrored to side x side pixels against the bare session: the same graphs on the same number of real
windows, with the same threads, and nothing else. The bare session runs before and after, and the mean of both counts:
machines drift. Processor time stands beside wall time, which other work on the machine lengthens.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import rasterio
from rasterio.windows import Window as RasterioWindow

from benchmarks.machine import machine
from mmedge.bundle import open_bundle
from mmedge.edge.infer import infer
from mmedge.edge.runtime.open import open_runtime
from mmedge.edge.runtime.session import Engines
from mmedge.edge.windows import Batch, batches
from mmedge.geo_io.ground import gsd_m
from mmedge.geo_io.scene import open_scene
from mmedge.geo_io.tiling import Lattice

EXAMPLE = Path("examples/chile/scene.tif")


Seconds = np.ndarray[tuple[int], np.dtype[np.float64]]


class Stopwatch:
    """Wall and processor time of a `with` block, as an array of two."""

    seconds: Seconds

    def __enter__(self) -> Stopwatch:
        self._start = np.array([time.perf_counter(), time.process_time()])
        return self

    def __exit__(self, *exc: object) -> None:
        self.seconds = np.array([time.perf_counter(), time.process_time()]) - self._start


def process_seconds(*arguments: str, runs: int = 5) -> float:
    """Median wall time of a whole `mmedge` process."""
    command = [sys.executable, "-c", "from mmedge.cli.app import main; main()", *arguments]
    times = []
    for _ in range(runs):
        start = time.perf_counter()
        subprocess.run(command, check=True, capture_output=True)
        times.append(time.perf_counter() - start)
    return statistics.median(times)


def mirrored(target: Path, side: int) -> Path:
    """The example, mirrored to side x side pixels: real texture, no seams. DEFLATE tiles of 512."""
    with rasterio.open(EXAMPLE) as src:
        tile = src.read()
        block = np.concatenate([tile, tile[:, ::-1]], axis=1)
        block = np.concatenate([block, block[:, :, ::-1]], axis=2)
        profile = {**src.profile, "height": side, "width": side, "blockxsize": 512, "blockysize": 512, "zlevel": 1}
        with rasterio.open(target, "w", **profile, NUM_THREADS="ALL_CPUS") as out:
            out.descriptions = src.descriptions
            for row in range(0, side, 512):
                rows = np.arange(row, min(row + 512, side)) % block.shape[1]
                strip = block[:, rows][:, :, np.arange(side) % block.shape[2]]
                out.write(strip, window=RasterioWindow(0, row, side, len(rows)))
    return target


def bare_session(scene_path: Path, model: str, *, threads: int, precision: str) -> tuple[Seconds, int]:
    """Time for all windows of the scene through the sessions alone, and how many windows those are."""
    bundle = open_bundle(model)
    engines = Engines(bundle, open_runtime("openvino", precision=precision, threads=threads)[0])
    some: list[Batch] = []
    with open_scene(scene_path, bundle.modalities) as scene:
        lattice, pixel_m = Lattice.of(bundle.tiling, scene.grid), gsd_m(scene.grid)
        tiles = list(lattice.tiles(scene.grid.window, 8))
        total = sum(tile.rows * tile.cols for tile in tiles)
        for where in tiles[len(tiles) // 2 :][:4]:
            some += batches(scene.read(where.read), where, bundle, size=engines.batch, pixel_m=pixel_m)

    def run(i: int) -> None:
        engines.session(some[i % len(some)].key).run(some[i % len(some)].feeds)

    with ThreadPoolExecutor(threads) as pool:
        list(pool.map(run, range(4 * threads)))  # compile and warm up
        with Stopwatch() as spent:
            list(pool.map(run, range(-(-total // engines.batch))))
    return spent.seconds, total


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--side", type=int, default=5000)
    parser.add_argument("--model", default="mamol-terra")
    parser.add_argument("--precision", default="fp32")
    parser.add_argument("--threads", type=int, default=0)
    parser.add_argument("--out", type=Path)
    args = parser.parse_args()
    facts = machine()
    threads = args.threads or facts["threads"]
    with tempfile.TemporaryDirectory() as folder:
        help_s = process_seconds("--help")
        example_s = process_seconds(
            "infer", str(EXAMPLE), "-o", f"{folder}/example.tif", "--overwrite", "-m", args.model
        )
        scene = mirrored(Path(folder) / "scene.tif", args.side)
        before, windows = bare_session(scene, args.model, threads=threads, precision=args.precision)
        with Stopwatch() as spent:
            record = infer(scene, f"{folder}/map.tif", model=args.model, precision=args.precision, threads=threads)
        after, _ = bare_session(scene, args.model, threads=threads, precision=args.precision)
    floor, total = (before + after) / 2, spent.seconds
    said = {"side": args.side, "model": Path(args.model).name, "precision": args.precision, "threads": args.threads}
    result: dict[str, Any] = {
        "schema": "mmedge.benchmark.infer/1",
        "command": " ".join(["python -m benchmarks.infer", *(f"--{flag} {value}" for flag, value in said.items())]),
        "machine": facts,
        "help_s": round(help_s, 3),
        "example_s": round(example_s, 2),
        "side_px": args.side,
        "model": said["model"],
        "precision": args.precision,
        "windows": windows,
        "end_to_end_s": round(total[0], 2),
        "bare_session_s": [round(before[0], 2), round(after[0], 2)],
        "ratio": round(total[0] / floor[0], 3),
        "processor_time_ratio": round(total[1] / floor[1], 3),
        "mpx_per_s": round(args.side**2 / total[0] / 1e6, 3),
        "stages_s": {name: round(value, 2) for name, value in record.seconds.items()},
    }
    text = json.dumps(result, indent=1)
    print(text)
    if args.out:
        args.out.write_text(text + "\n")


if __name__ == "__main__":
    main()
