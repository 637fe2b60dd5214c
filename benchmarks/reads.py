"""How much a windowed read costs over rasterio's own read of the same bytes, and how often a strip is unpacked.

    python -m benchmarks.reads --out docs/results/reads.json    # measures
    python -m benchmarks.reads --page                           # writes the figures into docs/sensors/alignment.md

Files of 4096 x 4096 pixels are made of the example, mirrored: 4 bands of uint16 with a nodata value, 2 of float32; in
DEFLATE tiles of 512, DEFLATE strips and plain strips. Windows are those of `mmedge infer` (400 pixels, 16 of them
shared), row by row, one thread, one handle, GDAL's cache as `infer` bounds it, files in the page cache. `ratio` is the
median of RasterReader.read over DatasetReader.read, alternating, in CPU seconds of the reading thread, since others may
be at work on the machine; `ratio_to_float32` is that over DatasetReader.read(out_dtype="float32"). `times_read` is how
many bytes the process asked the system for while two threads read the tiles of a scene of 8192 x 1024 pixels, over the
file's size: 1 is each strip once.
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from textwrap import fill
from typing import Any

import numpy as np
import rasterio
from rasterio.windows import Window as RasterioWindow

from benchmarks.machine import machine
from benchmarks.pages import Part
from mmedge.edge.request import STRIP_CACHE_BYTES
from mmedge.edge.stream import in_order
from mmedge.geo_io.rasters.header import GDAL_CACHE_BYTES, inspect_raster
from mmedge.geo_io.rasters.reader import RasterReader
from mmedge.geo_io.scene import open_scene
from mmedge.geo_io.tiling import Lattice
from mmedge.grid import Window

EXAMPLE = Path("examples/chile")
SIDE, WINDOW_PX, STEP_PX, RUNS = 4096, 400, 384, 7
LAYOUTS: dict[str, dict[str, Any]] = {
    "tiles, DEFLATE": {"tiled": True, "blockxsize": 512, "blockysize": 512, "compress": "deflate", "zlevel": 1},
    "strips, DEFLATE": {"tiled": False, "compress": "deflate", "zlevel": 1},
    "strips, plain": {"tiled": False, "compress": None},
}
WANTED_RATIO = 1.2
RESULTS = Path("docs/results/reads.json")
PART = Part(
    Path("docs/sensors/alignment.md"),
    "<!-- reads: benchmarks/reads.py -->",
    "<!-- end of reads -->",
    "python -m benchmarks.reads --page",
)


def mirrored(source: Path, target: Path, bands: list[int], side: int, *, rows: int = 0, **layout: Any) -> Path:
    """Some bands of a raster, mirrored to `side` columns and as many or `rows` rows: real texture without seams."""
    with rasterio.open(source) as src:
        data = src.read(bands)
        profile = {
            k: v
            for k, v in src.profile.items()
            if k not in ("blockxsize", "blockysize", "tiled", "compress", "predictor")
        }
        names = [src.descriptions[i - 1] for i in bands]
    size = data.shape[1]
    data = np.pad(data, ((0, 0), (0, (rows or side) - size), (0, side - size)), mode="symmetric")
    profile |= {"count": len(bands), "height": rows or side, "width": side, "interleave": "band", **layout}
    if profile["dtype"] == "uint16":
        profile["nodata"] = 0
    with rasterio.open(target, "w", **profile) as out:
        out.write(data)
        out.descriptions = names
    return target


def windows() -> Iterator[Window]:
    for row in range(0, SIDE - WINDOW_PX + 1, STEP_PX):
        for col in range(0, SIDE - WINDOW_PX + 1, STEP_PX):
            yield Window(row, col, WINDOW_PX, WINDOW_PX)


def raw_seconds(path: Path, dtype: str | None = None) -> float:
    """Every window, as rasterio reads it, in the file's type or another."""
    with rasterio.open(path) as src:
        start = time.thread_time()
        for w in windows():
            src.read(window=RasterioWindow(w.col, w.row, w.width, w.height), out_dtype=dtype)
        return time.thread_time() - start


def our_seconds(path: Path) -> float:
    """Every window, as float32 with its validity."""
    file = inspect_raster(path)
    reader = RasterReader(file.path, file.bands, shared=bool(file.strip_bytes))
    start = time.thread_time()
    for w in windows():
        reader.read(w)
    seconds = time.thread_time() - start
    reader.close()
    return seconds


def compared(path: Path) -> dict[str, float]:
    """Medians over alternating runs, after one of each."""
    with rasterio.Env(GDAL_CACHEMAX=GDAL_CACHE_BYTES):
        pairs = [(raw_seconds(path), our_seconds(path), raw_seconds(path, "float32")) for _ in range(RUNS + 1)][1:]
        pixels = sum(w.height * w.width for w in windows())
        raw, ours = (statistics.median(p[i] for p in pairs) for i in (0, 1))
        ratio, like = (statistics.median(p[1] / p[i] for p in pairs) for i in (0, 2))
    return {
        "raw_s": round(raw, 4),
        "ours_s": round(ours, 4),
        "mpx_s": round(pixels / ours / 1e6, 1),
        "ratio": round(ratio, 3),
        "ratio_to_float32": round(like, 3),
    }


def bytes_read() -> int:
    """Bytes that this process has asked the system for."""
    lines = Path("/proc/self/io").read_text().splitlines()
    return int(dict(line.split(": ") for line in lines)["rchar"])


def times_read(folder: Path, layout: str) -> float:
    """How often a scene of 8192 x 1024 pixels, 7 bands of float32, is read while two threads cut it into tiles."""
    path = folder / "wide.tif"
    mirrored(EXAMPLE / "scene.tif", path, [2, 3, 4, 8, 13, 14, 15], 8192, rows=1024, **LAYOUTS[layout])
    with open_scene(path) as scene:
        strips = sum(source.info.strip_bytes for source in scene.sources.values()) * WINDOW_PX * 3 // 2
        tiles = Lattice(64, 8, (0, 0)).tiles(scene.grid.window, 8)
        with rasterio.Env(GDAL_CACHEMAX=GDAL_CACHE_BYTES + min(strips, STRIP_CACHE_BYTES)):
            before = bytes_read()
            for _ in in_order(lambda tile: scene.read(tile.read), tiles, workers=2, depth=4):
                pass
            return round((bytes_read() - before) / path.stat().st_size, 2)


def block() -> str:
    """What the page says of the stored figures."""
    stored = json.loads(RESULTS.read_text())
    plain = stored["reads"].pop("strips, plain, uint16")
    ratios = [read["ratio"] for read in stored["reads"].values()]
    strips, tiles = (stored["times_read"][layout] for layout in ("strips, DEFLATE", "tiles, DEFLATE"))
    text = (
        f"A scene 8,192 pixels wide is read {strips:.1f} times in strips (the rest is what opening it left in the "
        f"cache) and {tiles:.1f} times in tiles of 512. A read takes {min(ratios):.2f} to {max(ratios):.2f} times what "
        f"rasterio takes for the same bytes; {plain['ratio']:.2f} times for uncompressed 16-bit integers in strips, "
        f"where the conversion to float32 counts most ({plain['ratio_to_float32']:.2f} times rasterio's own read as "
        f"float32). {stored['machine']['cpu']}, processor seconds, the machine busy with other work "
        "([figures](../results/reads.json), `python -m benchmarks.reads`)."
    )
    return fill(text, 120, break_long_words=False, break_on_hyphens=False)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path)
    parser.add_argument("--page", action="store_true", help="measure nothing, write the page from the stored figures")
    parser.add_argument("--check", action="store_true", help="change nothing, exit 1 where the page is stale")
    args = parser.parse_args()
    if args.page or args.check:
        PART.write(block(), check=args.check)
        return
    out = args.out
    results: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        for name, layout in LAYOUTS.items():
            for kind, source, bands in (("uint16", "optical.tif", [2, 3, 4, 8]), ("float32", "sar.tif", [1, 2])):
                path = mirrored(EXAMPLE / source, folder / "file.tif", bands, SIDE, **layout)
                results[f"{name}, {kind}"] = compared(path)
                print(f"{name}, {kind}: {results[f'{name}, {kind}']}")
        times = {name: times_read(folder, name) for name in LAYOUTS}
        print(f"times read: {times}")
    worst = max(r["ratio"] for r in results.values())
    print(f"worst ratio {worst}, wanted <= {WANTED_RATIO}")
    if out:
        document = {
            "schema": "mmedge.reads/1",
            "machine": machine(),
            "reads": results,
            "worst_ratio": worst,
            "times_read": times,
        }
        out.write_text(json.dumps(document, indent=1) + "\n")


if __name__ == "__main__":
    main()
