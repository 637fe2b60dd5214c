"""`mmedge infer` against its floors on the work of peers: a seeded scene and U-Net, in one run on one machine.

    python -m benchmarks.floors FOLDER --side 10000 --threads 1

Floors: *read* every block of the scene once with rasterio; *write* the same three products (tiles, then the compressing
pass with overviews) with rasterio alone; *compute* the same windows with the bare sessions. The ratio is CPU time (user
and system, all threads) of the whole run over the sum of the floors: other load on the machine hardly moves it. The
ratio of wall times is given beside it. `benchmarks.measure` runs every row of docs/results/floors.md.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import rasterio
import rasterio.shutil
from rasterio.enums import Resampling
from rasterio.windows import Window as RasterioWindow

from benchmarks.machine import machine
from benchmarks.scene import BANDS, CLASSES, write_scene
from mmedge.bundle import Bundle, open_bundle
from mmedge.edge.runtime.open import open_runtime
from mmedge.edge.runtime.session import Engines, GraphKey
from mmedge.geo_io.rasters.header import GDAL_CACHE_BYTES
from mmedge.geo_io.scene import open_scene
from mmedge.geo_io.tiling import Lattice
from mmedge.modality import Availability


def cost(work: Callable[[], Any]) -> dict[str, float]:
    """CPU and wall seconds of a call."""
    cpu, start = os.times(), time.perf_counter()
    work()
    wall, after = time.perf_counter() - start, os.times()
    return {"cpu_s": round(after.user + after.system - cpu.user - cpu.system, 2), "wall_s": round(wall, 2)}


def read_all(scene: Path) -> None:
    with rasterio.Env(GDAL_CACHEMAX=GDAL_CACHE_BYTES), rasterio.open(scene) as src:
        for row in range(0, src.height, 512):
            src.read(window=RasterioWindow(0, row, src.width, min(512, src.height - row)))


def write_all(folder: Path, like: tuple[Path, ...]) -> None:
    """Write rasters with the pixels of `like` anew: tiles of 512, overviews, DEFLATE."""
    with rasterio.Env(GDAL_CACHEMAX=GDAL_CACHE_BYTES, GDAL_NUM_THREADS="ALL_CPUS"):
        for path in like:
            with rasterio.open(path) as src:
                pixels, profile = src.read(1), src.profile
            raw = folder / "raw.tif"
            kept = {k: profile[k] for k in ("width", "height", "count", "dtype", "crs", "transform", "nodata")}
            with rasterio.open(raw, "w", driver="GTiff", tiled=True, blockxsize=256, blockysize=256, **kept) as out:
                for row in range(0, src.height, 512):
                    rows = min(512, src.height - row)
                    out.write(pixels[None, row : row + rows], window=RasterioWindow(0, row, src.width, rows))
                factors = [2 << i for i in range(6) if max(src.shape) > 512 << i]
            measure = "confidence" in path.name
            with rasterio.open(raw, "r+") as out:
                out.build_overviews(factors, Resampling.average if measure else Resampling.mode)
            options = {"LEVEL": 1, "PREDICTOR": "STANDARD"} if measure else {"LEVEL": 5}
            rasterio.shutil.copy(
                raw, folder / "out.tif", driver="COG", COMPRESS="DEFLATE", NUM_THREADS="ALL_CPUS", **options
            )


class Compute:
    """The bare sessions of a bundle on as many windows as a scene has."""

    def __init__(self, bundle: Bundle, scene: Path, *, precision: str, threads: int) -> None:
        runtime, _ = open_runtime("openvino", precision=precision, threads=threads)
        with open_scene(scene, bundle.modalities) as opened:
            engines = Engines(bundle, runtime).fitted(opened.grid)
            tiles = list(Lattice.of(engines.bundle.tiling, opened.grid).tiles(opened.grid.window, 1))
            tile = opened.read(tiles[len(tiles) // 2].read)
        self.windows, self.tiling, self.threads = len(tiles), engines.bundle.tiling, threads
        batch = engines.batch
        self._session = engines.session(GraphKey(Availability.of(bundle.order, bundle.order), False))
        self._feeds = {"optical": np.repeat(tile.data["optical"][None], batch, 0)}
        self._feeds["optical_valid"] = np.repeat(tile.valid["optical"][None, None], batch, 0)
        self._calls = -(-len(tiles) // batch)
        self._session.run(self._feeds)

    def __call__(self) -> None:
        with ThreadPoolExecutor(self.threads) as pool:
            list(pool.map(lambda _: self._session.run(self._feeds) is None, range(self._calls)))


END_TO_END = """
import json, re, sys, time
from pathlib import Path
from mmedge.edge.infer import run
from mmedge.edge.request import Request
from mmedge.geo_io.location import locate
begun, scene, out, model, precision, threads, wishes = sys.argv[1:]
wishes = {"backend": "openvino", "precision": precision, "threads": int(threads), **json.loads(wishes)}
written = []
request = Request(scene=locate(scene), output=Path(out), model=model, **wishes)
record = run(request, progress=lambda *_: written.append(time.time()))
peak = int(re.search(r"VmHWM:\\s+(\\d+)", Path("/proc/self/status").read_text())[1]) / 2**20
facts = {"peak_rss_gib": round(peak, 2), "first_tile_s": round(written[0] - float(begun), 2)}
print(json.dumps({**facts, **record.document()}))
"""


def process(command: list[str], **environment: str) -> tuple[str, dict[str, float]]:
    """What a process says on stdout, its CPU and wall seconds. Raises RuntimeError with its last words."""
    before, start = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    done = subprocess.run(command, capture_output=True, text=True, env={**os.environ, **environment}, check=False)
    wall, after = time.perf_counter() - start, resource.getrusage(resource.RUSAGE_CHILDREN)
    if done.returncode:
        raise RuntimeError((done.stderr.strip().splitlines() or ["no word"])[-1][:200])
    cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return done.stdout, {"cpu_s": round(cpu, 2), "wall_s": round(wall, 2)}


def end_to_end(
    scene: Path, out: Path, model: Path | str, precision: str, threads: int, **wishes: Any
) -> dict[str, Any]:
    """A run in a process of its own, start-up included. `wishes` are fields of `Request`."""
    told = time.time(), scene, out, model, precision, threads, json.dumps(wishes)
    for old in out.parent.glob(f"{out.stem}*"):
        old.unlink()
    done, used = process([sys.executable, "-c", END_TO_END, *map(str, told)])
    document = json.loads(done)
    return {
        **used,
        "peak_rss_gib": document["peak_rss_gib"],
        "first_tile_s": document["first_tile_s"],
        "seconds": document["seconds"],
        "utilisation": document["utilisation"],
        "mapped": document["mapped"],
    }


def make_bundle(folder: Path, *, window: int | None, network: Path | None = None) -> Path:
    """The benchmark's network, trained, exported and wrapped in folder/unet; or `network`, which is there already."""
    from benchmarks.unet import export, train, trained
    from mmedge.edge.thirdparty.create import create_bundle

    folder.mkdir(parents=True, exist_ok=True)
    if network is None and not (folder / "unet.pt").exists():
        train(folder / "unet.pt")
    if network is None and not (folder / "unet.onnx").exists():
        export(folder / "unet.onnx", trained(folder / "unet.pt"))
    told = {
        "gsd_m": 10,
        "inputs": {"optical": {"bands": list(BANDS), "unit": "reflectance", "mean": 0.24, "std": 0.12}},
        "classes": [f"class {i}" for i in range(CLASSES)],
        "window_px": window,
    }
    return create_bundle(network or folder / "unet.onnx", folder / "unet", told).folder


def floors(scene: Path, model: Path, precision: str, threads: int) -> dict[str, Any]:
    """One row: the three floors, and mmedge on the same work."""
    bundle, out = open_bundle(model), scene.with_name(f"map_{precision}_{threads}.tif")
    read = cost(lambda: read_all(scene))
    compute = Compute(bundle, scene, precision=precision, threads=threads)
    least = cost(compute)
    windows, tiling = compute.windows, compute.tiling
    del compute
    whole = end_to_end(scene, out, model, precision, threads)
    with rasterio.open(out) as src:
        side = src.height
    made = tuple(out.with_name(f"{out.stem}{kind}.tif") for kind in ("", "_confidence", "_sensors"))
    write = cost(lambda: write_all(scene.parent, made))
    for old in scene.parent.glob(f"{out.stem}*"):
        old.unlink()
    every = (read, least, write)
    cpu, wall = (sum(floor[key] for floor in every) for key in ("cpu_s", "wall_s"))
    return {
        "precision": precision,
        "threads": threads,
        "side_px": side,
        "window_px": tiling.window_px,
        "halo_px": tiling.halo_px,
        "computed_over_mapped": round(windows * tiling.window_px**2 / side**2, 3),
        "floors": {"read": read, "compute": least, "write": write},
        "mmedge": whole,
        "cpu_ratio": round(whole["cpu_s"] / cpu, 3),
        "wall_ratio": round(whole["wall_s"] / wall, 3),
        "mpx_per_cpu_s": round(side**2 / whole["cpu_s"] / 1e6, 3),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("work", type=Path, help="where scene, network and bundle are made, and kept for another run")
    parser.add_argument("--side", type=int, default=10000)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--precision", default="fp32")
    args = parser.parse_args()
    args.work.mkdir(parents=True, exist_ok=True)
    scene, model = args.work / f"scene_{args.side}.tif", args.work / "unet"
    if not scene.exists():
        write_scene(scene, args.side)
    if not model.exists():
        make_bundle(args.work, window=None)
    row = floors(scene, model, args.precision, args.threads)
    print(json.dumps({"machine": machine(), **row}, indent=1))


if __name__ == "__main__":
    main()
