"""LiDAR: LAS 1.0-1.4, LAZ, COPC and EPT point clouds as bands on a reference grid.

Bands are (bands, rows, cols) float32: `ground` (also `DEM`, `elevation`), `surface` and `ndsm` in metres, `intensity`
as the sensor counts it, `density` in points per square metre. docs/sensors/lidar.md says what each cell means.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from threading import Lock
from typing import Literal

import numpy as np
import numpy.typing as npt

from mmedge.errors import BandError, ReadError, UsageError
from mmedge.geo_io.acquired import parse_acquisition
from mmedge.geo_io.pointclouds.binning import Layer, PointRaster, cells_of, metres
from mmedge.geo_io.pointclouds.cloud import (
    PointCloud,
    cell_area_m2,
    check_overlap,
    grid_rect,
    project_rect,
    rect_in,
    spacing_m,
)
from mmedge.geo_io.pointclouds.ground_filter import MAX_FILL, GroundFilter, fill, filter_ground
from mmedge.geo_io.pointclouds.point_cloud import open_points
from mmedge.geo_io.source import SourceInfo
from mmedge.grid import Grid, Window
from mmedge.tile import Data, Lost, Valid

Ground = Literal["auto", "class", "filter"]
Band = tuple[npt.NDArray[np.float64], Valid]
Layers = dict[str, Layer]

ALIASES = {"DEM": "ground", "dem": "ground", "elevation": "ground", "DTM": "ground", "DSM": "surface", "CHM": "ndsm"}
UNITS = {"ground": "m", "surface": "m", "ndsm": "m", "intensity": "1", "density": "points/m2"}
BLOCK = 256  # cells; a COPC file is gridded block by block, as windows ask for them


class LidarSource:
    """Bands of one or more point clouds on `grid`. Fulfils `Source`.

    LAS and LAZ files are read once, at the first `read`, in bounded memory; COPC and EPT node by node, as far as
    windows ask. Gridding is exact: a window, a crop of the grid and another chunk size give the same bits.
    """

    def __init__(
        self,
        paths: Path | Sequence[Path],
        grid: Grid,
        *,
        bands: Sequence[str] = ("ground",),
        crs: str | None = None,
        z_unit_m: float | None = None,
        ground: Ground = "auto",
        ground_filter: GroundFilter | None = None,
        fill_cells: int = 0,
        swap_xy: bool = False,
        scratch: Path | None = None,
    ) -> None:
        """Open and check the files.

        bands          of `UNITS`, or an alias; `valid` is where all of them are known
        crs, z_unit_m  override the files' CRS and the metres of their vertical unit
        ground         "class": class 2; "filter": morphological filter; "auto": the class where points have it
        fill_cells     interpolate ground over holes from known cells at most this far away; 0: holes stay holes
        swap_xy        the files' x is northing or latitude
        scratch        folder for rasters over 256 MiB, by default the system's

        Raises SceneError (damaged file), GeoreferenceError (no CRS, axes swapped), BandError, UsageError.
        """
        self._names = tuple(_canonical(name) for name in bands)
        if not 0 <= fill_cells <= MAX_FILL:
            raise UsageError(f"fill_cells is 0 to {MAX_FILL}, got {fill_cells}", hint="give a smaller distance")
        files = [paths] if isinstance(paths, Path) else list(paths)
        if not files:
            raise UsageError("no point cloud was given", hint="give at least one file")
        self._clouds = [open_points(path, crs=crs, z_unit_m=z_unit_m, swap_xy=swap_xy) for path in files]
        missing = [warning for cloud in self._clouds for warning in check_overlap(cloud, grid)]
        self.grid, self._fill_cells = grid, fill_cells
        self._cell_m = _cell_m(grid, self._clouds[0])
        self._filter = self._choose_filter(ground, ground_filter or GroundFilter())
        self._halo = self._reach()
        margin = grid.crop(grid.window.grow(self._halo))
        self._raster = PointRaster(margin, _layers(self._names, self._filter is not None), scratch=scratch)
        self._done = np.zeros((-(-margin.rows // BLOCK), -(-margin.cols // BLOCK)), np.bool_)
        self._lock, self._failure = Lock(), ""
        self.info = self._facts(tuple(bands), missing)

    def read(self, window: Window) -> tuple[Data, Valid]:
        """See `Source.read`. Units are in `info`; data under False are 0. Raises ReadError."""
        window.within(self.grid.window)  # a window outside is a programmer's mistake: ValueError
        cut = Window(window.row, window.col, window.height + 2 * self._halo, window.width + 2 * self._halo)
        with self._lock:
            self._gather(cut)
            layers = self._raster.cut(cut)
        known = self._bands(layers, cut)
        inner = Window(0, 0, *window.shape).within(Window(-self._halo, -self._halo, *cut.shape))
        valid = np.logical_and.reduce([known[name][1][inner] for name in self._names])
        data = np.stack([np.where(valid, known[name][0][inner], 0.0) for name in self._names])
        return data.astype(np.float32), valid

    def look(self, window: Window) -> tuple[Data, Valid, Lost]:
        """See `Source.look`."""
        data, valid = self.read(window)
        return data, valid, {"void": ~valid}

    def close(self) -> None:
        """Release the raster. Files are open only while they are read."""
        with self._lock:
            self._raster.close()
            self._failure = "the source is closed"

    def __enter__(self) -> LidarSource:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _gather(self, cut: Window) -> None:
        """Make sure that the points of `cut` are binned. After a failure the raster is half full: it stays refused."""
        if self._failure:
            raise ReadError(self._failure, hint="open the source again")
        windowed = all(cloud.windowed for cloud in self._clouds)
        rows, cols = slice(None), slice(None)
        if windowed:
            rows = slice(cut.row // BLOCK, -(-(cut.row + cut.height) // BLOCK))
            cols = slice(cut.col // BLOCK, -(-(cut.col + cut.width) // BLOCK))
        wanted = np.zeros_like(self._done)
        wanted[rows, cols] = ~self._done[rows, cols]
        if not wanted.any():
            return
        try:
            for cloud in self._clouds:
                self._bin(cloud, wanted)
        except BaseException as err:
            self._failure = str(err) or f"reading was interrupted ({type(err).__name__})"
            raise
        self._done |= wanted

    def _bin(self, cloud: PointCloud, wanted: Valid) -> None:
        """Add a cloud's points that lie in the wanted blocks."""
        grid = self._raster.grid
        rect = project_rect(grid.crs, cloud.crs.wkt, _grown(grid_rect(grid.crop(_around(wanted)))))
        for points in cloud.points(grid.crs, rect):
            cells = cells_of(grid, points.x, points.y)
            use = cells >= 0
            use[use] = wanted[cells[use] // grid.cols // BLOCK, cells[use] % grid.cols // BLOCK]
            kinds = {"first": points.first[use], "ground": points.ground[use]}
            self._raster.add(cells[use], points.z[use], points.intensity[use], **kinds)

    def _bands(self, layers: Layers, cut: Window) -> dict[str, Band]:
        """Values and validity of the requested bands over `cut`, halo included."""
        found: dict[str, Band] = {}
        if {"ground", "ndsm"} & set(self._names):
            found["ground"] = self._ground(layers)
        if {"surface", "ndsm"} & set(self._names):
            found["surface"] = metres(layers["highest"].astype(np.float64)), layers["highest"] > 0
        if "ndsm" in self._names:
            (top, seen), (base, known) = found["surface"], found["ground"]
            found["ndsm"] = np.maximum(top - base, 0.0), seen & known
        if "intensity" in self._names:
            found["intensity"] = _mean(layers["intensity_sum"], layers["intensity_count"])
        if "density" in self._names:
            found["density"] = layers["count"] / self._areas(cut), layers["count"] > 0
        return found

    def _ground(self, layers: Layers) -> Band:
        if self._filter is None:
            level, known = _mean(layers["ground_sum"], layers["ground_count"])
            height = metres(level)
        else:
            seen = layers["lowest"] > 0
            height = metres((np.iinfo(np.uint32).max - layers["lowest"].astype(np.int64)).astype(np.float64))
            known = filter_ground(height, seen, self._cell_m, self._filter)
        return fill(height, known, self._fill_cells) if self._fill_cells else (height, known)

    def _areas(self, cut: Window) -> npt.NDArray[np.float64]:
        """Square metres of the cells of `cut`, as a column of its rows."""
        grid = self._raster.grid
        latitude = np.array([grid.xy(cut.row + row + 0.5, 0.5)[1] for row in range(cut.height)])
        return cell_area_m2(grid, latitude)[:, None]

    def _choose_filter(self, ground: Ground, settings: GroundFilter) -> GroundFilter | None:
        """None where ground is a class."""
        if ground == "class" or not {"ground", "ndsm"} & set(self._names):
            return None
        if ground == "auto" and any(cloud.has_ground() for cloud in self._clouds):
            return None
        return settings

    def _reach(self) -> int:
        if not {"ground", "ndsm"} & set(self._names):
            return 0
        return self._fill_cells + (self._filter.reach(self._cell_m) if self._filter else 0)

    def _facts(self, bands: tuple[str, ...], missing: list[str]) -> SourceInfo:
        notes = [note for cloud in self._clouds for note in cloud.crs.notes]
        if self._filter:
            notes.append(f"ground by a morphological filter (Zhang 2003), windows up to {self._filter.window_m:g} m")
        if self._halo and self._fill_cells:
            notes.append(f"ground interpolated over at most {self._fill_cells} cells, inverse distance squared")
        warnings = [warning for cloud in self._clouds for warning in cloud.warnings]
        dates = [date for cloud in self._clouds if (date := cloud.acquired())]
        units = tuple(UNITS[name] for name in self._names)
        return SourceInfo(
            files=tuple(file for cloud in self._clouds for file in cloud.files),
            bands=bands,
            unit=", ".join(dict.fromkeys(units)),
            units=units,
            gsd_m=max(spacing_m(cloud) for cloud in self._clouds),
            acquired=parse_acquisition(min(dates), source="first GPS time") if dates else None,
            assumptions=tuple(notes),
            warnings=(*warnings, *missing),
        )


def _canonical(name: str) -> str:
    found = ALIASES.get(name, name)
    if found not in UNITS:
        raise BandError(f"a point cloud has no band `{name}`", hint=f"bands are {', '.join((*UNITS, *ALIASES))}")
    return found


def _layers(names: tuple[str, ...], filtered: bool) -> frozenset[str]:
    """Accumulators that the bands need."""
    earth = {"lowest"} if filtered else {"ground_sum", "ground_count"}
    needs = {
        "ground": earth,
        "surface": {"highest"},
        "ndsm": earth | {"highest"},
        "intensity": {"intensity_sum", "intensity_count"},
        "density": {"count"},
    }
    return frozenset().union(*(needs[name] for name in names))


def _mean(total: Layer, count: Layer) -> Band:
    known: Valid = count > 0
    return np.divide(total, count, out=np.zeros(known.shape), where=known), known


def _cell_m(grid: Grid, cloud: PointCloud) -> float:
    """Side of a cell in metres. In degrees: at the cloud's middle, so that a crop of the grid has the same."""
    rect = rect_in(cloud, grid.crs) or grid_rect(grid)
    return math.sqrt(float(cell_area_m2(grid, np.array([(rect[1] + rect[3]) / 2]))[0]))


def _around(blocks: Valid) -> Window:
    """The window, in cells, around the blocks that are True."""
    rows, cols = np.flatnonzero(blocks.any(axis=1)), np.flatnonzero(blocks.any(axis=0))
    top, left = int(rows[0]) * BLOCK, int(cols[0]) * BLOCK
    return Window(top, left, (int(rows[-1]) + 1) * BLOCK - top, (int(cols[-1]) + 1) * BLOCK - left)


def _grown(rect: tuple[float, float, float, float]) -> tuple[float, float, float, float]:
    """One percent larger: transformed edges bulge."""
    x, y = (rect[2] - rect[0]) / 100, (rect[3] - rect[1]) / 100
    return rect[0] - x, rect[1] - y, rect[2] + x, rect[3] + y
