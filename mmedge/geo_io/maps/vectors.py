"""A map as polygons of its classes in a GeoPackage, in the map's own CRS.

The raster is traced as a whole, about 25 bytes a pixel: no polygon ends at a tile's border. Small patches are given to
their largest neighbour before that, as `gdal_sieve` does. The polygons are a coverage: neighbours share their edges
vertex by vertex, and edges are simplified once for both (Visvalingam-Whyatt), so that no gap and no overlap appears.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from math import ceil
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import rasterio
from rasterio.errors import RasterioError
from rasterio.features import shapes, sieve

from mmedge.errors import GeoreferenceError, OutputError, SceneError, UsageError
from mmedge.extras import need
from mmedge.files import part_of, refuse_unwritable, written_whole
from mmedge.geo_io.ground import gsd_m, pixel_area_m2
from mmedge.grid import Grid

CHUNK = 20_000  # polygons written at once
UInt8 = npt.NDArray[np.uint8]
Geometries = npt.NDArray[np.object_]


@dataclass(frozen=True, slots=True, kw_only=True)
class ClassMap:
    """A map in memory, a byte a pixel: `classes` (rows, cols), their names by value, the value of no class."""

    classes: UInt8
    names: Mapping[int, str]
    nodata: int
    grid: Grid


@dataclass(frozen=True, slots=True, kw_only=True)
class Polygons:
    """`geometries` (n,) in pixels, x = column, y = row; of each its class, its pixels and the row in their middle."""

    geometries: Geometries
    values: UInt8
    pixels: npt.NDArray[np.float64]
    rows: npt.NDArray[np.int64]


def read_map(path: Path) -> ClassMap:
    """A map of mmedge. Raises UsageError, SceneError where the file is missing, damaged or something else."""
    if not path.exists():
        raise UsageError(f"no such file: `{path}`", hint="mmedge infer SCENE makes a map")
    try:
        with rasterio.open(path) as dataset:
            tags = dataset.tags()
            names = {int(k[6:]): v for k, v in tags.items() if k.startswith("CLASS_") and k[6:].isdecimal()}
            if not names or dataset.nodata is None or dataset.dtypes != ("uint8",):
                raise SceneError(f"`{path}` is no map of mmedge: it names no classes", hint=f"mmedge infer {path}")
            if dataset.crs is None:
                raise GeoreferenceError(f"`{path}` has no CRS", hint=f"rio edit-info --crs EPSG:... {path}")
            a, b, c, d, e, f = tuple(dataset.transform)[:6]
            grid = Grid(dataset.height, dataset.width, (a, b, c, d, e, f), dataset.crs.to_wkt())
            return ClassMap(classes=dataset.read(1), names=names, nodata=int(dataset.nodata), grid=grid)
    except RasterioError as err:
        raise SceneError(f"cannot read `{path}`: {err}", hint=f"gdalinfo {path}") from err


def vectorize(
    path: str | Path,
    output: str | Path | None = None,
    *,
    min_area_ha: float = 0.0,
    simplify_m: float = 0.0,
    overwrite: bool = False,
) -> int:
    """Write the polygons of a map as `output` (default: `<map>.gpkg` in this folder); returns how many there are.

    Patches smaller than `min_area_ha` take the class of their largest neighbour; those without one are left out.
    `simplify_m` is the tolerance: corners are cut where the triangle that is lost has less than its square.
    Raises an MMEdgeError before any work starts where the output cannot be written.
    """
    source = Path(path)
    target = plan_polygons(source, output, overwrite=overwrite)
    pyogrio = need("pyogrio")
    found = read_map(source)
    least_px = _pixels(min_area_ha, found.grid) if min_area_ha else 1
    tolerance_px = simplify_m / gsd_m(found.grid) if simplify_m else 0.0
    polygons = trace(found, least_px=least_px, tolerance_px=tolerance_px)
    with _published(target) as part:
        _write(pyogrio, part, found, polygons)
    return len(polygons.values)


def plan_polygons(source: Path, output: str | Path | None, *, overwrite: bool) -> Path:
    """The file that would be written. OutputError where it cannot be."""
    target = Path(output) if output else Path(f"{source.stem}.gpkg")
    if target.suffix.lower() != ".gpkg":
        raise OutputError(f"polygons go to a GeoPackage, `{target.name}` is not one", hint=f"-o {target.stem}.gpkg")
    refuse_unwritable([target], overwrite=overwrite)
    return target


def trace(found: ClassMap, *, least_px: int = 1, tolerance_px: float = 0.0) -> Polygons:
    """The polygons of a map, a valid coverage. Pixels that touch at a corner alone are not of one polygon."""
    shapely = need("shapely")
    valid = found.classes != found.nodata
    classes = sieve(found.classes, least_px, mask=valid, connectivity=4) if least_px > 1 else found.classes
    rings = shapes(classes, mask=valid, connectivity=4)
    pairs = [(shapely.Polygon(shape["coordinates"][0], shape["coordinates"][1:]), value) for shape, value in rings]
    geometries = np.array([geometry for geometry, _ in pairs], dtype=object)
    values = np.array([value for _, value in pairs], np.uint8)
    large = shapely.area(geometries) >= least_px
    geometries = geometries[large]
    # GDAL leaves out the vertices at which only a neighbour turns: a vertex at each corner of a pixel brings them, and
    # simplification takes out again those that nobody needs.
    noded = shapely.transform(shapely.segmentize(geometries, 1.0), np.rint)
    return Polygons(
        geometries=shapely.coverage_simplify(noded, tolerance_px),
        values=values[large],
        pixels=shapely.area(geometries),
        rows=np.clip(shapely.get_y(shapely.centroid(geometries)).astype(np.int64), 0, found.grid.rows - 1),
    )


def _pixels(area_ha: float, grid: Grid) -> int:
    """The number of pixels, at the middle of the grid, that make an area at least."""
    return max(1, ceil(area_ha * 1e4 / float(pixel_area_m2(grid)[grid.rows // 2]) - 1e-6))


def _hectares(polygons: Polygons, grid: Grid) -> npt.NDArray[np.float64]:
    """Area of the pixels of polygons; NaN where the CRS has no place on the Earth."""
    try:
        area = pixel_area_m2(grid)
    except GeoreferenceError:
        return np.full(len(polygons.values), np.nan)
    return np.round(polygons.pixels * area[polygons.rows] / 1e4, 6)


def _write(pyogrio: Any, path: Path, found: ClassMap, polygons: Polygons) -> None:
    shapely = need("shapely")
    a, b, c, d, e, f = found.grid.transform
    names = np.array([found.names.get(int(value), "") for value in polygons.values], dtype=object)
    fields = [polygons.values.astype(np.int32), names, _hectares(polygons, found.grid)]
    for start in range(0, max(1, len(polygons.values)), CHUNK):
        part = slice(start, start + CHUNK)
        placed = shapely.transform(
            polygons.geometries[part],
            lambda xy: np.column_stack([a * xy[:, 0] + b * xy[:, 1] + c, d * xy[:, 0] + e * xy[:, 1] + f]),
        )
        pyogrio.raw.write(
            path,
            geometry=shapely.to_wkb(placed),
            field_data=[field[part] for field in fields],
            fields=["class", "name", "area_ha"],
            layer="classes",
            driver="GPKG",
            geometry_type="Polygon",
            crs=found.grid.crs,
            append=start > 0,
        )


@contextmanager
def _published(target: Path) -> Iterator[Path]:
    """The part that is written; it gets its final name where the block ends well. No time of writing is stored."""
    import pyogrio

    failures = (pyogrio.errors.DataSourceError, pyogrio.errors.DataLayerError, pyogrio.errors.FeatureError)
    kept = pyogrio.get_gdal_config_option("OGR_CURRENT_DATE")
    pyogrio.set_gdal_config_options({"OGR_CURRENT_DATE": "2000-01-01T00:00:00.000Z"})
    try:
        with warnings.catch_warnings(), written_whole(target, also=failures) as part:
            warnings.filterwarnings("ignore", ".*extension should be", RuntimeWarning)  # it is a part
            yield part
    finally:
        pyogrio.set_gdal_config_options({"OGR_CURRENT_DATE": kept})
        journal = part_of(target).with_name(f"{target.name}.part-journal")
        journal.unlink(missing_ok=True)
