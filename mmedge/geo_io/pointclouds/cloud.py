"""One point cloud file: its header, CRS and chunks, and its points on the coordinates of a grid."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import BinaryIO, Protocol

import numpy as np
import numpy.typing as npt
from rasterio._err import CPLE_BaseError
from rasterio.crs import CRS
from rasterio.errors import CRSError, RasterioError
from rasterio.warp import transform, transform_bounds

from mmedge.errors import GeoreferenceError
from mmedge.geo_io.pointclouds.copc import is_copc, read_octree
from mmedge.geo_io.pointclouds.las_chunks import Chunk, Points, first_gps_time, list_chunks, read_chunk
from mmedge.geo_io.pointclouds.las_crs import CloudCrs, cloud_crs
from mmedge.geo_io.pointclouds.las_header import LasHeader, read_header
from mmedge.grid import Grid

Rect = tuple[float, float, float, float]  # xmin, ymin, xmax, ymax

SAMPLE_POINTS = 200_000  # a file with fewer points is searched for ground points as a whole
SAMPLE_CHUNKS = 8
MAX_FAILURES = 1000
PROJ_ERRORS = (CRSError, RasterioError, CPLE_BaseError)
GPS_EPOCH = datetime(1980, 1, 6, tzinfo=timezone.utc)
EARTH_A_M, EARTH_E2 = 6_378_137.0, 0.00669437999014  # WGS 84


class PointCloud(Protocol):
    """A cloud that was opened: a file, or a folder of them. `rect` is where its points lie, in its CRS.

    `files` are what it is read from; `windowed`: `points` reads little more than the rectangle asked for.
    """

    @property
    def path(self) -> Path: ...
    @property
    def count(self) -> int: ...
    @property
    def crs(self) -> CloudCrs: ...
    @property
    def rect(self) -> Rect | None: ...
    @property
    def warnings(self) -> tuple[str, ...]: ...
    @property
    def windowed(self) -> bool: ...
    @property
    def files(self) -> tuple[Path, ...]: ...

    def points(self, crs: str, rect: Rect | None = None) -> Iterator[Points]:
        """Points in `rect` (in the cloud's CRS) that are no noise, part by part: x, y in `crs`, z in metres."""
        ...

    def has_ground(self) -> bool:
        """Whether points are classified as ground, by a sample of a large cloud."""
        ...

    def acquired(self) -> str | None:
        """ISO 8601 date of the first point; None where the cloud keeps none."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Cloud:
    """A file whose header was checked. Fulfils `PointCloud`.

    `rect` is where its points lie in the file's CRS, None where it has none: the header's bounds, or, where the first
    chunk proves them wrong, those of all points. `boxes` (n, 4) are the same per chunk, for COPC only.
    """

    header: LasHeader
    crs: CloudCrs
    chunks: list[Chunk]
    rect: Rect | None
    boxes: npt.NDArray[np.float64] | None
    swap_xy: bool
    warnings: tuple[str, ...]

    @property
    def path(self) -> Path:
        return self.header.path

    @property
    def count(self) -> int:
        return self.header.points

    @property
    def windowed(self) -> bool:
        return self.boxes is not None

    @property
    def files(self) -> tuple[Path, ...]:
        return (self.header.path,)

    def points(self, crs: str, rect: Rect | None = None) -> Iterator[Points]:
        """See `PointCloud.points`. Points that `crs` cannot show have infinite x and y."""
        with open(self.path, "rb") as file:
            for chunk in self._touching(rect):
                yield self._read(file, chunk, crs, rect)

    def _read(self, file: BinaryIO, chunk: Chunk, crs: str, rect: Rect | None) -> Points:
        points = read_chunk(self.header, file, chunk)
        x, y = (points.y, points.x) if self.swap_xy else (points.x, points.y)
        keep = ~points.noise
        if rect is not None:
            keep &= (x >= rect[0]) & (x <= rect[2]) & (y >= rect[1]) & (y <= rect[3])
        x, y = project(self.crs.wkt, crs, x[keep], y[keep])
        z = points.z[keep] * self.crs.z_unit_m
        flags = points.first[keep], points.ground[keep], points.noise[keep]
        return Points(x, y, z, points.intensity[keep], *flags)

    def _touching(self, rect: Rect | None) -> Iterator[Chunk]:
        """Chunks that may hold points of a rectangle in the file's CRS; all of them where there are no boxes."""
        if self.boxes is None or rect is None:
            yield from self.chunks
            return
        b = self.boxes
        hit = (b[:, 0] <= rect[2]) & (b[:, 2] >= rect[0]) & (b[:, 1] <= rect[3]) & (b[:, 3] >= rect[1])
        yield from (self.chunks[i] for i in np.flatnonzero(hit))

    def has_ground(self) -> bool:
        """See `PointCloud.has_ground`: all points of a small file, 8 spread chunks of a large one."""
        step = 1 if self.header.points <= SAMPLE_POINTS else -(-len(self.chunks) // SAMPLE_CHUNKS)
        with open(self.header.path, "rb") as file:
            return any(read_chunk(self.header, file, chunk).ground.any() for chunk in self.chunks[::step])

    def acquired(self) -> str | None:
        """See `PointCloud.acquired`: None also where the file keeps GPS seconds of a week."""
        seconds = first_gps_time(self.header, self.chunks[0]) if self.chunks else None
        if seconds is None or not 4e8 < seconds < 4e9:  # 1992 to 2106
            return None
        return (GPS_EPOCH + timedelta(seconds=seconds)).date().isoformat()


def open_cloud(path: Path, *, crs: str | None, z_unit_m: float | None, swap_xy: bool) -> Cloud:
    """Check a file and list its chunks; no handle stays open. Raises SceneError, GeoreferenceError."""
    header = read_header(path)
    found = cloud_crs(header, crs=crs, z_unit_m=z_unit_m)
    boxes: npt.NDArray[np.float64] | None = None
    if is_copc(header) and header.points:
        tree = read_octree(header)
        chunks, boxes = tree.chunks, tree.boxes[:, [1, 0, 3, 2]] if swap_xy else tree.boxes
    else:
        chunks = list_chunks(header)
    rect, wrong = _true_rect(header, chunks, swap_xy)
    cloud = Cloud(
        header=header,
        crs=found,
        chunks=chunks,
        rect=rect,
        boxes=boxes,
        swap_xy=swap_xy,
        warnings=(*header.warnings, *found.warnings, *wrong),
    )
    check_degrees(cloud)
    return cloud


def _true_rect(header: LasHeader, chunks: list[Chunk], swap_xy: bool) -> tuple[Rect | None, tuple[str, ...]]:
    """(rectangle of the points, warnings). All points are read only where the first chunk proves the header wrong."""
    if not chunks:
        return None, ()
    claimed = (header.bounds[0], header.bounds[1], header.bounds[3], header.bounds[4])
    slack = 2 * max(abs(header.scale[0]), abs(header.scale[1]))
    warnings: tuple[str, ...] = ()
    with open(header.path, "rb") as file:
        if not _holds(claimed, _rect_of(read_chunk(header, file, chunks[0])), slack):
            rects = np.array([_rect_of(read_chunk(header, file, chunk)) for chunk in chunks])
            low, high = rects[:, :2].min(axis=0).tolist(), rects[:, 2:].max(axis=0).tolist()
            claimed = (low[0], low[1], high[0], high[1])
            warnings = (f"{header.path.name}: the bounds in its header are wrong, its points lie elsewhere",)
    return (claimed[1], claimed[0], claimed[3], claimed[2]) if swap_xy else claimed, warnings


def _holds(outer: Rect, inner: Rect, slack: float) -> bool:
    """False also where `outer` is not finite."""
    sides = (inner[0] - outer[0], inner[1] - outer[1], outer[2] - inner[2], outer[3] - inner[3])
    return all(math.isfinite(side) and side >= -slack for side in sides)


def _rect_of(points: Points) -> Rect:
    return float(points.x.min()), float(points.y.min()), float(points.x.max()), float(points.y.max())


def project(
    source: str, target: str, x: npt.NDArray[np.float64], y: npt.NDArray[np.float64]
) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    """Coordinates (n,) of one CRS in another; inf where the target cannot show them. x is east in both."""
    if x.size == 0 or _same(source, target):
        return x, y
    out = np.full((2, x.size), np.inf)
    parts, failures = [slice(0, x.size)], 0
    while parts:  # one point that cannot be shown fails the whole call: halve until it is alone
        part = parts.pop()
        try:
            out[:, part] = transform(source, target, x[part], y[part])
        except PROJ_ERRORS as err:
            failures += 1
            if failures > MAX_FAILURES:
                what = f"points cannot be brought to the grid's CRS: {err}"
                raise GeoreferenceError(what, hint="say which crs the points are in") from err
            middle = (part.start + part.stop) // 2
            if middle > part.start:
                parts += [slice(part.start, middle), slice(middle, part.stop)]
    return out[0], out[1]


def _same(source: str, target: str) -> bool:
    return source == target or bool(CRS.from_wkt(source) == CRS.from_wkt(target))


def rect_in(cloud: PointCloud, crs: str) -> Rect | None:
    """The rectangle of the points in another CRS; None where there is none or it cannot be shown."""
    return None if cloud.rect is None else project_rect(cloud.crs.wkt, crs, cloud.rect)


def project_rect(source: str, target: str, rect: Rect) -> Rect | None:
    """A rectangle around a rectangle, in another CRS; None where some edge of it cannot be shown there."""
    if _same(source, target):
        return rect
    try:
        west, south, east, north = transform_bounds(source, target, *rect)
    except PROJ_ERRORS:
        return None
    found = (float(west), float(south), float(east), float(north))
    return found if all(map(math.isfinite, found)) and west <= east else None


def check_overlap(cloud: PointCloud, grid: Grid) -> tuple[str, ...]:
    """Warnings where the cloud misses the grid. Raises GeoreferenceError where it would not with x and y exchanged."""
    name = cloud.path.name
    if not cloud.count:
        return (f"{name}: holds no points",)
    rect = rect_in(cloud, grid.crs)
    if cloud.rect is None or rect is None:
        _check_reachable(cloud, grid)
        return (f"{name}: the grid's CRS cannot show where it lies",)
    if overlap(rect, grid_rect(grid)):
        return ()
    west, south, east, north = cloud.rect
    exchanged = project_rect(cloud.crs.wkt, grid.crs, (south, west, north, east))
    if exchanged and overlap(exchanged, grid_rect(grid)):
        raise GeoreferenceError(
            f"`{cloud.path}` lies on the grid only with x and y exchanged",
            hint="if its axes are swapped: swap_xy=True",
        )
    return (f"{name}: does not overlap the reference grid",)


def _check_reachable(cloud: PointCloud, grid: Grid) -> None:
    """Raise GeoreferenceError where no coordinate passes between the CRSs, such as those of two planets."""
    there = project_rect(grid.crs, cloud.crs.wkt, grid_rect(grid))
    if there is None and (cloud.rect is None or rect_in(cloud, grid.crs) is None):
        raise GeoreferenceError(
            f"`{cloud.path}`: no way from its CRS to the grid's",
            hint="say which crs the points are in, or grid on another",
        )


def overlap(a: Rect, b: Rect) -> bool:
    return a[0] <= b[2] and b[0] <= a[2] and a[1] <= b[3] and b[1] <= a[3]


def grid_rect(grid: Grid) -> Rect:
    """The rectangle around a grid, in its CRS."""
    corners = [grid.xy(row, col) for row in (0, grid.rows) for col in (0, grid.cols)]
    xs, ys = zip(*corners, strict=True)
    return min(xs), min(ys), max(xs), max(ys)


def cell_area_m2(grid: Grid, latitude: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Square metres of a cell: from the CRS's unit, or, where it counts in degrees, on the ellipsoid at `latitude`."""
    a, b, _, d, e, _ = grid.transform
    crs = CRS.from_wkt(grid.crs)
    if not (crs.is_projected or crs.is_geographic):
        raise GeoreferenceError("the grid's CRS has no map plane to grid points on", hint="give a projected grid")
    area = np.full(latitude.shape, abs(a * e - b * d))
    if crs.is_projected:
        return area * float(crs.linear_units_factor[1]) ** 2
    phi = np.radians(latitude)
    n = EARTH_A_M / np.sqrt(1 - EARTH_E2 * np.sin(phi) ** 2)
    m = n * (1 - EARTH_E2) / (1 - EARTH_E2 * np.sin(phi) ** 2)
    metric: npt.NDArray[np.float64] = area * np.radians(1.0) ** 2 * n * m * np.cos(phi)
    return metric


def spacing_m(cloud: PointCloud) -> float:
    """Mean distance of the points; 0 where there are fewer than two."""
    rect = cloud.rect
    if rect is None:
        return 0.0
    unit = Grid(1, 1, (1.0, 0.0, 0.0, 0.0, 1.0, 0.0), cloud.crs.wkt)
    area = float(cell_area_m2(unit, np.array([(rect[1] + rect[3]) / 2]))[0]) * (rect[2] - rect[0]) * (rect[3] - rect[1])
    return math.sqrt(max(0.0, area) / cloud.count)


def check_degrees(cloud: PointCloud) -> None:
    if cloud.crs.geographic and (rect := cloud.rect) and (rect[1] < -90.001 or rect[3] > 90.001):
        raise GeoreferenceError(
            f"`{cloud.path}` has latitudes {rect[1]:.3f} to {rect[3]:.3f}: swapped axes or a wrong CRS",
            hint="give swap_xy=True, or the right crs",
        )
