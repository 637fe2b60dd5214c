"""Where the pixels of one grid lie in another: exact at nodes, linear between them, exact again where that would lie.

A place depends on the two grids alone, never on the window that is asked for.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import numpy.typing as npt

from mmedge.errors import GeoreferenceError
from mmedge.geo_io.crs import full_turn, project, same_crs
from mmedge.grid import Grid, Window

Places = npt.NDArray[np.float64]
Index = npt.NDArray[np.intp]
Inside = npt.NDArray[np.bool_]

# Places are projected exactly at every 16th pixel of the reference grid and interpolated between: at 10 m pixels the
# Earth's curvature makes that wrong by 0.5 mm. GDAL's own approximation depends on the window that is read.
NODE_PX = 16
# Where a probe between four nodes is further off than this (near a pole, at the antimeridian, at the Earth's limb, in
# pixels of a degree), every pixel between them is projected by itself. The middle alone would not do: around a pole it
# is right by symmetry where nothing else is.
ROUGH_PX = 0.02
PROBES = ((0.25, 0.6), (0.65, 0.3))  # shares of the way between nodes, down and to the right
ROUGH_CELLS = 64  # at once: 16,384 pixels
# Places along each side of a grid at which the pixel sizes of two grids are compared.
SAMPLES = 5


class Lattice(Protocol):
    """Pixels that have places: a `Grid`, or a raster under control points."""

    @property
    def rows(self) -> int: ...

    @property
    def cols(self) -> int: ...

    @property
    def crs(self) -> str: ...

    @property
    def window(self) -> Window: ...

    def rowcol(self, x: Places, y: Places) -> tuple[Places, Places]: ...


class PlaceMap:
    """The pixels of `reference` in `source`. NaN where a pixel has no place there."""

    def __init__(self, source: Lattice, reference: Grid) -> None:
        self._source, self._reference = source, reference
        self._turn = full_turn(source.crs) if isinstance(source, Grid) else None
        self._linear = same_crs(source.crs, reference.crs) and self._turn is None and isinstance(source, Grid)
        if isinstance(source, Grid):
            self._middle = source.xy(source.rows / 2, source.cols / 2)[0]

    def at(self, window: Window) -> tuple[Places, Places]:
        """(row, col) in the source of the window's pixel centres, in fractions of a pixel: whole numbers are corners.

        A cell of 16 x 16 pixels whose corners and probes have no place has none anywhere.
        """
        rows = _Cells.of(window.row, window.height, self._reference.rows)
        cols = _Cells.of(window.col, window.width, self._reference.cols)
        nodes = self.exact(rows.nodes[:, None], cols.nodes[None])
        found = [cols.between(rows.between(values, 0), 1) for values in nodes]
        if not self._linear:
            for i, j in _batches(self._rough(nodes, rows, cols)):
                self._refine(found, window, rows, cols, i, j)
        return found[0], found[1]

    def exact(self, row: Places, col: Places) -> tuple[Places, Places]:
        """(row, col) in the source of the centres of reference pixels. Longitudes go the short way round the source."""
        x, y = np.broadcast_arrays(*self._reference.xy(row + 0.5, col + 0.5))
        x, y = project(self._reference.crs, self._source.crs, x, y)
        if self._turn:
            x = self._middle + (x - self._middle + self._turn / 2) % self._turn - self._turn / 2
        return self._source.rowcol(x, y)

    def _rough(self, nodes: tuple[Places, Places], rows: _Cells, cols: _Cells) -> Index:
        """Cells (n, 2) between whose nodes a probe is off. Cells without any place are left out."""
        off = np.zeros((len(rows.nodes) - 1, len(cols.nodes) - 1), bool)
        placed = off.copy()
        for down, right in PROBES:
            true = self.exact(rows.at(down)[:, None], cols.at(right)[None])
            for node, probe in zip(nodes, true, strict=True):
                across = node[:, :-1] * (1 - right) + node[:, 1:] * right
                guess = across[:-1] * (1 - down) + across[1:] * down
                off |= ~(np.abs(guess - probe) <= ROUGH_PX)
                corner = np.isfinite(node)
                placed |= corner[:-1, :-1] | corner[:-1, 1:] | corner[1:, :-1] | corner[1:, 1:] | np.isfinite(probe)
        return np.argwhere(off & placed)

    def _refine(self, found: list[Places], window: Window, rows: _Cells, cols: _Cells, i: Index, j: Index) -> None:
        """Replace the places of some cells by exact ones."""
        within = np.arange(NODE_PX)
        row = np.repeat((rows.first + i)[:, None] * NODE_PX + within, NODE_PX, axis=1).ravel()
        col = np.tile((cols.first + j)[:, None] * NODE_PX + within, NODE_PX).ravel()
        inside = (row >= window.row) & (row < window.row + window.height)
        inside &= (col >= window.col) & (col < window.col + window.width)
        row, col = row[inside], col[inside]
        exact = self.exact(row.astype(float), col.astype(float))
        for values, better in zip(found, exact, strict=True):
            values[row - window.row, col - window.col] = better


@dataclass(frozen=True, slots=True)
class _Cells:
    """The cells between nodes that a range of pixels touches along one axis, from cell `first` on."""

    first: int
    nodes: Places
    pixels: Index

    @classmethod
    def of(cls, start: int, length: int, size: int) -> _Cells:
        """The last node of an axis is its last pixel: beyond it there may be no Earth."""
        first, last = start // NODE_PX, (start + length - 1) // NODE_PX
        nodes = np.minimum(np.arange(first, last + 2) * NODE_PX, size - 1).astype(np.float64)
        return cls(first, nodes, np.arange(start, start + length))

    def at(self, share: float) -> Places:
        """Places a share of the way from each node to the next."""
        return self.nodes[:-1] * (1 - share) + self.nodes[1:] * share

    def between(self, values: Places, axis: int) -> Places:
        """Values at the nodes, along an axis, as values at the pixels."""
        cell = self.pixels // NODE_PX - self.first
        length = np.maximum(self.nodes[cell + 1] - self.nodes[cell], 1)
        share = ((self.pixels - self.nodes[cell]) / length).reshape((-1, 1) if axis == 0 else (1, -1))
        low, high = values.take(cell, axis=axis), values.take(cell + 1, axis=axis)
        return np.where(share == 0, low, low * (1 - share) + high * share)


def _batches(cells: Index) -> list[tuple[Index, Index]]:
    return [(part[:, 0], part[:, 1]) for part in np.split(cells, range(ROUGH_CELLS, len(cells), ROUGH_CELLS))]


def sample_places(source: Lattice, reference: Grid) -> tuple[Places, Places, Inside]:
    """(row, col) in the source of pixels scattered evenly over the reference, with their right and lower neighbours.

    Returns row (3, n), col (3, n) and `inside` (n,): which of the pixels lie in the source.
    """
    steps = (np.arange(SAMPLES) + 0.5) / SAMPLES
    row, col = (v.ravel() for v in np.meshgrid(steps * reference.rows, steps * reference.cols, indexing="ij"))
    found = PlaceMap(source, reference).exact(np.stack([row, row, row + 1]) - 0.5, np.stack([col, col + 1, col]) - 0.5)
    down, right = found[0][0], found[1][0]
    inside: Inside = (down >= 0) & (down < source.rows) & (right >= 0) & (right < source.cols)
    return *found, inside


def reduction(source: Lattice, reference: Grid) -> tuple[int, int]:
    """How many source pixels (along a column, along a row) fall into one reference pixel, at least 1 each.

    The median over the places that both grids share. Raises GeoreferenceError where none has a place in the source.
    """
    row, col, inside = sample_places(source, reference)
    finite = np.isfinite(row).all(axis=0) & np.isfinite(col).all(axis=0)
    if not finite.any():
        raise GeoreferenceError(
            "the sensors' coordinate systems have no common ground", hint="look at each file with `mmedge info`"
        )
    used = finite & inside if (finite & inside).any() else finite
    down, right = (float(np.median(np.hypot(*(v[1:, used] - v[0, used])))) for v in (row, col))
    return max(1, math.floor(down + 0.01)), max(1, math.floor(right + 0.01))
