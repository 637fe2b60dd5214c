"""A point cloud of any kind: a LAS, LAZ or COPC file, or the folder of an EPT data set; and a grid over it."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path

from rasterio.crs import CRS

from mmedge.errors import GeoreferenceError
from mmedge.geo_io.pointclouds.binning import EDGE
from mmedge.geo_io.pointclouds.cloud import PointCloud, check_degrees, open_cloud, rect_in
from mmedge.geo_io.pointclouds.ept import NAME, open_ept
from mmedge.grid import Grid

SUFFIXES = (".las", ".laz")


def cloud_path(path: Path) -> Path | None:
    """The file that is opened where `path` is a point cloud: itself, or the `ept.json` in it; None where it is none."""
    if path.suffix.lower() in SUFFIXES or path.name == NAME:
        return path
    return path / NAME if (path / NAME).is_file() else None


def cloud_name(path: Path) -> str:
    """What a scene of a cloud is called: the file's stem, or the folder of an `ept.json`."""
    return path.resolve().parent.name if path.name == NAME else path.stem


def open_points(
    path: Path, *, crs: str | None = None, z_unit_m: float | None = None, swap_xy: bool = False
) -> PointCloud:
    """Check a cloud without reading its points. Raises SceneError, GeoreferenceError."""
    if path.name != NAME:
        return open_cloud(path, crs=crs, z_unit_m=z_unit_m, swap_xy=swap_xy)
    cloud = open_ept(path, crs=crs, z_unit_m=z_unit_m, swap_xy=swap_xy)
    check_degrees(cloud)
    return cloud


def cloud_grid(
    paths: Path | Sequence[Path], gsd_m: float, *, crs: str | None = None, to_crs: str | None = None
) -> Grid:
    """The north-up grid that covers the clouds, its edges at multiples of `gsd_m`.

    `to_crs` is the grid's CRS, by default the first cloud's. Raises GeoreferenceError where that one counts in degrees
    or where there are no points.
    """
    if not gsd_m > 0:
        raise ValueError(f"gsd_m must be > 0, got {gsd_m}")
    files = [paths] if isinstance(paths, Path) else list(paths)
    clouds = [open_points(path, crs=crs) for path in files]
    target = CRS.from_user_input(to_crs or clouds[0].crs.wkt)
    if not target.is_projected:
        raise GeoreferenceError(
            f"`{files[0]}` is in degrees: {gsd_m:g} m cells need a projected CRS",
            hint="give a sensor on a grid in metres beside it, as `--source sar=s1.tif`; in Python to_crs='EPSG:32633'",
        )
    rects = [rect for cloud in clouds if (rect := rect_in(cloud, target.to_wkt()))]
    if not rects:
        raise GeoreferenceError(f"`{files[0]}` holds no points", hint="give a grid")
    step = gsd_m / float(target.linear_units_factor[1])
    west, south, east, north = (pick(r[i] for r in rects) / step for i, pick in enumerate((min, min, max, max)))
    west, east = math.floor(west), math.floor(east + EDGE) + 1  # a cell owns its west and north edges, see cells_of
    south, north = math.ceil(south - EDGE) - 1, math.ceil(north)
    return Grid(north - south, east - west, (step, 0.0, west * step, 0.0, -step, north * step), target.to_wkt())
