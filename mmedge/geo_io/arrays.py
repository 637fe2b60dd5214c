"""Scenes that are in memory already: numpy arrays with an affine and a CRS, or xarray objects."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from rasterio.crs import CRS
from rasterio.transform import Affine

from mmedge.errors import BandError, GeoreferenceError, UsageError
from mmedge.geo_io.bands import band_name, sensor_name, split_description
from mmedge.geo_io.ground import gsd_m
from mmedge.geo_io.optical import check_reflectance
from mmedge.geo_io.sar import check_backscatter
from mmedge.geo_io.scene import Scene
from mmedge.geo_io.source import SourceInfo
from mmedge.grid import Grid, Window
from mmedge.modality import Modality
from mmedge.tile import Data, Lost, Valid


class ArraySource:
    """Bands of one sensor in memory. Fulfils `Source`."""

    def __init__(self, data: Data, valid: Valid, info: SourceInfo) -> None:
        self._data, self._valid, self.info = data, valid, info

    def read(self, window: Window) -> tuple[Data, Valid]:
        rows, cols = window.within(Window(0, 0, *self._valid.shape))
        return self._data[:, rows, cols], self._valid[rows, cols]

    def look(self, window: Window) -> tuple[Data, Valid, Lost]:
        data, valid = self.read(window)
        return data, valid, {"nodata": ~valid}

    def close(self) -> None:
        return None


@dataclass(frozen=True, slots=True, kw_only=True)
class SensorArray:
    """What one sensor saw: `data` (bands, rows, cols) in model units, `bands` their names, `valid` (rows, cols).

    Model units: reflectance 0..1, backscatter in dB, metres. Pixels that are not finite are invalid in any case.
    """

    data: npt.ArrayLike
    bands: Sequence[str]
    valid: npt.ArrayLike | None = None


def scene_from_arrays(
    arrays: Mapping[str, SensorArray],
    modalities: Sequence[Modality],
    *,
    transform: Affine,
    crs: Any,
    name: str = "scene",
) -> Scene:
    """A scene of arrays that lie on one grid: `transform` and `crs` (anything that rasterio takes) place it.

    Bands are matched by name to what `modalities` want. Raises BandError, UnitError, UsageError or GeoreferenceError.
    """
    given = {sensor_name(sensor): array for sensor, array in arrays.items()}
    if crs is None:
        raise GeoreferenceError("the arrays have no CRS", hint="give one, e.g. crs='EPSG:32718'")
    shapes = {sensor: np.shape(array.data)[1:] for sensor, array in given.items()}
    if len(set(shapes.values())) != 1 or len(next(iter(shapes.values()))) != 2:
        raise UsageError(f"arrays are (bands, rows, cols) of one shape, got {shapes}", hint="resample them to one grid")
    rows, cols = next(iter(shapes.values()))
    grid = Grid(rows, cols, tuple(transform)[:6], CRS.from_user_input(crs).to_wkt())
    sources, warnings = {}, []
    for modality in modalities:
        if modality.name in given:
            source = _source(modality, given[modality.name], grid)
            sources[modality.name] = source
            warnings += _check(modality, source, grid)
    if not sources:
        raise BandError(f"none of {', '.join(given)} is a sensor of the model", hint="mmedge info mamol-terra")
    return Scene(name=name, grid=grid, sources=sources, warnings=warnings)


def _source(modality: Modality, array: SensorArray, grid: Grid) -> ArraySource:
    names = [band_name(band) for band in array.bands]
    data = np.asarray(array.data, np.float32)
    if len(names) != len(data):
        raise UsageError(f"`{modality.name}` has {len(data)} bands and {len(names)} names", hint="name every band")
    missing = [band for band in modality.bands if band_name(band) not in names]
    if missing:
        raise BandError(
            f"`{modality.name}` lacks {', '.join(missing)}: the model wants {', '.join(modality.bands)}, "
            f"found {', '.join(names)}",
            hint="name the bands as the model does, or leave the sensor out",
        )
    data = data[[names.index(band_name(band)) for band in modality.bands]]
    valid: Valid = np.asarray(np.isfinite(data).all(axis=0))
    if array.valid is not None:
        valid = valid & np.asarray(array.valid, bool)
    info = SourceInfo(files=(), bands=modality.bands, unit=modality.unit, gsd_m=gsd_m(grid))
    return ArraySource(data, valid, info)


def _check(modality: Modality, source: ArraySource, grid: Grid) -> list[str]:
    data, valid = source.read(grid.window)
    check = {"reflectance": check_reflectance, "dB": check_backscatter}.get(modality.unit)
    return check(data[:, valid][:, ::97], modality.name) if check else []


def arrays_from_xarray(thing: Any) -> tuple[dict[str, SensorArray], Affine, str]:
    """Sensor arrays, affine and CRS (WKT) of an xarray Dataset whose variables are bands, or of a mapping of
    DataArrays (band, y, x), one a sensor. The CRS comes from `spatial_ref`, as rioxarray and odc write it.
    """
    if hasattr(thing, "data_vars"):
        arrays = _by_sensor(thing)
        first = thing
    else:
        arrays = {sensor: _sensor_array(array) for sensor, array in thing.items()}
        first = next(iter(thing.values()))
    return arrays, _affine(first), _crs(first)


def _by_sensor(dataset: Any) -> dict[str, SensorArray]:
    bands: dict[str, dict[str, Any]] = {}
    for name, variable in dataset.data_vars.items():
        sensor, band = split_description(str(name))
        if sensor and band and set(variable.dims) == set(_dims(dataset)):
            bands.setdefault(sensor, {})[band] = variable.transpose(*_dims(dataset)).values
    if not bands:
        raise BandError(
            f"no variable is a band: {', '.join(map(str, dataset.data_vars))}", hint="name them B02, VV, DEM"
        )
    return {s: SensorArray(data=np.stack(list(found.values())), bands=list(found)) for s, found in bands.items()}


def _sensor_array(array: Any) -> SensorArray:
    rows, cols = _dims(array)
    band = next((str(d) for d in array.dims if d not in (rows, cols)), None)
    if band is None:
        return SensorArray(data=array.transpose(rows, cols).values[None], bands=[str(array.name)])
    return SensorArray(data=array.transpose(band, rows, cols).values, bands=[str(b) for b in array[band].values])


def _dims(thing: Any) -> tuple[str, str]:
    for rows, cols in (("y", "x"), ("latitude", "longitude"), ("lat", "lon")):
        if rows in thing.dims and cols in thing.dims:
            return rows, cols
    raise UsageError(f"no spatial dimensions among {tuple(thing.dims)}", hint="call them y and x")


def _affine(thing: Any) -> Affine:
    rows, cols = (np.asarray(thing[d].values, float) for d in _dims(thing))
    if len(rows) < 2 or len(cols) < 2:
        raise GeoreferenceError("a single row or column has no pixel size", hint="give arrays with a transform")
    dx, dy = (cols[-1] - cols[0]) / (len(cols) - 1), (rows[-1] - rows[0]) / (len(rows) - 1)
    if not (np.allclose(np.diff(cols), dx, rtol=1e-3) and np.allclose(np.diff(rows), dy, rtol=1e-3)):
        raise GeoreferenceError("the coordinates are not evenly spaced", hint="resample to a regular grid")
    return Affine(dx, 0, cols[0] - dx / 2, 0, dy, rows[0] - dy / 2)


def _crs(thing: Any) -> str:
    attributes = thing.coords["spatial_ref"].attrs if "spatial_ref" in thing.coords else thing.attrs
    crs = attributes.get("crs_wkt") or attributes.get("spatial_ref") or attributes.get("crs")
    if not crs:
        raise GeoreferenceError("the object has no CRS", hint="rioxarray: thing.rio.write_crs('EPSG:32718')")
    return str(CRS.from_user_input(crs).to_wkt())
