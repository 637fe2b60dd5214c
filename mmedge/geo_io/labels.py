"""Reference classes: a raster of class values, or polygons and points with an attribute, brought to a scene's grid.

Vector files need the extra `vector`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from rasterio.crs import CRS
from rasterio.enums import Resampling
from rasterio.features import rasterize
from rasterio.transform import Affine
from rasterio.warp import reproject
from rasterio.warp import transform as transform_points

from mmedge.bundle import LandClass
from mmedge.errors import SceneError, UsageError
from mmedge.extras import need
from mmedge.geo_io.rasters.header import open_dataset
from mmedge.geo_io.vector_file import read_features
from mmedge.grid import Grid

Labels = npt.NDArray[np.int16]  # (rows, cols): index of the class, -1 = none
Value = int | str
RASTERS = (".tif", ".tiff", ".img", ".jp2")
NONE = -1
MAX_VALUE = 254  # maps are uint8 with nodata 255
# Colours for classes that bring none: Paul Tol's "muted" scheme, which colour-blind people can tell apart.
COLORS = ("CC6677", "332288", "DDCC77", "117733", "88CCEE", "882255", "44AA99", "999933", "AA4499", "DDDDDD")


@dataclass(frozen=True, slots=True, kw_only=True)
class LabelFile:
    """Where reference classes come from. `field`: the attribute of a vector file that holds the class."""

    path: Path
    field: str | None = None

    @property
    def vector(self) -> bool:
        return self.path.suffix.lower() not in RASTERS


@dataclass(frozen=True, slots=True)
class Unit:
    """One polygon or point of a vector file: its geometry (GeoJSON) in the grid's CRS, its class as stored."""

    geometry: Mapping[str, Any]
    value: Value


def legend_of(files: Sequence[LabelFile]) -> tuple[LandClass, ...]:
    """The classes that occur in some files. Names and colours are the raster's own (`CLASS_1=water`, colour table).

    Classes that a vector file names are numbered from 1, in alphabetical order. Raises UsageError where values do not
    fit a map (0..254).
    """
    names: dict[int, str] = {}
    colors: dict[int, tuple[int, int, int]] = {}
    words: set[str] = set()
    for file in files:
        for value in values_of(file):
            words |= {value} if isinstance(value, str) else set()
            names |= {} if isinstance(value, str) else {value: names.get(value, f"class {value}")}
        if not file.vector:
            with open_dataset(file.path) as src:
                tags = src.tags()
                palette = src.colormap(1) if src.colorinterp[0].name == "palette" else {}
            names |= {v: tags[f"CLASS_{v}"] for v in names if f"CLASS_{v}" in tags}
            colors |= {v: palette[v][:3] for v in names if v in palette}
    names |= dict(enumerate(sorted(words - set(names.values())), start=max([0, *names]) + 1))
    if not names or min(names) < 0 or max(names) > MAX_VALUE:
        raise UsageError(
            f"class values {sorted(names)[:3]}... do not fit a map, which holds 0 to {MAX_VALUE}"
            if names
            else f"no class in {', '.join(str(f.path) for f in files)}",
            hint="renumber the labels",
        )
    return tuple(
        LandClass(value, name, colors.get(value) or _color(i)) for i, (value, name) in enumerate(sorted(names.items()))
    )


def read_labels(file: LabelFile, grid: Grid, classes: Sequence[LandClass]) -> Labels:
    """Index of the class of each pixel of `grid` (rows, cols), -1 where there is none or one that is not listed.

    A finer raster gives its most frequent class, another one its nearest. Of polygons the pixels whose centres they
    hold are labelled; pixels in which points of several classes lie are not. Raises UsageError or SceneError.
    """
    return _rasterized(read_units(file, grid), grid, classes) if file.vector else _resampled(file, grid, classes)


def read_units(file: LabelFile, grid: Grid) -> list[Unit]:
    """Polygons and points of a vector file, in the CRS of `grid`."""
    shapely = need("shapely")
    found, values, crs = _read_vector(file)
    target = CRS.from_wkt(grid.crs)
    if crs != target:
        found = shapely.transform(found, lambda xy: np.column_stack(transform_points(crs, target, xy[:, 0], xy[:, 1])))
    units = [
        Unit(part.__geo_interface__, value)
        for geometry, value in zip(found, values, strict=True)
        if geometry is not None
        for part in shapely.get_parts(geometry)
        if part.geom_type in ("Point", "Polygon") and not part.is_empty
    ]
    if not units:
        raise UsageError(f"`{file.path}` holds neither polygons nor points", hint=f"ogrinfo -al -so {file.path}")
    return units


def index_of(value: Value, classes: Sequence[LandClass]) -> int:
    """Index of a class that is given by its value or its name; -1: not listed."""
    return next((i for i, c in enumerate(classes) if value in (c.value, c.name, str(c.value))), NONE)


def unit_pixels(units: Sequence[Unit], grid: Grid) -> npt.NDArray[np.int32]:
    """(rows, cols): number of the unit that holds the pixel, the last of several; -1 where there is none."""
    shapes = [(unit.geometry, i) for i, unit in enumerate(units)]
    drawn: npt.NDArray[np.int32] = rasterize(
        shapes, out_shape=grid.shape, transform=Affine(*grid.transform), fill=NONE, dtype="int32"
    )
    return drawn


def _rasterized(units: Sequence[Unit], grid: Grid, classes: Sequence[LandClass]) -> Labels:
    known = [(unit, index) for unit in units if (index := index_of(unit.value, classes)) != NONE]
    labels = np.full(grid.shape, NONE, np.int16)
    clash = np.zeros(grid.shape, bool)
    for index in sorted({index for _, index in known}):
        shapes = [unit.geometry for unit, i in known if i == index]
        mine = rasterize(shapes, out_shape=grid.shape, transform=Affine(*grid.transform), dtype="uint8") > 0
        clash |= mine & (labels != NONE)
        labels[mine] = index
    labels[clash] = NONE
    return labels


def _resampled(file: LabelFile, grid: Grid, classes: Sequence[LandClass]) -> Labels:
    with open_dataset(file.path) as src:
        if not src.crs:
            raise SceneError(f"`{file.path}` has no CRS", hint=f"rio edit-info --crs EPSG:... {file.path}")
        table = {c.value: i for i, c in enumerate(classes)}
        codes = src.read(1)
        index = np.full(codes.shape, NONE, np.int16)
        for value, i in table.items():
            index[codes == value] = i
        index[src.read_masks(1) == 0] = NONE
        crs, transform = src.crs, src.transform
    target = CRS.from_wkt(grid.crs)
    if crs == target and codes.shape == grid.shape and transform.almost_equals(Affine(*grid.transform), 1e-6):
        return index
    labels = np.full(grid.shape, NONE, np.int16)
    reproject(
        index,
        labels,
        src_transform=transform,
        src_crs=crs,
        dst_transform=Affine(*grid.transform),
        dst_crs=target,
        src_nodata=NONE,
        dst_nodata=NONE,
        resampling=Resampling.mode if _finer(transform, crs, grid, target) else Resampling.nearest,
    )
    return labels


def _finer(transform: Affine, crs: CRS, grid: Grid, target: CRS) -> bool:
    """Whether the labels' pixels are less than half as wide as the grid's. Unknown across CRSs of other units."""
    same_unit = crs.linear_units == target.linear_units and crs.is_geographic == target.is_geographic
    return bool(same_unit and 2 * abs(transform.a) < grid.pixel_size[0])


def values_of(file: LabelFile) -> list[Value]:
    """The classes that occur in a file, as stored: numbers or names."""
    if file.vector:
        return sorted(set(_read_vector(file)[1]), key=str)
    with open_dataset(file.path) as src:
        codes = src.read(1)
        found = np.unique(codes[src.read_masks(1) > 0])
    if (found != found.round()).any():
        raise UsageError(f"`{file.path}` holds {found[:3]}, no class values", hint="labels are whole numbers")
    return [int(v) for v in found]


def _read_vector(file: LabelFile) -> tuple[Any, list[Value], CRS]:
    """Geometries, the class of each, and their CRS."""
    features = read_features(file.path)
    fields = list(features.columns)
    field = file.field or (fields[0] if len(fields) == 1 else None)
    if field not in fields:
        what = f"has no attribute `{file.field}`" if file.field else "has several attributes"
        raise UsageError(f"`{file.path}` {what}: {', '.join(fields)}", hint="name the one that is the class")
    values: list[Value] = []
    for value in features.columns[field]:
        whole = isinstance(value, (int, float, np.integer, np.floating)) and float(value).is_integer()
        values.append(int(value) if whole else str(value))
    return features.geometries, values, features.crs


def _color(index: int) -> tuple[int, int, int]:
    red, green, blue = bytes.fromhex(COLORS[index % len(COLORS)])
    return red, green, blue
