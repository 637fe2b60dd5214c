"""Several sensors' files -> one scene.tif: float32 in model units, NaN where invalid, bands named `sensor:band`."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import rasterio
from rasterio.errors import RasterioError
from rasterio.transform import Affine
from rasterio.windows import Window as RasterioWindow

from mmedge.files import refuse_unwritable, written_whole
from mmedge.geo_io.rasters.header import GDAL_CACHE_BYTES
from mmedge.geo_io.scene import Scene
from mmedge.tile import Tile

BLOCK = 256
# Windows are as large as a tile of JPEG 2000, which would be decoded again for each of its parts, or hold this much.
READ_PX, READ_BYTES = 1024, 64 << 20
UNIT_TAG = {"reflectance": "1", "dB": "dB", "m": "m", "raw": ""}


def stack(scene: Scene, output: Path, *, overwrite: bool = False) -> None:
    """Write a scene as one tiled GeoTIFF on its reference grid. Whole or not at all."""
    refuse_unwritable([output], overwrite=overwrite)
    with written_whole(output, also=(RasterioError,)) as part:
        _write(scene, part)


def _write(scene: Scene, part: Path) -> None:
    bands = [(sensor, band) for sensor, source in scene.sources.items() for band in source.info.bands]
    grid = scene.grid
    profile = {
        "driver": "GTiff",
        "dtype": "float32",
        "count": len(bands),
        "height": grid.rows,
        "width": grid.cols,
        "crs": grid.crs,
        "transform": Affine(*grid.transform),
        "nodata": np.nan,
        "tiled": True,
        "blockxsize": BLOCK,
        "blockysize": BLOCK,
        "compress": "deflate",
        "predictor": 3,
        "interleave": "band",
        "BIGTIFF": "IF_SAFER",
    }
    with rasterio.Env(GDAL_CACHEMAX=GDAL_CACHE_BYTES), rasterio.open(part, "w", **profile) as out:
        for index, (sensor, band) in enumerate(bands, start=1):
            out.set_band_description(index, f"{sensor}:{band}")
            info = scene.sources[sensor].info
            unit = info.units[info.bands.index(band)] if info.units else info.unit
            out.set_band_unit(index, UNIT_TAG.get(unit, unit))
        out.update_tags(**_tags(scene))
        side = min(READ_PX, int((READ_BYTES / 4 / len(bands)) ** 0.5)) // BLOCK * BLOCK or BLOCK
        for window in grid.window.blocks(side):
            tile = scene.read(window)
            where = RasterioWindow(window.col, window.row, window.width, window.height)
            out.write(_nan_where_invalid(scene, tile), window=where)


def _tags(scene: Scene) -> dict[str, str]:
    dates = {f"ACQUIRED_{s.upper()}": str(src.info.acquired) for s, src in scene.sources.items() if src.info.acquired}
    return {**dates, "SOURCES": ", ".join(file.name for file in scene.files)}


def _nan_where_invalid(scene: Scene, tile: Tile) -> np.ndarray[tuple[int, ...], np.dtype[np.float32]]:
    bands = [np.where(tile.valid[name], tile.data[name], np.nan) for name in scene.sources]
    return np.concatenate(bands).astype(np.float32)
