"""Rasters that ground control points or rational polynomials place instead of a CRS: Sentinel-1 GRD and SLC, scanned
and drone images; satellite images before they are ortho-rectified.

Places are mapped by a thin-plate spline through all points (Bookstein 1989, IEEE TPAMI 11(6); GDAL's `-tps`): exact at
the points, smooth between them. It knows nothing of the terrain between them. Left out one by one, the points of the
two Sentinel-1 SLC in the open reader files are found again within 0.2 pixels (median; GDAL's polynomials: 0.7 to 15).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
import numpy.typing as npt
from rasterio._err import CPLE_BaseError  # rasterio.errors has no name for it
from rasterio.crs import CRS
from rasterio.errors import RasterioError
from rasterio.rpc import RPC
from rasterio.transform import RPCTransformer
from rasterio.warp import transform

from mmedge.errors import GeoreferenceError
from mmedge.grid import Grid, Window

Places = npt.NDArray[np.float64]

# A spline needs a solution of n equations: 2000 points take 0.1 s and 32 MB. Sentinel-1 has 210.
MIN_POINTS, MAX_POINTS = 3, 2000
LATTICE = 15  # places along each side of an image with rational polynomials, which are smooth


@dataclass(frozen=True, slots=True, kw_only=True)
class ControlPoints:
    """Where some places of a raster of `shape` lie: `row`, `col` in fractions of pixels (whole numbers are corners).

    `height_m`: that of all places, where rational polynomials place them.
    """

    shape: tuple[int, int]
    row: tuple[float, ...]
    col: tuple[float, ...]
    x: tuple[float, ...]
    y: tuple[float, ...]
    crs: str
    height_m: float | None = None

    def __str__(self) -> str:
        if self.height_m is None:
            return f"{len(self.row)} ground control points"
        return f"rational polynomials at {self.height_m:g} m above the ellipsoid everywhere"


def control_points(gcps: tuple[list[Any], Any], path: object, shape: tuple[int, int]) -> ControlPoints | None:
    """Those of a rasterio dataset; None where it has none, or none with a CRS. Raises GeoreferenceError."""
    points, crs = gcps
    if not points or not crs:
        return None
    if not MIN_POINTS <= len(points) <= MAX_POINTS:
        raise GeoreferenceError(
            f"`{path}` has {len(points)} ground control points, mmedge takes {MIN_POINTS} to {MAX_POINTS}",
            hint=f"gdalwarp -order 1 {path} out.tif",
        )
    row, col, x, y = zip(*((p.row, p.col, p.x, p.y) for p in points), strict=True)
    return ControlPoints(shape=shape, row=row, col=col, x=x, y=y, crs=CRS.from_user_input(crs).to_wkt())


def polynomial_points(rpcs: RPC | None, path: object, shape: tuple[int, int]) -> ControlPoints | None:
    """A lattice of places, where a dataset's rational polynomials (RPC00B) put them at their mean height; None: none.

    Raises GeoreferenceError.
    """
    if rpcs is None:
        return None
    row, col = (at.ravel() for at in np.meshgrid(*(np.linspace(0, n, LATTICE) for n in shape), indexing="ij"))
    try:
        with RPCTransformer(rpcs, rpc_height=rpcs.height_off, rpc_pixel_error_threshold=0.001) as places:
            x, y = (np.asarray(v, np.float64) for v in places.xy(row, col, offset="ul"))
    except (RasterioError, CPLE_BaseError):
        x = y = np.full(row.shape, np.inf)
    if not (np.isfinite(x) & np.isfinite(y) & (np.abs(y) <= 90)).all():
        raise GeoreferenceError(f"the rational polynomials of `{path}` place nothing", hint="gdalwarp -rpc IN OUT.tif")
    crs = CRS.from_epsg(4326).to_wkt()
    lines, pixels, longitudes, latitudes = (tuple(v.tolist()) for v in (row, col, x, y))
    height = float(rpcs.height_off)
    return ControlPoints(shape=shape, row=lines, col=pixels, x=longitudes, y=latitudes, crs=crs, height_m=height)


class ControlGrid:
    """A raster under control points, as `align` sees a grid: a CRS, a shape, and `rowcol`. Raises GeoreferenceError."""

    def __init__(self, points: ControlPoints) -> None:
        self.crs = points.crs
        self.rows, self.cols = points.shape
        self._geographic = CRS.from_wkt(points.crs).is_geographic
        x, y = np.array(points.x), np.array(points.y)
        self._middle = x[0]
        x = self._unwrapped(x)
        self._spline = _Spline(np.stack([x, y]), np.stack([points.row, points.col]))
        self.bounds = float(x.min()), float(y.min()), float(x.max()), float(y.max())

    @property
    def window(self) -> Window:
        """The whole raster."""
        return Window(0, 0, self.rows, self.cols)

    def rowcol(self, x: Places, y: Places) -> tuple[Places, Places]:
        """(row, col) of places, in fractions of a pixel; whole numbers are corners."""
        row, col = self._spline(np.stack([self._unwrapped(x), y]))
        return row, col

    def _unwrapped(self, x: Places) -> Places:
        """Longitudes without a jump at 180 degrees."""
        return (x - self._middle + 180) % 360 - 180 + self._middle if self._geographic else x


class _Spline:
    """A thin-plate spline from (2, n) places to (2, n) values."""

    def __init__(self, places: Places, values: Places) -> None:
        low, high = places.min(axis=1, keepdims=True), places.max(axis=1, keepdims=True)
        # One scale for both axes: a spline through stretched places is another spline.
        self._middle, self._size = (low + high) / 2, max((high - low).max(), np.finfo(float).tiny)
        self._nodes = (places - self._middle) / self._size
        n = places.shape[1]
        system = np.zeros((n + 3, n + 3))
        system[:n, :n] = _kernel(self._nodes, self._nodes)
        system[:n, n:] = np.column_stack([np.ones(n), *self._nodes])
        system[n:, :n] = system[:n, n:].T
        wanted = np.zeros((n + 3, 2))
        wanted[:n] = values.T
        self._weights = _solved(system, wanted)

    def __call__(self, places: Places) -> Places:
        flat = (places.reshape(2, -1) - self._middle) / self._size
        n = self._nodes.shape[1]
        found = _kernel(flat, self._nodes) @ self._weights[:n]
        found += np.column_stack([np.ones(flat.shape[1]), *flat]) @ self._weights[n:]
        return found.T.reshape(places.shape)


def _solved(system: Places, wanted: Places) -> Places:
    try:
        weights = np.linalg.solve(system, wanted)
    except np.linalg.LinAlgError:
        weights = np.full_like(wanted, np.nan)
    if not np.allclose(system @ weights, wanted, rtol=0, atol=0.01):
        raise GeoreferenceError(
            "the ground control points lie on one line or on one place", hint="gdalinfo FILE lists them"
        )
    return np.asarray(weights, np.float64)


def _kernel(a: Places, b: Places) -> Places:
    """r^2 log r between (2, n) and (2, m) places: (n, m)."""
    square: Places = ((a[:, :, None] - b[:, None, :]) ** 2).sum(axis=0)
    return np.asarray(square * np.log(np.where(square > 0, square, 1)) / 2)


@lru_cache(maxsize=8)
def control_grid(points: ControlPoints) -> ControlGrid:
    """The fitted spline, kept: it is asked for several times while a scene is opened."""
    return ControlGrid(points)


@lru_cache(maxsize=8)
def north_up(points: ControlPoints) -> Grid:
    """A grid in the UTM zone of the points' middle that covers them, with square pixels of the raster's mean size."""
    west, south, east, north = control_grid(points).bounds
    crs = _utm(*_lonlat(points.crs, (west + east) / 2, (south + north) / 2))
    edge = np.linspace(0, 1, 21)
    x = np.concatenate([west + edge * (east - west)] * 2 + [np.full(21, west), np.full(21, east)])
    y = np.concatenate([np.full(21, south), np.full(21, north)] + [south + edge * (north - south)] * 2)
    xs, ys = (np.array(v) for v in transform(points.crs, crs, x.tolist(), y.tolist())[:2])
    size = _pixel_m(points, crs)
    left, top = math.floor(xs.min() / size) * size, math.ceil(ys.max() / size) * size
    rows, cols = math.ceil((top - ys.min()) / size), math.ceil((xs.max() - left) / size)
    return Grid(rows, cols, (size, 0.0, left, 0.0, -size, top), crs.to_wkt())


def _lonlat(crs: str, x: float, y: float) -> tuple[float, float]:
    lon, lat = transform(CRS.from_wkt(crs), CRS.from_epsg(4326), [x], [y])[:2]
    return lon[0], lat[0]


def _utm(lon: float, lat: float) -> CRS:
    zone = int((lon + 180) % 360 // 6) + 1
    return CRS.from_epsg((32600 if lat >= 0 else 32700) + zone)


def _pixel_m(points: ControlPoints, crs: CRS) -> float:
    """Side of a square pixel with the mean area of the raster's pixels, two digits of it: 10.0 m for a Sentinel-1 GRD.

    The area is the determinant of the affine map that fits all points best.
    """
    xs, ys = transform(points.crs, crs, list(points.x), list(points.y))[:2]
    design = np.column_stack([np.ones(len(xs)), points.row, points.col])
    (_, a, b), (_, c, d) = np.linalg.lstsq(design, np.column_stack([xs, ys]), rcond=None)[0].T
    size = math.sqrt(abs(a * d - b * c))
    if not size > 0:
        raise GeoreferenceError("the ground control points span no area", hint="gdalinfo FILE lists them")
    return float(f"{size:.2g}")
