"""Where a grid lies on the Earth: its footprint in longitude and latitude, the size of its pixels in metres."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import numpy.typing as npt
from rasterio._err import CPLE_BaseError  # what an impossible transformation raises; rasterio.errors has no name for it
from rasterio.crs import CRS
from rasterio.errors import CRSError
from rasterio.warp import transform

from mmedge.errors import GeoreferenceError
from mmedge.grid import Grid

Ring = npt.NDArray[np.float64]  # (points, 2): longitude, latitude in degrees

SEGMENTS = 16  # per side of the footprint: within 1 m of the true edge of a 110 km UTM tile
DECIMALS = 7  # of a degree: 1 cm

# WGS 84
EQUATORIAL_RADIUS_M = 6378137.0
ECCENTRICITY2 = 0.00669437999014


# Where a projection keeps areas within this share its own area is given, as every GIS does; UTM is within 0.1 %.
AREA_TOLERANCE = 0.01


def pixel_size_m(grid: Grid) -> tuple[float, float]:
    """Ground length of a pixel's sides (along a row, along a column) in metres at the centre of the grid.

    Measured on the ellipsoid, so that it is right in degrees, in feet and in Mercator alike. Raises GeoreferenceError
    where the CRS has no place on the Earth.
    """
    along_row, along_col = _sides_m(grid, np.array([grid.rows / 2], np.float64))
    return float(np.hypot(*along_row[0])), float(np.hypot(*along_col[0]))


def pixel_area_m2(grid: Grid) -> npt.NDArray[np.float64]:
    """Area of a pixel of each row in square metres, (rows,): on the ellipsoid, at the middle of the row.

    Where the projection keeps areas it is the area in the projection, the same for all rows. Raises GeoreferenceError
    where the CRS has no place on the Earth.
    """
    crs = CRS.from_wkt(grid.crs)
    along_row, along_col = _sides_m(grid, np.arange(grid.rows, dtype=np.float64) + 0.5)
    ground = np.abs(along_row[:, 0] * along_col[:, 1] - along_row[:, 1] * along_col[:, 0])
    if crs.is_geographic:
        return ground
    a, b, _, d, e, _ = grid.transform
    plane = abs(a * e - b * d) * crs.linear_units_factor[1] ** 2
    return np.full_like(ground, plane) if np.allclose(ground, plane, rtol=AREA_TOLERANCE, atol=0) else ground


def gsd_m(grid: Grid) -> float:
    """Ground sampling distance at the centre of a grid in metres, the mean of both directions."""
    width, height = pixel_size_m(grid)
    return math.sqrt(width * height)


def footprint(grid: Grid) -> tuple[dict[str, Any], list[float]]:
    """GeoJSON geometry and bbox [west, south, east, north] of a grid, in longitude and latitude (RFC 7946).

    Edges are densified. A grid that crosses the antimeridian becomes a MultiPolygon cut there, its bbox has
    west > east; one that holds a pole reaches up to it. Raises GeoreferenceError where the CRS has no place on the
    Earth.
    """
    ring = _lonlat(grid, _edges(grid))
    ring[:, 0] = np.unwrap(ring[:, 0], period=360)
    if abs(ring[-1, 0] - ring[0, 0]) > 180:
        ring = _around_pole(ring)
    ring[:, 0] -= 360 * np.floor((ring[:, 0].min() + 180) / 360)
    parts = [ring] if ring[:, 0].max() <= 180 else [_cut(ring, east=False), _cut(ring, east=True) - (360, 0)]
    bbox = [parts[0][:, 0].min(), ring[:, 1].min(), parts[-1][:, 0].max(), ring[:, 1].max()]
    rings = [_closed(part) for part in parts]
    geometry: dict[str, Any] = (
        {"type": "Polygon", "coordinates": rings}
        if len(rings) == 1
        else {"type": "MultiPolygon", "coordinates": [[r] for r in rings]}
    )
    return geometry, [round(float(v), DECIMALS) for v in bbox]


def _sides_m(grid: Grid, rows: npt.NDArray[np.float64]) -> tuple[Ring, Ring]:
    """Sides of the pixel in the middle of each row (along it, along the column) as metres east and north, (rows, 2)."""
    col = grid.cols / 2
    steps = [(0, -0.5), (0, 0.5), (-0.5, 0), (0.5, 0)]
    a, b, c, d, e, f = grid.transform
    ends = [np.stack([a * (col + k) + b * (rows + r) + c, d * (col + k) + e * (rows + r) + f], 1) for r, k in steps]
    lonlat = _lonlat(grid, np.concatenate(ends)).reshape(4, len(rows), 2)
    phi = np.radians(lonlat[:, :, 1].mean(axis=0))
    w2 = 1 - ECCENTRICITY2 * np.sin(phi) ** 2
    per_radian = EQUATORIAL_RADIUS_M / np.sqrt(w2) * np.array([np.cos(phi), (1 - ECCENTRICITY2) / w2])
    sides = np.stack([lonlat[1] - lonlat[0], lonlat[3] - lonlat[2]])
    sides[..., 0] = (sides[..., 0] + 180) % 360 - 180
    along_row, along_col = np.radians(sides) * per_radian.T
    return along_row, along_col


def _lonlat(grid: Grid, xy: Ring) -> Ring:
    try:
        lon, lat = transform(CRS.from_wkt(grid.crs), CRS.from_epsg(4326), xy[:, 0], xy[:, 1])
    except (CRSError, CPLE_BaseError) as err:
        raise GeoreferenceError(
            f"the CRS has no place on the Earth: {err}", hint="gdal_edit.py -a_srs EPSG:..."
        ) from err
    found = np.stack([lon, lat], axis=1)
    if not np.isfinite(found).all():
        raise GeoreferenceError("the grid lies outside the area of its CRS", hint="gdalinfo SCENE")
    return found


def _edges(grid: Grid) -> Ring:
    """Points on the edge of a grid in its CRS, counter-clockwise for a north-up grid; the first one is the last too."""
    t = np.arange(SEGMENTS) / SEGMENTS
    down, across = t * grid.rows, t * grid.cols
    rows = np.concatenate([down, np.full(SEGMENTS, grid.rows), grid.rows - down, np.zeros(SEGMENTS), [0]])
    cols = np.concatenate([np.zeros(SEGMENTS), across, np.full(SEGMENTS, grid.cols), grid.cols - across, [0]])
    a, b, c, d, e, f = grid.transform
    return np.stack([a * cols + b * rows + c, d * cols + e * rows + f], axis=1)


def _around_pole(ring: Ring) -> Ring:
    """A ring that winds around a pole as a strip from -180 to 180 degrees which reaches that pole."""
    if ring[-1, 0] < ring[0, 0]:
        ring = ring[::-1]
    first = int(np.argmax(np.floor((ring[:, 0] + 180) / 360) > np.floor((ring[0, 0] + 180) / 360)))
    lon = np.concatenate([ring[first:, 0] - 360, ring[1:first, 0]])
    lat = np.concatenate([ring[first:, 1], ring[1:first, 1]])
    lon -= 360 * np.floor((lon[0] + 180) / 360)
    seam = np.interp(180, [lon[-1], lon[0] + 360], [lat[-1], lat[0]])
    pole = 90.0 if lat.mean() > 0 else -90.0
    return np.column_stack(
        [np.concatenate([[-180], lon, [180, 180, -180]]), np.concatenate([[seam], lat, [seam, pole, pole]])]
    )


def _cut(ring: Ring, *, east: bool) -> Ring:
    """The part of a ring on one side of 180 degrees (Sutherland-Hodgman)."""
    side = 1 if east else -1
    kept: list[tuple[float, float]] = []
    for (x0, y0), (x1, y1) in zip(np.roll(ring, 1, axis=0), ring, strict=True):
        if (x0 - 180) * (x1 - 180) < 0:
            kept.append((180.0, y0 + (180 - x0) / (x1 - x0) * (y1 - y0)))
        if (x1 - 180) * side >= 0:
            kept.append((x1, y1))
    return np.array(kept)


def _closed(ring: Ring) -> list[list[float]]:
    """Counter-clockwise, closed, rounded, without repeated points."""
    x, y = ring[:, 0], ring[:, 1]
    if np.sum(x * np.roll(y, -1) - np.roll(x, -1) * y) < 0:
        ring = ring[::-1]
    points = [[float(v) + 0.0 for v in np.round(point, DECIMALS)] for point in ring]
    distinct = [p for p, before in zip(points, [points[-1], *points[:-1]], strict=True) if p != before]
    kept = distinct if len(distinct) > 2 else points  # a grid smaller than the rounding
    return [*kept, kept[0]]
