"""The area of interest: polygons of a file in any CRS, brought to the grid of a map.

GeoJSON is read with the standard library, everything else (GeoPackage, Shapefile, ...) needs the extra `vector`.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from rasterio.crs import CRS
from rasterio.errors import CRSError
from rasterio.features import geometry_mask
from rasterio.transform import Affine
from rasterio.warp import transform as transform_points

from mmedge.errors import SceneError, UsageError
from mmedge.extras import need
from mmedge.geo_io.vector_file import read_features
from mmedge.grid import Grid, Window

Geometry = dict[str, Any]  # a GeoJSON Polygon in the grid's CRS, with its `bbox`
Polygon = list[npt.NDArray[np.float64]]  # rings of (points, 2): x, y

CRS84 = "OGC:CRS84"
# Vertices are rounded to 1/4096 pixel, so that a mask does not depend on the window in which it is drawn.
VERTEX_STEPS = 4096


def read_aoi(path: str | Path, grid: Grid) -> list[Geometry]:
    """The polygons of a file as GeoJSON geometries in the CRS of `grid`; what is no polygon is left out.

    GeoJSON is in longitude and latitude unless it has a legacy `crs` member. Vertices are transformed, edges stay
    straight. Raises UsageError for a file that is missing or holds no polygons, SceneError where none of them touches
    the scene.
    """
    path = Path(path)
    if not path.exists():
        raise UsageError(f"no such file: `{path}`", hint="--aoi FILE takes GeoJSON, GeoPackage or Shapefile")
    geojson = path.suffix.lower() in (".json", ".geojson")
    polygons, crs = _read_geojson(path) if geojson else _read_vector(path)
    if not polygons:
        raise UsageError(f"`{path}` holds no polygons", hint="--aoi FILE takes polygons, --bbox a rectangle")
    geometries = [_geometry(_transformed(polygon, crs, grid, path)) for polygon in polygons]
    if not any(_touches(geometry, grid, grid.window) for geometry in geometries):
        raise SceneError(
            f"no polygon of `{path}` touches the scene", hint=f"mmedge info SCENE; its extent is {_extent(grid)}"
        )
    return geometries


def aoi_mask(geometries: Sequence[Geometry], grid: Grid, window: Window) -> npt.NDArray[np.bool_]:
    """(h, w) bool: True where the centre of a pixel of `window` lies in one of the geometries.

    The mask of a window is the same, pixel by pixel, in whatever windows the grid is cut.
    """
    near = [geometry for geometry in geometries if _touches(geometry, grid, window)]
    if window.empty or not near:
        return np.zeros((max(window.height, 0), max(window.width, 0)), np.bool_)
    shapes = [{"type": "Polygon", "coordinates": _pixel_rings(geometry, grid)} for geometry in near]
    shifted = Affine.translation(window.col, window.row)
    mask: npt.NDArray[np.bool_] = geometry_mask(shapes, out_shape=window.shape, transform=shifted, invert=True)
    return mask


def aoi_window(geometries: Sequence[Geometry], grid: Grid) -> Window:
    """The smallest window of the grid that holds every pixel which the geometries touch."""
    boxes = np.array([_pixel_box(geometry, grid) for geometry in geometries])
    left, top = np.floor(boxes[:, :2].min(axis=0)).astype(int)
    right, bottom = np.ceil(boxes[:, 2:].max(axis=0)).astype(int)
    return Window(int(top), int(left), int(bottom - top), int(right - left)).intersect(grid.window)


def _read_geojson(path: Path) -> tuple[list[Polygon], CRS]:
    try:
        document = json.loads(path.read_text(encoding="utf-8-sig"))
        crs = _geojson_crs(document)
        polygons = [_polygon(rings) for rings in _polygon_rings(document)]
    except (OSError, UnicodeDecodeError) as err:
        raise UsageError(
            f"cannot read `{path}`: {err}", hint="--aoi FILE takes GeoJSON, GeoPackage or Shapefile"
        ) from err
    except (ValueError, TypeError, KeyError, AttributeError, CRSError) as err:
        raise UsageError(f"`{path}` is not GeoJSON: {err}", hint=f"ogr2ogr aoi.geojson {path}") from err
    return polygons, crs


def _geojson_crs(document: dict[str, Any]) -> CRS:
    """CRS84 (RFC 7946), or what the `crs` member of the older specification names."""
    member = document.get("crs")
    return CRS.from_string(member["properties"]["name"] if member else CRS84)


def _polygon_rings(node: dict[str, Any] | None) -> Iterator[list[Any]]:
    """Coordinates of every polygon in a GeoJSON object."""
    if node is None:
        return
    kind = node["type"]
    if kind == "Polygon":
        yield node["coordinates"]
    elif kind == "MultiPolygon":
        yield from node["coordinates"]
    elif kind == "Feature":
        yield from _polygon_rings(node["geometry"])
    else:
        for child in node.get("features", node.get("geometries", ())):
            yield from _polygon_rings(child)


def _polygon(rings: list[Any]) -> Polygon:
    polygon = [np.array([point[:2] for point in ring], np.float64) for ring in rings]
    if not polygon or any(ring.ndim != 2 or len(ring) < 4 or not np.isfinite(ring).all() for ring in polygon):
        raise ValueError("a ring has at least four points of two numbers")
    return polygon


def _read_vector(path: Path) -> tuple[list[Polygon], CRS]:
    shapely = need("shapely")
    features = read_features(path, attributes=False)
    parts = shapely.get_parts(shapely.get_parts(features.geometries))  # a collection may hold multipolygons
    polygons = [p for p in parts if p is not None and p.geom_type == "Polygon" and not p.is_empty]
    rings = [[np.array(ring.coords)[:, :2] for ring in (p.exterior, *p.interiors)] for p in polygons]
    return rings, features.crs


def _transformed(polygon: Polygon, crs: CRS, grid: Grid, path: Path) -> Polygon:
    if crs.is_geographic and any((np.abs(ring) > (540, 90 + 1e-9)).any() for ring in polygon):
        raise UsageError(
            f"coordinates of `{path}` are no longitudes and latitudes",
            hint=f"ogr2ogr -t_srs EPSG:4326 aoi.geojson {path}",
        )
    target = CRS.from_wkt(grid.crs)
    if crs == target:
        return polygon
    moved = [np.column_stack(transform_points(crs, target, ring[:, 0], ring[:, 1])) for ring in polygon]
    if not all(np.isfinite(ring).all() for ring in moved):
        raise SceneError(f"`{path}` reaches outside the area of the scene's CRS", hint="cut the polygons to the scene")
    return moved


def _geometry(polygon: Polygon) -> Geometry:
    low, high = polygon[0].min(axis=0), polygon[0].max(axis=0)
    return {
        "type": "Polygon",
        "coordinates": [[(float(x), float(y)) for x, y in ring] for ring in polygon],
        "bbox": [float(v) for v in (*low, *high)],
    }


def _pixel_rings(geometry: Geometry, grid: Grid) -> list[list[tuple[float, float]]]:
    """Rings in (col, row) of the grid."""
    rings = [np.round(_pixels(ring, grid) * VERTEX_STEPS) / VERTEX_STEPS for ring in geometry["coordinates"]]
    return [[(float(x), float(y)) for x, y in ring] for ring in rings]


def _pixels(points: Sequence[tuple[float, float]], grid: Grid) -> npt.NDArray[np.float64]:
    """(points, 2): col and row of coordinates in the CRS."""
    a, b, c, d, e, f, *_ = ~Affine(*grid.transform)
    found: npt.NDArray[np.float64] = np.array(points, np.float64) @ np.array([[a, d], [b, e]]) + np.array([c, f])
    return found


def _pixel_box(geometry: Geometry, grid: Grid) -> tuple[float, float, float, float]:
    """Left, top, right, bottom in pixels; on a rotated grid that of the box's corners, which is larger."""
    west, south, east, north = geometry["bbox"]
    corners = _pixels([(west, south), (west, north), (east, south), (east, north)], grid)
    (left, top), (right, bottom) = corners.min(axis=0), corners.max(axis=0)
    return float(left), float(top), float(right), float(bottom)


def _touches(geometry: Geometry, grid: Grid, window: Window) -> bool:
    left, top, right, bottom = _pixel_box(geometry, grid)
    across = left < window.col + window.width and right > window.col
    return across and top < window.row + window.height and bottom > window.row


def _extent(grid: Grid) -> str:
    corners = np.array([grid.xy(row, col) for row in (0, grid.rows) for col in (0, grid.cols)])
    return ",".join(f"{v:.6g}" for v in (*corners.min(axis=0), *corners.max(axis=0)))
