"""`mmedge infer` against its floors on the work of peers: a seeded scene and U-Net, in one run on one machine.

    python -m benchmarks.floors --side 10000 --threads 1 --out docs/results

Floors: *read* every block of the scene once with rasterio; *write* the same three products (tiles, then the compressing
pass with overviews) with rasterio alone; *compute* the same windows with the bare sessions. The ratio is CPU time (user
and system, all threads) of the whole run over the sum of the floors: other load on the machine hardly moves it. Wall
times are given beside it, with the share of the cores that others took.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
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
from mmedge.geo_io.raster import GDAL_CACHE_BYTES
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
    with rasterio.Env(GDAL_CACHEMAX=GDAL_CACHE_BYTES):
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
            rasterio.shutil.copy(raw, folder / "out.tif", driver="COG", COMPRESS="DEFLATE", **options)


class Compute:
    """The bare sessions of a bundle on as many windows as a scene has."""

    def __init__(self, bundle: Bundle, scene: Path, *, precision: str, threads: int) -> None:
        runtime, _ = open_runtime("openvino", precision=precision, threads=threads)
        with open_scene(scene, bundle.modalities) as opened:
            engines = Engines(bundle, runtime, batch=8).fitted(opened.grid)
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
import json, os, re, sys
from pathlib import Path
from mmedge.edge.infer import infer
scene, out, model, precision, threads = sys.argv[1:]
record = infer(scene, out, model=model, backend="openvino", precision=precision, threads=int(threads))
peak = int(re.search(r"VmHWM:\\s+(\\d+)", Path("/proc/self/status").read_text())[1]) / 2**20
print(json.dumps({"peak_rss_gib": round(peak, 2), **record.document()}))
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


def end_to_end(scene: Path, out: Path, model: Path, precision: str, threads: int) -> dict[str, Any]:
    """A run in a process of its own, start-up included."""
    command = [sys.executable, "-c", END_TO_END, *map(str, (scene, out, model, precision, threads))]
    done, used = process(command)
    document = json.loads(done)
    return {
        **used,
        "peak_rss_gib": document["peak_rss_gib"],
        "seconds": document["seconds"],
        "utilisation": document["utilisation"],
    }


def make_bundle(folder: Path, *, window: int | None) -> Path:
    """The benchmark's network, exported and wrapped."""
    from benchmarks.unet import export, seeded
    from mmedge.edge.thirdparty.create import create_bundle

    export(folder / "unet.onnx", seeded())
    told = {
        "gsd_m": 10,
        "inputs": {"optical": {"bands": list(BANDS), "unit": "reflectance", "mean": 0.24, "std": 0.12}},
        "classes": [f"class {i}" for i in range(CLASSES)],
        "window_px": window,
    }
    return create_bundle(folder / "unet.onnx", folder / "unet", told).folder


def table(result: dict[str, Any]) -> str:
    """The rows as Markdown."""
    facts = result["machine"]
    lines = [
        "# The pipeline and its floors",
        "",
        f"{result['side_px']} x {result['side_px']} px, 6 bands uint16; U-Net of 0.79 M parameters; "
        f"{result['threads']} threads. Machine: {facts['cpu']} [{facts['flags']}], commit {facts['commit']}, "
        f"load {result['load_before']} on {facts['threads']} cores: wall times say little, CPU times are what counts.",
        f"`{result['command']}`",
        "",
        "CPU seconds; computed: pixels that the network sees, per pixel of the map.",
        "",
        "| | window | computed | read | compute | write | sum of floors | mmedge | ratio | RSS GiB |",
        "|---|---|---|---|---|---|---|---|---|---|",
    ]
    for precision, row in result["rows"].items():
        floors = [row["floors"][name]["cpu_s"] for name in ("read", "compute", "write")]
        cells = [precision, f"{row['window_px']} - 2 x {row['halo_px']}", row["computed_over_mapped"], *floors]
        cells += [round(sum(floors), 2), row["mmedge"]["cpu_s"], row["cpu_ratio"], row["mmedge"]["peak_rss_gib"]]
        lines.append(f"| {' | '.join(map(str, cells))} |")
    return "\n".join(lines) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--side", type=int, default=10000)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--window", type=int)
    parser.add_argument("--precisions", default="fp32,bf16")
    parser.add_argument("--work", type=Path, help="where scene and bundle are made, and kept for another run")
    parser.add_argument("--out", type=Path, help="a folder for floors.json and floors.md")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        folder = args.work or Path(temporary)
        folder.mkdir(exist_ok=True)
        scene, model = folder / f"scene_{args.side}.tif", folder / "unet"
        if not scene.exists():
            write_scene(scene, args.side)
        if not model.exists():
            make_bundle(folder, window=args.window)
        bundle = open_bundle(model)
        load = os.getloadavg()[0]
        rows: dict[str, Any] = {}
        read = cost(lambda: read_all(scene))
        for precision in args.precisions.split(","):
            out = folder / f"map_{precision}.tif"
            for old in folder.glob(f"map_{precision}*"):
                old.unlink()
            compute = Compute(bundle, scene, precision=precision, threads=args.threads)
            floor = cost(compute)
            whole = end_to_end(scene, out, model, precision, args.threads)
            made = tuple(out.with_name(f"{out.stem}{kind}.tif") for kind in ("", "_confidence", "_sensors"))
            write = cost(lambda made=made: write_all(folder, made))  # type: ignore[misc]
            least = read["cpu_s"] + floor["cpu_s"] + write["cpu_s"]
            rows[precision] = {
                "floors": {"read": read, "compute": floor, "write": write},
                "window_px": compute.tiling.window_px,
                "halo_px": compute.tiling.halo_px,
                "computed_over_mapped": round(compute.windows * compute.tiling.window_px**2 / args.side**2, 3),
                "mmedge": whole,
                "cpu_ratio": round(whole["cpu_s"] / least, 3),
                "mpx_per_cpu_s": round(args.side**2 / whole["cpu_s"] / 1e6, 3),
            }
    result = {
        "schema": "mmedge.benchmark.floors/1",
        "command": f"python -m benchmarks.floors --side {args.side} --threads {args.threads} "
        f"--precisions {args.precisions}",
        "machine": machine(),
        "load_before": round(load, 2),
        "side_px": args.side,
        "threads": args.threads,
        "rows": rows,
    }
    text = json.dumps(result, indent=1)
    print(text)
    if args.out:
        args.out.mkdir(parents=True, exist_ok=True)
        (args.out / "floors.json").write_text(text + "\n")
        (args.out / "floors.md").write_text(table(result))


if __name__ == "__main__":
    main()
