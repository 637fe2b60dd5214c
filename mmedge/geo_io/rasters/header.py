"""Open a raster of an allowed format and read its header."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

from rasterio._err import CPLE_BaseError  # rasterio.errors has no name for it
from rasterio.enums import ColorInterp
from rasterio.env import ensure_env
from rasterio.errors import NotGeoreferencedWarning, RasterioError
from rasterio.io import DatasetReader

from mmedge.errors import SceneError
from mmedge.geo_io.bands import split_description
from mmedge.geo_io.crs import horizontal
from mmedge.geo_io.location import Location, RemoteFile, patiently, remote_settings, without_secrets
from mmedge.geo_io.rasters.file import RasterBand, RasterFile
from mmedge.geo_io.rasters.gcp import ControlPoints, control_points, polynomial_points
from mmedge.geo_io.rasters.limits import HEADER_TIMEOUT_S, REMOTE_HEADER_TIMEOUT_S, check_header, pixel_bytes, within
from mmedge.geo_io.rasters.spectral import BAD, band_wavelengths, reflectance_scale
from mmedge.geo_io.sar import amplitude_scale
from mmedge.grid import Grid

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

COLOURS = {ColorInterp.red: "B04", ColorInterp.green: "B03", ColorInterp.blue: "B02", ColorInterp.nir: "B08"}

# GDAL's block cache: its default is 5 % of the memory, on top of what we promise to use.
GDAL_CACHE_BYTES = 48 << 20
TILE_PX = 512


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
            block_px=max(side for shape in ds.block_shapes for side in shape),
            pixel_bytes=_pixel_bytes(ds),
            control=None if ds.crs else _control(ds, path),
        )


def _control(ds: Any, path: Location) -> ControlPoints | None:
    """What places a file without a CRS, if anything does."""
    try:
        rpcs = ds.rpcs
    except (KeyError, ValueError) as err:
        raise SceneError(
            f"`{path}` has damaged rational polynomials: {err}", hint="remove its RPC metadata, or copy it again"
        ) from None
    return control_points(ds.gcps, path, ds.shape) or polynomial_points(rpcs, path, ds.shape)


def _strip_bytes(ds: Any) -> tuple[int, ...]:
    """A file narrower than a usual tile is as good as tiled."""
    if ds.width <= TILE_PX or any(cols < ds.width or rows >= ds.height for rows, cols in ds.block_shapes):
        return ()
    return tuple(ds.width * size for size in _pixel_bytes(ds))


def _pixel_bytes(ds: Any) -> tuple[int, ...]:
    """What a pixel takes unpacked, band by band, or once where a block holds all bands."""
    each = tuple(pixel_bytes(dtype) for dtype in ds.dtypes)
    return (sum(each),) if ds.tags(ns="IMAGE_STRUCTURE").get("INTERLEAVE") == "PIXEL" else each


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
