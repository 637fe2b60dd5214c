"""Bring a raster on another grid to the scene's reference grid, window by window.

Each pixel depends on its own neighbourhood alone, never on the window it is read in: the same map for every tiling.
"""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt

from mmedge.geo_io.crs import full_turn, same_crs
from mmedge.geo_io.rasters.places import Lattice, PlaceMap, reduction
from mmedge.geo_io.sar import db_of, power_of
from mmedge.geo_io.source import WindowReader
from mmedge.grid import Grid, Window
from mmedge.modality import Unit
from mmedge.tile import Data, Valid

Places = npt.NDArray[np.float64]
Index = npt.NDArray[np.intp]

# Grids whose corners agree within this share of a pixel are one grid: those of SpaceNet 6 differ by 0.012.
SAME_GRID_PX = 0.02
# At most so many source pixels are held at once while block means are formed: 0.1 m pixels under a 10 m grid would be
# 10,000 of them for each pixel of a tile.
BLOCK_READ_PX = 4 << 20
# A window whose pixels lie scattered over the source (both sides of the antimeridian, around a pole) is read in halves
# when a rectangle around them would hold more than this, or more than SCATTER source pixels for each of its own.
SCATTERED_PX, SCATTER = 1 << 20, 16


def pixel_shift(source: Grid, reference: Grid) -> tuple[int, int] | None:
    """(row, col) of the reference grid's first pixel in `source`, or None where the grids are not the same lattice."""
    if not same_crs(source.crs, reference.crs):
        return None
    a, b, c, d, e, f = source.transform
    ra, rb, rc, rd, re, rf = reference.transform
    if not b == d == rb == rd == 0 or a == 0 or e == 0:
        return (0, 0) if source.transform == reference.transform else None
    # How far the two lattices drift apart over the reference grid, in pixels.
    if abs(ra - a) / abs(a) * reference.cols > SAME_GRID_PX or abs(re - e) / abs(e) * reference.rows > SAME_GRID_PX:
        return None
    row, col = (rf - f) / e, (rc - c) / a
    if abs(row - round(row)) > SAME_GRID_PX or abs(col - round(col)) > SAME_GRID_PX:
        return None
    shift = round(row), round(col)
    return None if _goes_round(source, reference, shift) else shift


def _goes_round(source: Grid, reference: Grid, shift: tuple[int, int]) -> bool:
    """Whether a part of the reference lies in the source only after a full turn of longitude."""
    turn = full_turn(source.crs)
    if turn is None:
        return False
    period = turn / abs(source.transform[0])
    return any(col < source.cols and col + reference.cols > 0 for col in (shift[1] - period, shift[1] + period))


class ShiftedReader:
    """A file on the reference lattice: reads are copies, pixels outside the file are invalid."""

    def __init__(self, reader: WindowReader, grid: Grid, shift: tuple[int, int]) -> None:
        self._reader, self._grid, self._shift = reader, grid, shift

    def read(self, window: Window, channels: int) -> tuple[Data, Valid]:
        moved = Window(window.row + self._shift[0], window.col + self._shift[1], window.height, window.width)
        inside = moved.intersect(self._grid.window)
        if inside == moved:
            return self._reader.read(moved)
        data, valid = np.zeros((channels, *window.shape), np.float32), np.zeros(window.shape, bool)
        if not inside.empty:
            rows, cols = inside.within(moved)
            data[:, rows, cols], valid[rows, cols] = self._reader.read(inside)
        return data, valid


class ResampledReader:
    """A file on another grid, resampled: block means where it is finer than the reference grid, then bilinear.

    dB are averaged as linear power. A pixel is valid where the source pixel it falls into is; its neighbours that are
    not valid have no weight. `categorical`: the nearest source pixel, for a mean of classes is no class.
    """

    def __init__(
        self, reader: WindowReader, grid: Lattice, reference: Grid, unit: Unit, *, categorical: bool = False
    ) -> None:
        self._reader, self._grid, self._unit, self._categorical = reader, grid, unit, categorical
        factor = reduction(grid, reference)
        self._factor = (1, 1) if categorical else factor
        self._places = PlaceMap(grid, reference)

    def read(self, window: Window, channels: int) -> tuple[Data, Valid]:
        # Block-mean pixels, whole numbers at their centres.
        row, col = (at / f - 0.5 for at, f in zip(self._places.at(window), self._factor, strict=True))
        data, valid = np.zeros((channels, *window.shape), np.float32), np.zeros(window.shape, bool)
        self._fill(data, valid, row, col)
        return data, valid

    def _fill(self, data: Data, valid: Valid, row: Places, col: Places) -> None:
        inside = (row > -0.5) & (row < self._blocks[0] - 0.5) & (col > -0.5) & (col < self._blocks[1] - 0.5)
        if not inside.any():
            return
        near = self._block_window(row[inside], col[inside])
        if near.height * near.width > max(SCATTERED_PX, SCATTER * row.size):
            for half in _halves(row.shape):
                self._fill(data[(slice(None), *half)], valid[half], row[half], col[half])
            return
        values, usable = self._read_blocks(near)
        row, col = np.where(inside, row - near.row, 0.0), np.where(inside, col - near.col, 0.0)
        found, sure = (_nearest if self._categorical else _bilinear)(values, usable, row, col)
        valid[:] = sure & inside
        data[:] = db_of(found) if self._unit == "dB" else found

    @property
    def _blocks(self) -> tuple[int, int]:
        """Shape of the source after block means."""
        return -(-self._grid.rows // self._factor[0]), -(-self._grid.cols // self._factor[1])

    def _block_window(self, row: Places, col: Places) -> Window:
        """Block-mean pixels that bilinear weights at these places touch."""
        top, left = math.floor(row.min()), math.floor(col.min())
        bottom, right = math.floor(row.max()) + 2, math.floor(col.max()) + 2
        return Window(top, left, bottom - top, right - left).intersect(Window(0, 0, *self._blocks))

    def _read_blocks(self, near: Window) -> tuple[Data, Valid]:
        """Means of the valid pixels of blocks, a few blocks at a time where they are large."""
        parts = list(_parts(near, self._factor))
        if len(parts) == 1:
            return self._means(near)
        found = [(part.within(near), self._means(part)) for part in parts]
        values = np.empty((len(found[0][1][0]), *near.shape), np.float32)
        usable = np.empty(near.shape, bool)
        for (rows, cols), (means, sure) in found:
            values[:, rows, cols], usable[rows, cols] = means, sure
        return values, usable

    def _means(self, near: Window) -> tuple[Data, Valid]:
        """Means over the valid pixels of each block, in linear power for dB. Invalid ones are 0."""
        down, right = self._factor
        source = Window(near.row * down, near.col * right, near.height * down, near.width * right)
        inside = source.intersect(self._grid.window)
        values, usable = self._reader.read(inside)
        values = np.where(usable, values, 0)
        if self._unit == "dB":
            values = power_of(values)
            values[:, ~usable] = 0
        if self._factor == (1, 1):
            return values, usable
        pad = ((0, source.height - inside.height), (0, source.width - inside.width))
        split = (near.height, down, near.width, right)
        count = np.pad(usable, pad).reshape(split).sum(axis=(1, 3))
        total = np.pad(values, ((0, 0), *pad)).reshape(-1, *split).sum(axis=(2, 4), dtype=np.float64)
        # Half of a block must be valid: the valid area must not grow.
        return (total / np.maximum(count, 1)).astype(np.float32), 2 * count >= down * right


def _halves(shape: tuple[int, ...]) -> tuple[tuple[slice, slice], tuple[slice, slice]]:
    rows, cols = shape
    if rows >= cols:
        return (slice(0, rows // 2), slice(None)), (slice(rows // 2, None), slice(None))
    return (slice(None), slice(0, cols // 2)), (slice(None), slice(cols // 2, None))


def _parts(near: Window, factor: tuple[int, int]) -> list[Window]:
    """Pieces of a window of blocks whose source pixels are at most BLOCK_READ_PX each, or one block."""
    width = max(1, min(near.width, BLOCK_READ_PX // (factor[0] * factor[1])))
    height = max(1, min(near.height, BLOCK_READ_PX // (factor[0] * factor[1] * width)))
    if factor == (1, 1):
        return [near]
    return [
        Window(row, col, height, width).intersect(near)
        for row in range(near.row, near.row + near.height, height)
        for col in range(near.col, near.col + near.width, width)
    ]


def _nearest(values: Data, usable: Valid, row: Places, col: Places) -> tuple[Data, Valid]:
    at = _pixel_at(usable, row, col)
    return values[:, at[0], at[1]], usable[at]


def _pixel_at(usable: Valid, row: Places, col: Places) -> tuple[Index, Index]:
    """Index of the pixel that a place falls into; an edge belongs to the pixel below and to the right of it."""
    return _whole(row, usable.shape[0]), _whole(col, usable.shape[1])


def _whole(at: Places, size: int) -> Index:
    return np.clip(np.floor(at + 0.5), 0, size - 1).astype(np.intp)


def _bilinear(values: Data, usable: Valid, row: Places, col: Places) -> tuple[Data, Valid]:
    """Values (channels, rows, cols) and validity at fractional places of an array whose invalid pixels are 0."""
    height, width = usable.shape
    r0, c0 = np.floor(row).astype(np.intp), np.floor(col).astype(np.intp)
    dr, dc = (row - r0).astype(np.float32), (col - c0).astype(np.float32)
    total = np.zeros((len(values), *row.shape), np.float32)
    weight = np.zeros(row.shape, np.float32)
    for r, wr in ((r0, 1 - dr), (r0 + 1, dr)):
        for c, wc in ((c0, 1 - dc), (c0 + 1, dc)):
            at = np.clip(r, 0, height - 1), np.clip(c, 0, width - 1)
            w = wr * wc * usable[at]
            total += w * values[:, at[0], at[1]]
            weight += w
    valid = usable[_pixel_at(usable, row, col)] & (weight > 0)
    total /= np.where(valid, weight, np.float32(1))
    return total, valid
