"""Points binned into the cells of a grid: sums and extremes that do not depend on the order of the points.

Heights are kept as integers of 0.1 mm, so that a sum is exact and neither chunk size nor window can change a bit.
Every layer starts at 0 = "nothing here": a raster on disk is a sparse file, and untouched cells cost no memory.
"""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from mmedge.errors import SceneError
from mmedge.grid import Grid, Window

QUANTUM_M = 1e-4
FLOOR_M, CEILING_M = -100_000.0, 300_000.0  # heights outside are no heights; layers hold (z - FLOOR_M) / QUANTUM_M
MEMORY_BYTES = 256 << 20  # a larger raster goes to a sparse temporary file
MAX_CELLS = 1 << 34
EDGE = 1e-6  # of a cell: a point on a cell's border falls on the same side whatever grid the cell is counted from

Layer = npt.NDArray[np.integer[Any]]

LAYERS: dict[str, np.dtype[Any]] = {
    "ground_sum": np.dtype(np.int64),
    "ground_count": np.dtype(np.uint32),
    "lowest": np.dtype(np.uint32),
    "highest": np.dtype(np.uint32),
    "intensity_sum": np.dtype(np.int64),
    "intensity_count": np.dtype(np.uint32),
    "count": np.dtype(np.uint32),
}


class PointRaster:
    """Accumulator layers, (rows, cols) each, of `grid`. Not thread-safe: its owner holds a lock while it adds."""

    def __init__(self, grid: Grid, layers: frozenset[str], *, scratch: Path | None = None) -> None:
        """Raises SceneError where the grid is too large, or where it does not fit the scratch folder."""
        cells = grid.rows * grid.cols
        if cells > MAX_CELLS:
            raise SceneError(
                f"a grid of {grid.rows} x {grid.cols} cells is too large for points", hint="use a larger GSD"
            )
        self.grid = grid
        size = cells * sum(LAYERS[name].itemsize for name in layers)
        self.on_disk = size > MEMORY_BYTES
        if self.on_disk:
            _check_space(size, scratch)
        self._layers = {name: self._allocate(LAYERS[name], scratch) for name in sorted(layers)}

    def add(
        self,
        cells: npt.NDArray[np.int64],
        height_m: npt.NDArray[np.float64],
        intensity: npt.NDArray[np.uint16],
        *,
        first: npt.NDArray[np.bool_],
        ground: npt.NDArray[np.bool_],
    ) -> None:
        """Add points, all (n,): flat cell numbers, heights in metres, what they are."""
        usable = (height_m > FLOOR_M) & (height_m < CEILING_M)
        level = np.rint((np.where(usable, height_m, 0.0) - FLOOR_M) / QUANTUM_M).astype(np.int64)
        self._maximum("highest", cells, level, usable & first)
        self._maximum("lowest", cells, np.iinfo(np.uint32).max - level, usable)
        self._sum("ground_sum", "ground_count", cells, level, usable & ground)
        self._sum("intensity_sum", "intensity_count", cells, intensity, usable & first)
        if "count" in self._layers:
            np.add.at(self._layers["count"].reshape(-1), cells[usable], 1)

    def cut(self, window: Window) -> dict[str, Layer]:
        """Copies of the layers in `window`, which lies inside the grid."""
        part = window.within(self.grid.window)
        return {name: np.array(layer[part]) for name, layer in self._layers.items()}

    def close(self) -> None:
        """Release the layers; a temporary file goes with them."""
        self._layers = {}

    def _allocate(self, dtype: np.dtype[Any], scratch: Path | None) -> Layer:
        if not self.on_disk:
            return np.zeros(self.grid.shape, dtype)
        with tempfile.TemporaryFile(prefix="mmedge-points-", dir=scratch) as file:
            return np.memmap(file, dtype, "w+", shape=self.grid.shape)  # keeps its own handle on the unlinked file

    def _maximum(
        self, name: str, cells: npt.NDArray[np.int64], level: npt.NDArray[np.int64], use: npt.NDArray[np.bool_]
    ) -> None:
        if name in self._layers:
            np.maximum.at(self._layers[name].reshape(-1), cells[use], level[use].astype(np.uint32))

    def _sum(
        self,
        name: str,
        count: str,
        cells: npt.NDArray[np.int64],
        values: Layer,
        use: npt.NDArray[np.bool_],
    ) -> None:
        if name in self._layers:
            np.add.at(self._layers[name].reshape(-1), cells[use], values[use].astype(np.int64))
            np.add.at(self._layers[count].reshape(-1), cells[use], np.uint32(1))


def cells_of(grid: Grid, x: npt.NDArray[np.float64], y: npt.NDArray[np.float64]) -> npt.NDArray[np.int64]:
    """Flat cell numbers (row * cols + col) of coordinates in the grid's CRS; -1 outside. A cell owns its upper left."""
    a, b, c, d, e, f = grid.transform
    scale = 1.0 / (a * e - b * d)
    u, v = (x - c) * scale, (y - f) * scale
    col, row = np.floor(e * u - b * v + EDGE), np.floor(a * v - d * u + EDGE)
    inside = (row >= 0) & (row < grid.rows) & (col >= 0) & (col < grid.cols)  # False for nan and inf
    flat = np.where(inside, row, 0).astype(np.int64) * grid.cols + np.where(inside, col, 0).astype(np.int64)
    return np.where(inside, flat, -1)


def metres(level: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Heights in metres of (mean) levels."""
    return level * QUANTUM_M + FLOOR_M


def _check_space(size: int, scratch: Path | None) -> None:
    """A full disk would kill the process with SIGBUS when a page of the sparse file is written."""
    folder = scratch or Path(tempfile.gettempdir())
    free = shutil.disk_usage(folder).free
    if free < size:
        raise SceneError(
            f"gridding these points may need {size >> 20} MiB in `{folder}`, {free >> 20} MiB are free",
            hint="point TMPDIR at a larger disk",
        )
