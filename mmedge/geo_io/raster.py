"""One raster file: what it holds (`RasterFile`, `RasterBand`) and windowed, thread-safe reads (`RasterReader`)."""

from __future__ import annotations

import threading
import warnings
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from rasterio._err import CPLE_BaseError  # rasterio.errors has no name for it
from rasterio.enums import ColorInterp, MaskFlags
from rasterio.env import ensure_env
from rasterio.errors import NotGeoreferencedWarning, RasterioError
from rasterio.io import DatasetReader
from rasterio.windows import Window as RasterioWindow

from mmedge.errors import ReadError, SceneError
from mmedge.geo_io.acquired import Acquisition
from mmedge.geo_io.bands import split_description
from mmedge.geo_io.crs import horizontal
from mmedge.geo_io.gcp import ControlPoints, control_points, north_up
from mmedge.geo_io.limits import HEADER_TIMEOUT_S, REMOTE_HEADER_TIMEOUT_S, check_header, pixel_bytes, within
from mmedge.geo_io.location import Location, RemoteFile, patiently, remote_settings, without_secrets
from mmedge.geo_io.quality import QualityLayer
from mmedge.geo_io.sar import amplitude_scale, saturated
from mmedge.geo_io.spectral import BAD, band_wavelengths, reflectance_scale
from mmedge.grid import Grid, Window
from mmedge.tile import Data, Valid

# Formats that hold pixels themselves. VRT and friends can point anywhere on the disk or the network, and so can the XML
# of GDAL's own SAFE and SENTINEL2 drivers: products are read file by file.
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
)

# What a reader does to scaled values (bands, rows, cols), their validity and the window that they were read from.
Convert = Callable[[Data, Valid, Window], tuple[Data, Valid]]

COLOURS = {ColorInterp.red: "B04", ColorInterp.green: "B03", ColorInterp.blue: "B02", ColorInterp.nir: "B08"}

# GDAL's block cache: its default is 5 % of the memory, on top of what we promise to use.
GDAL_CACHE_BYTES = 64 << 20
TILE_PX = 512


@dataclass(frozen=True, slots=True, kw_only=True)
class RasterBand:
    """One band of a file. `sensor` and `name` are usual names, None where the file does not say.

    Values are `scale * DN + offset` once nodata is taken out; `tagged` tells whether the file itself gave them. `fill`
    are DN that are invalid beside the file's own nodata; `assumptions` are said when the band is used. `categorical`:
    the file says that values are classes (a palette, a thematic layer).
    """

    path: Location
    index: int
    sensor: str | None
    name: str | None
    dtype: str
    scale: float
    offset: float
    tagged: bool
    unit: str | None
    fill: tuple[float, ...] = ()
    wavelength_nm: float | None = None
    assumptions: tuple[str, ...] = ()
    categorical: bool = False

    @property
    def is_complex(self) -> bool:
        return self.dtype.startswith("complex")

    def named(self, sensor: str, name: str) -> RasterBand:
        return replace(self, sensor=sensor, name=name)

    def scaled(self, scale: float, offset: float) -> RasterBand:
        return replace(self, scale=scale, offset=offset, tagged=True)

    def assuming(self, text: str) -> RasterBand:
        return replace(self, assumptions=(*self.assumptions, text))

    def __str__(self) -> str:
        known = ":".join(part for part in (self.sensor, self.name) if part)
        return known or f"unnamed band {self.index}"


@dataclass(frozen=True, slots=True, kw_only=True)
class RasterFile:
    """What a raster holds. `grid.crs` is empty where the file has no CRS; then `control` may still place it.

    `strip_bytes`: what a row of pixels of a striped file takes unpacked, band by band, or once for all bands where
    pixels hold them together; () for a tiled one.

    The rest is what a product's metadata add: `acquired`, `quality` layers, `convert` (digital numbers to dB, say) and
    `sidecars`, the metadata files that say so.
    """

    path: Location
    driver: str
    grid: Grid
    bands: tuple[RasterBand, ...]
    tags: dict[str, str]
    strip_bytes: tuple[int, ...] = ()
    control: ControlPoints | None = None
    acquired: Acquisition | None = None
    quality: tuple[QualityLayer, ...] = ()
    convert: Convert | None = field(default=None, compare=False)
    sidecars: tuple[Path, ...] = ()


def ground_grid(file: RasterFile) -> Grid:
    """Where a file lies: its own grid, or a north-up one that covers it where control points place it."""
    return north_up(file.control) if file.control else file.grid


def open_dataset(path: Location) -> Any:
    """A rasterio dataset of an allowed format; SceneError where it is missing, is no raster or claims too much."""
    if isinstance(path, Path):
        _check_file(path)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", NotGeoreferencedWarning)  # a missing CRS is our own error, with a hint
            ds = patiently(path, lambda: _open(path))
    except RasterioError as err:
        raise _not_opened(path, err) from None
    try:
        check_header(ds, str(path))
    except SceneError:
        ds.close()
        raise
    return ds


def _check_file(path: Path) -> None:
    if path.is_dir():
        raise SceneError(f"`{path}` is a folder, not a raster", hint=f"mmedge batch {path} --out maps/")
    if not path.exists():
        raise SceneError(f"no such file: `{path}`", hint="check the path; `mmedge info SCENE` lists what a scene holds")
    if not path.is_file():  # opening a pipe waits for whoever writes into it
        raise SceneError(f"`{path}` is no regular file", hint="copy what it gives into a file first")


def _not_opened(path: Location, err: RasterioError) -> SceneError:
    if isinstance(path, RemoteFile):
        return SceneError(
            f"cannot open `{path}`: {without_secrets(str(err.__cause__ or err))}",
            hint="check the URL and, for a private file, the credentials in the environment; or download it first",
        )
    return SceneError(
        f"`{path}` is not a raster that mmedge reads ({', '.join(DRIVERS[:4])}, ...)",
        hint="convert it with `gdal_translate IN OUT.tif`",
    )


@ensure_env  # type: ignore[untyped-decorator]
def _open(path: Location) -> Any:
    if isinstance(path, Path):
        return DatasetReader(path, driver=list(DRIVERS))  # rasterio.open takes one driver only
    with remote_settings():
        return DatasetReader(path.vsi, driver=list(DRIVERS))


def inspect_raster(path: Location, *, timeout_s: float | None = None) -> RasterFile:
    """Read a file's header: its grid, and for each band that is no alpha its name, scale and unit.

    The horizontal part of a compound CRS is kept. Raises SceneError, also after `timeout_s` seconds
    (default: HEADER_TIMEOUT_S, REMOTE_HEADER_TIMEOUT_S for URLs).
    """
    if timeout_s is None:
        timeout_s = REMOTE_HEADER_TIMEOUT_S if isinstance(path, RemoteFile) else HEADER_TIMEOUT_S
    return within(timeout_s, lambda: _inspect(path), str(path))


def _inspect(path: Location) -> RasterFile:
    try:
        return _described(path)
    except (RasterioError, CPLE_BaseError, UnicodeDecodeError) as err:
        raise SceneError(
            f"`{path}` has damaged metadata: {without_secrets(str(err.__cause__ or err))}",
            hint="the file is damaged or truncated: copy it again; or write it anew with `gdal_translate IN OUT.tif`",
        ) from None


def _described(path: Location) -> RasterFile:
    with open_dataset(path) as ds:
        transform = ds.transform
        grid = Grid(ds.height, ds.width, tuple(transform)[:6], horizontal(ds.crs.to_wkt()) if ds.crs else "")
        wavelengths = band_wavelengths(ds)
        used = [i for i in ds.indexes if ds.colorinterp[i - 1] != ColorInterp.alpha and wavelengths.get(i) != BAD]
        if not used:
            raise _no_bands(path, ds.subdatasets)
        return RasterFile(
            path=path,
            driver=ds.driver,
            grid=grid,
            bands=tuple(_band(ds, path, i, wavelengths.get(i)) for i in used),
            tags=dict(ds.tags()),
            strip_bytes=_strip_bytes(ds),
            control=None if ds.crs else control_points(ds.gcps, path, ds.shape),
        )


def _strip_bytes(ds: Any) -> tuple[int, ...]:
    """A file narrower than a usual tile is as good as tiled."""
    if ds.width <= TILE_PX or any(cols < ds.width or rows >= ds.height for rows, cols in ds.block_shapes):
        return ()
    together = ds.tags(ns="IMAGE_STRUCTURE").get("INTERLEAVE") == "PIXEL"
    each = [ds.width * pixel_bytes(dtype) for dtype in ds.dtypes]
    return (sum(each),) if together else tuple(each)


def _no_bands(path: Location, subdatasets: list[str]) -> SceneError:
    if not subdatasets:
        return SceneError(f"`{path}` holds no band that can be used", hint="gdalinfo FILE")
    return SceneError(
        f"`{path}` holds {len(subdatasets)} data sets and no bands of its own",
        hint=f"take one out: `gdal_translate '{subdatasets[0]}' out.tif`",
    )


def _band(ds: Any, path: Location, index: int, wavelength_nm: float | None) -> RasterBand:
    sensor, name = _names(ds, index, wavelength_nm)
    scale, offset = ds.scales[index - 1], ds.offsets[index - 1]
    if (scale, offset) == (1.0, 0.0):
        is_complex = ds.dtypes[index - 1].startswith("complex")
        scale = (amplitude_scale(ds.tags()) if is_complex else reflectance_scale(ds)) or 1.0
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
        wavelength_nm=wavelength_nm,
        categorical=_categorical(ds, index),
    )


def _categorical(ds: Any, index: int) -> bool:
    layer = ds.tags(index).get("LAYER_TYPE", "") or ds.tags(index).get("RepresentationType", "")
    return bool(ds.colorinterp[index - 1] == ColorInterp.palette) or layer.lower() == "thematic"


def _names(ds: Any, index: int, wavelength_nm: float | None) -> tuple[str | None, str | None]:
    """(sensor, band) from the description, else the wavelength, else the colour that the band is meant for."""
    sensor, name = split_description(ds.descriptions[index - 1])
    if sensor is None and wavelength_nm is not None:
        return "optical", f"{wavelength_nm:g}nm"
    colour = ds.colorinterp[index - 1]
    if name is None and colour in COLOURS:
        return "optical", COLOURS[colour]
    return sensor, name


class RasterReader:
    """Windowed reads of some bands of one file. Safe to call from many threads: each has a handle of its own.

    The threads share one handle of a `striped` file and take turns: GDAL keeps unpacked strips for each handle, and a
    strip lies under every tile of a row. Complex numbers are read as their amplitude |z|. `convert` is the last step
    of every read.
    """

    def __init__(
        self, path: Location, bands: tuple[RasterBand, ...], convert: Convert | None = None, *, striped: bool = False
    ) -> None:
        self.path = path
        self._turn: AbstractContextManager[object] = threading.Lock() if striped else nullcontext()
        self._shared = striped
        self._convert = convert
        self._fill = [band.fill for band in bands]
        self._indexes = [band.index for band in bands]
        self._scale = np.array([band.scale for band in bands], np.float32)[:, None, None]
        self._offset = np.array([band.offset for band in bands], np.float32)[:, None, None]
        self._plain = bool((self._scale == 1).all() and (self._offset == 0).all())
        self._local = threading.local()
        self._handles: list[Any] = []
        self._lock = threading.Lock()
        self._known: tuple[list[tuple[Any, ...]], list[int]] | None = None

    def read(self, window: Window) -> tuple[Data, Valid]:
        """Scaled values (bands, rows, cols) float32 and valid (rows, cols) of a window inside the file.

        A pixel is valid where every band is: finite, not nodata (compared before scaling), not masked, alpha > 0.
        """
        where = RasterioWindow(window.col, window.row, window.width, window.height)
        try:
            with self._turn:
                raw, valid = patiently(self.path, lambda: self._raw(where))
        except RasterioError as err:
            cause = without_secrets(str(err.__cause__ or err))
            raise ReadError(
                f"cannot read `{self.path}` at rows {window.row}-{window.row + window.height}, "
                f"columns {window.col}-{window.col + window.width}: {cause}",
                hint="the file is damaged or truncated: copy it again"
                if isinstance(self.path, Path)
                else "the network or the server failed: try again, or download the file first",
            ) from None
        data = self._to_units(raw)
        return self._convert(data, valid, window) if self._convert else (data, valid)

    def _raw(self, where: RasterioWindow) -> tuple[npt.NDArray[Any], Valid]:
        ds = self._dataset()
        try:
            raw = ds.read(self._indexes, window=where)
            return raw, self._valid(ds, raw, where)
        except RasterioError:
            if isinstance(self.path, RemoteFile):
                self._forget(ds)
            raise

    def _forget(self, ds: Any) -> None:
        """Close a handle for good: it may have kept a part of what it was to read."""
        with self._lock:
            self._handles.remove(ds)
        ds.close()

    def close(self) -> None:
        with self._lock:
            for handle in self._handles:
                handle.close()
            self._handles.clear()

    def _dataset(self) -> Any:
        ds = self._handles[0] if self._shared and self._handles else getattr(self._local, "ds", None)
        if ds is None or ds.closed:
            ds = self._local.ds = open_dataset(self.path)
            with self._lock:
                self._handles.append(ds)
        return ds

    def _to_units(self, raw: npt.NDArray[Any]) -> Data:
        data = (np.abs(raw) if raw.dtype.kind == "c" else raw).astype(np.float32, copy=False)
        if not self._plain:
            data *= self._scale
            data += self._offset
        return data

    def _valid(self, ds: Any, raw: npt.NDArray[Any], where: RasterioWindow) -> Valid:
        nodata, masked = self._marks(ds)
        usable: list[Valid] = []
        if raw.dtype.kind == "c":
            usable += [np.isfinite(values) & ~saturated(values) for values in raw]
        # Most windows hold nothing invalid, and their extremes say so in half the time. NaN is an extreme of its own.
        low, high = (raw.min(), raw.max()) if raw.dtype.kind != "c" else (np.nan, np.nan)
        clean = bool(np.isfinite(low) and np.isfinite(high))
        if raw.dtype.kind == "f" and not clean:
            usable += [np.isfinite(values) for values in raw]
        for values, bad in zip(raw, nodata, strict=True):
            usable += [values != value for value in bad if not clean or low <= value <= high]
        usable += [ds.read_masks(index, window=where) != 0 for index in masked]
        if not usable:
            return np.ones(raw.shape[1:], bool)
        for mask in usable[1:]:
            usable[0] &= mask
        return usable[0]

    def _marks(self, ds: Any) -> tuple[list[tuple[Any, ...]], list[int]]:
        """Values that are invalid, band by band, and the bands to read a mask of. Asked once: it takes as long as a
        read does.
        """
        if self._known is None:
            kinds, nodata = ds.mask_flag_enums, ds.nodatavals
            masked = [index for index in self._indexes if MaskFlags.per_dataset in kinds[index - 1]]
            bad = [
                (*fill, *_nodata(nodata[index - 1], ds.dtypes[index - 1]))
                for index, fill in zip(self._indexes, self._fill, strict=True)
            ]
            self._known = bad, masked[:1]  # a mask of the data set is that of each of its bands
        return self._known


def _nodata(value: float | None, dtype: str) -> tuple[Any, ...]:
    """In the file's type: -3.4e38 is stored as another double than it is read back as. NaN is never finite anyway, and
    what the type cannot hold, such as -9999 in bytes, is no value of any pixel.
    """
    kind = np.dtype("complex64" if dtype == "complex_int16" else dtype)
    if value is None or np.isnan(value):
        return ()
    if kind.kind in "iu" and not (np.iinfo(kind).min <= value <= np.iinfo(kind).max and value == int(value)):
        return ()
    return (np.array(value).astype(kind),)
