"""One raster file: what it holds (`RasterFile`, `RasterBand`) and windowed, thread-safe reads (`RasterReader`)."""

from __future__ import annotations

import threading
import warnings
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from rasterio.enums import ColorInterp, MaskFlags
from rasterio.env import ensure_env
from rasterio.errors import NotGeoreferencedWarning, RasterioError
from rasterio.io import DatasetReader
from rasterio.windows import Window as RasterioWindow

from mmedge.errors import ReadError, SceneError
from mmedge.geo_io.bands import split_description
from mmedge.grid import Grid, Window
from mmedge.tile import Data, Valid

# Formats that hold pixels themselves. VRT and friends can point anywhere on the disk or the network.
DRIVERS = (
    "GTiff",
    "COG",
    "JP2OpenJPEG",
    "netCDF",
    "HDF5",
    "ENVI",
    "HFA",
    "PNG",
    "JPEG",
    "AAIGrid",
    "SAFE",
    "SENTINEL2",
)

# GDAL's block cache: its default is 5 % of the memory, on top of what we promise to use.
GDAL_CACHE_BYTES = 64 << 20


@dataclass(frozen=True, slots=True, kw_only=True)
class RasterBand:
    """One band of a file. `sensor` and `name` are usual names, None where the file does not say.

    Values are `scale * DN + offset` once nodata is taken out; `tagged` tells whether the file itself gave them.
    """

    path: Path
    index: int
    sensor: str | None
    name: str | None
    dtype: str
    scale: float
    offset: float
    tagged: bool
    unit: str | None

    def named(self, sensor: str, name: str) -> RasterBand:
        return replace(self, sensor=sensor, name=name)

    def scaled(self, scale: float, offset: float) -> RasterBand:
        return replace(self, scale=scale, offset=offset, tagged=True)

    def __str__(self) -> str:
        known = ":".join(part for part in (self.sensor, self.name) if part)
        return known or f"unnamed band {self.index}"


@dataclass(frozen=True, slots=True, kw_only=True)
class RasterFile:
    """What a raster holds. `grid.crs` is empty where the file has no CRS."""

    path: Path
    driver: str
    grid: Grid
    bands: tuple[RasterBand, ...]
    tags: dict[str, str]


def open_dataset(path: Path) -> Any:
    """A rasterio dataset of an allowed format; SceneError where the file is missing or is no raster."""
    if not path.exists():
        raise SceneError(f"no such file: `{path}`", hint="check the path; `mmedge info SCENE` lists what a scene holds")
    if path.is_dir():
        raise SceneError(f"`{path}` is a folder, not a raster", hint=f"mmedge batch {path} --out maps/")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", NotGeoreferencedWarning)  # a missing CRS is our own error, with a hint
            return _open(path)
    except RasterioError:
        raise SceneError(
            f"`{path}` is not a raster that mmedge reads ({', '.join(DRIVERS[:4])}, ...)",
            hint="convert it with `gdal_translate IN OUT.tif`",
        ) from None


@ensure_env  # type: ignore[untyped-decorator]
def _open(path: Path) -> Any:
    return DatasetReader(path, driver=list(DRIVERS))  # rasterio.open takes one driver only


def inspect_raster(path: Path) -> RasterFile:
    """Read a file's header: its grid, and for each band that is no alpha its name, scale and unit."""
    with open_dataset(path) as ds:
        transform = ds.transform
        grid = Grid(ds.height, ds.width, tuple(transform)[:6], ds.crs.to_wkt() if ds.crs else "")
        bands = tuple(_band(ds, path, i) for i in ds.indexes if ds.colorinterp[i - 1] != ColorInterp.alpha)
        return RasterFile(path=path, driver=ds.driver, grid=grid, bands=bands, tags=dict(ds.tags()))


def _band(ds: Any, path: Path, index: int) -> RasterBand:
    sensor, name = split_description(ds.descriptions[index - 1])
    scale, offset = ds.scales[index - 1], ds.offsets[index - 1]
    return RasterBand(
        path=path,
        index=index,
        sensor=sensor,
        name=name,
        dtype=ds.dtypes[index - 1],
        scale=scale,
        offset=offset,
        tagged=(scale, offset) != (1.0, 0.0),
        unit=ds.units[index - 1] or None,
    )


class RasterReader:
    """Windowed reads of some bands of one file. Safe to call from many threads: each has a handle of its own."""

    def __init__(self, path: Path, bands: tuple[RasterBand, ...]) -> None:
        self.path = path
        self._indexes = [band.index for band in bands]
        self._scale = np.array([band.scale for band in bands], np.float32)[:, None, None]
        self._offset = np.array([band.offset for band in bands], np.float32)[:, None, None]
        self._plain = bool((self._scale == 1).all() and (self._offset == 0).all())
        self._local = threading.local()
        self._handles: list[Any] = []
        self._lock = threading.Lock()

    def read(self, window: Window) -> tuple[Data, Valid]:
        """Scaled values (bands, rows, cols) float32 and valid (rows, cols) of a window inside the file.

        A pixel is valid where every band is: finite, not nodata (compared before scaling), not masked, alpha > 0.
        """
        ds = self._dataset()
        where = RasterioWindow(window.col, window.row, window.width, window.height)
        try:
            raw = ds.read(self._indexes, window=where)
            valid = self._valid(ds, raw, where)
        except RasterioError as err:
            cause = err.__cause__ or err
            raise ReadError(
                f"cannot read `{self.path}` at rows {window.row}-{window.row + window.height}, "
                f"columns {window.col}-{window.col + window.width}: {cause}",
                hint="the file is damaged or truncated: copy it again",
            ) from None
        return self._to_units(raw), valid

    def close(self) -> None:
        with self._lock:
            for handle in self._handles:
                handle.close()
            self._handles.clear()

    def _dataset(self) -> Any:
        ds = getattr(self._local, "ds", None)
        if ds is None or ds.closed:
            ds = self._local.ds = open_dataset(self.path)
            with self._lock:
                self._handles.append(ds)
        return ds

    def _to_units(self, raw: npt.NDArray[Any]) -> Data:
        data = raw.astype(np.float32)
        if not self._plain:
            data *= self._scale
            data += self._offset
        return data

    def _valid(self, ds: Any, raw: npt.NDArray[Any], where: RasterioWindow) -> Valid:
        valid = np.ones(raw.shape[1:], bool)
        for index, values in zip(self._indexes, raw, strict=True):
            if values.dtype.kind in "fc":
                valid &= np.isfinite(values)
            nodata = ds.nodatavals[index - 1]
            if nodata is not None and not np.isnan(nodata):
                # Compare in the file's type: -3.4e38 is stored as another double than it is read back as.
                valid &= values != np.array(nodata).astype(values.dtype)
            if MaskFlags.per_dataset in ds.mask_flag_enums[index - 1]:
                valid &= ds.read_masks(index, window=where) != 0
        return valid
