"""Files in strips: each strip once, and the map of the same pixels in tiles."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio

from mmedge.edge.infer import infer
from mmedge.edge.stream import in_order
from mmedge.geo_io.rasters.header import GDAL_CACHE_BYTES, inspect_raster
from mmedge.geo_io.rasters.reader import RasterReader
from mmedge.geo_io.scene import open_scene
from mmedge.geo_io.tiling import Lattice
from mmedge.grid import Window
from mmedge.modality import Modality

SIDE = 3072


def wide(chile: Path, target: Path, *, rows: int = 400, **layout: Any) -> Path:
    """The example, mirrored to 3072 columns: 7 bands of float32, uncompressed, 86 kB a row."""
    bands = [2, 3, 4, 8, 13, 14, 15]
    with rasterio.open(chile / "scene.tif") as src:
        data = np.pad(src.read(bands), ((0, 0), (0, rows - 224), (0, SIDE - 224)), mode="symmetric")
        profile = {
            k: v
            for k, v in src.profile.items()
            if k not in ("blockxsize", "blockysize", "tiled", "compress", "predictor")
        }
        names = [src.descriptions[i - 1] for i in bands]
    with rasterio.open(target, "w", **{**profile, "count": 7, "height": rows, "width": SIDE, **layout}) as out:
        out.write(data)
        out.descriptions = names
    return target


def bytes_read() -> int:
    lines = Path("/proc/self/io").read_text().splitlines()
    return int(dict(line.split(": ") for line in lines)["rchar"])


def test_what_a_row_of_strips_takes(chile: Path, tmp_path: Path) -> None:
    for layout, said in (
        ({"interleave": "band"}, (4 * SIDE,) * 7),
        ({"interleave": "pixel"}, (4 * SIDE * 7,)),
        ({"tiled": True, "blockxsize": 256, "blockysize": 256}, ()),
    ):
        assert inspect_raster(wide(chile, tmp_path / "x.tif", **layout)).strip_bytes == said
    assert inspect_raster(chile / "sar.tif").strip_bytes == ()


@pytest.mark.skipif(sys.platform != "linux", reason="counts bytes in /proc/self/io")
@pytest.mark.parametrize("interleave", ["band", "pixel"])
def test_each_strip_is_read_once_while_two_threads_cut_tiles(chile: Path, tmp_path: Path, interleave: str) -> None:
    path = wide(chile, tmp_path / "scene.tif", interleave=interleave, rows=1600)
    modality = Modality(name="optical", bands=("B02", "B03", "B04", "B08"), unit="reflectance", gsd_m=10)
    with open_scene(path, [modality]) as scene:
        tiles = Lattice(64, 8, (0, 0)).tiles(scene.grid.window, 8)
        with rasterio.Env(GDAL_CACHEMAX=GDAL_CACHE_BYTES + scene.sources["optical"].info.strip_bytes * 600):
            before = bytes_read()
            for _ in in_order(lambda tile: scene.read(tile.read), tiles, workers=2, depth=4):
                pass
            bands = 4 / 7 if interleave == "band" else 1
            times = (bytes_read() - before) / (bands * path.stat().st_size)
    assert 0.5 < times < 1.1


def test_the_map_of_strips_is_that_of_tiles(chile: Path, small: Path, tmp_path: Path) -> None:
    (tmp_path / "tiles").mkdir()
    striped = wide(chile, tmp_path / "scene.tif", interleave="band")
    tiled = wide(chile, tmp_path / "tiles/scene.tif", tiled=True, blockxsize=256, blockysize=256)
    strips = infer(striped, tmp_path / "map.tif", model=small, threads=2)
    tiles = infer(tiled, tmp_path / "tiles/map.tif", model=small, threads=2)
    with rasterio.open(strips.outputs.map) as a, rasterio.open(tiles.outputs.map) as b:
        np.testing.assert_array_equal(a.read(), b.read())


def test_threads_share_a_handle_and_get_the_right_rows(chile: Path, tmp_path: Path) -> None:
    from concurrent.futures import ThreadPoolExecutor

    file = inspect_raster(wide(chile, tmp_path / "x.tif", interleave="band"))
    reader = RasterReader(file.path, file.bands, shared=True)
    windows = [Window(row, col, 60, 300) for row in range(0, 340, 40) for col in range(0, 2700, 300)]
    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(reader.read, windows))
    assert len(reader._handles) == 1
    reader.close()
    with rasterio.open(file.path) as src:
        whole = src.read()
    for (data, _), w in zip(found, windows, strict=True):
        np.testing.assert_array_equal(data, whole[:, w.row : w.row + 60, w.col : w.col + 300])
