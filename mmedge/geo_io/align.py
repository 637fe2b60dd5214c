"""Bring a raster on another grid to the scene's reference grid, window by window.

Each pixel depends on its own neighbourhood alone, never on the window it is read in: the same map for every tiling.
"""

from __future__ import annotations

import math
from typing import Protocol

import numpy as np
import numpy.typing as npt
import rasterio
from rasterio.warp import transform

from mmedge.errors import GeoreferenceError
from mmedge.geo_io.raster import RasterReader
from mmedge.grid import Grid, Window
from mmedge.modality import Unit
from mmedge.tile import Data, Valid

Places = npt.NDArray[np.float64]


class Lattice(Protocol):
    """Pixels that have places: a `Grid`, or a raster under control points."""

    rows: int
    cols: int
    crs: str

    @property
    def window(self) -> Window: ...

    def rowcol(self, x: Places, y: Places) -> tuple[Places, Places]: ...


# Grids whose corners agree within this share of a pixel are one grid (SpaceNet 6 differs in the 4th digit).
SAME_GRID_PX = 0.01
# Places are projected exactly at every 16th pixel of the reference grid and interpolated between: at 10 m pixels the
# Earth's curvature makes that wrong by 0.5 mm. GDAL's own approximation depends on the window that is read.
NODE_PX = 16


def pixel_shift(source: Grid, reference: Grid) -> tuple[int, int] | None:
    """(row, col) of the reference grid's first pixel in `source`, or None where the grids are not the same lattice."""
    if source.crs != reference.crs and not _same_crs(source.crs, reference.crs):
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
    return round(row), round(col)


def _same_crs(a: str, b: str) -> bool:
    return bool(rasterio.CRS.from_wkt(a) == rasterio.CRS.from_wkt(b))


class ShiftedReader:
    """A file on the reference lattice: reads are copies, pixels outside the file are invalid."""

    def __init__(self, reader: RasterReader, grid: Grid, shift: tuple[int, int]) -> None:
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
    not valid have no weight.
    """

    def __init__(self, reader: RasterReader, grid: Lattice, reference: Grid, unit: Unit) -> None:
        self._reader, self._grid, self._reference, self._unit = reader, grid, reference, unit
        self._factor = max(1, math.floor(_resolution_ratio(grid, reference) + SAME_GRID_PX))
        self._exact = _same_crs(grid.crs, reference.crs)

    def read(self, window: Window, channels: int) -> tuple[Data, Valid]:
        row, col = self._places(window)
        inside = np.isfinite(row) & (row > -0.5) & (row < self._blocks[0] - 0.5)
        inside &= np.isfinite(col) & (col > -0.5) & (col < self._blocks[1] - 0.5)
        if not inside.any():
            return np.zeros((channels, *window.shape), np.float32), np.zeros(window.shape, bool)
        near = self._block_window(row[inside], col[inside])
        values, usable = self._read_blocks(near)
        row, col = np.where(inside, row - near.row, 0.0), np.where(inside, col - near.col, 0.0)
        data, valid = _bilinear(values, usable, row, col)
        return _from_linear(data, self._unit), valid & inside

    @property
    def _blocks(self) -> tuple[int, int]:
        """Shape of the source after block means."""
        return -(-self._grid.rows // self._factor), -(-self._grid.cols // self._factor)

    def _places(self, window: Window) -> tuple[Places, Places]:
        """(row, col) of the window's pixel centres in block-mean pixels, whole numbers at their centres."""
        rows, first = _nodes(window.row, window.height)
        cols, left = _nodes(window.col, window.width)
        x, y = self._reference.xy(rows[:, None] + 0.5, cols[None] + 0.5)
        x, y = np.broadcast_arrays(x, y)
        if not self._exact:
            flat = transform(self._reference.crs, self._grid.crs, x.ravel().tolist(), y.ravel().tolist())
            x, y = (np.array(v).reshape(x.shape) for v in flat[:2])
        nodes = self._grid.rowcol(x, y)
        row, col = (_between(_between(n, first, window.height, 0), left, window.width, 1) for n in nodes)
        return row / self._factor - 0.5, col / self._factor - 0.5

    def _block_window(self, row: Places, col: Places) -> Window:
        """Block-mean pixels that bilinear weights at these places touch."""
        top, left = math.floor(row.min()), math.floor(col.min())
        bottom, right = math.floor(row.max()) + 2, math.floor(col.max()) + 2
        return Window(top, left, bottom - top, right - left).intersect(Window(0, 0, *self._blocks))

    def _read_blocks(self, near: Window) -> tuple[Data, Valid]:
        """Means of the valid pixels of factor x factor blocks, in linear power for dB."""
        f = self._factor
        source = Window(near.row * f, near.col * f, near.height * f, near.width * f)
        inside = source.intersect(self._grid.window)
        values, usable = self._reader.read(inside)
        values = _to_linear(values, self._unit)
        values[:, ~usable] = 0
        if f == 1:
            return values, usable
        pad = ((0, source.height - inside.height), (0, source.width - inside.width))
        split = (near.height, f, near.width, f)
        count = np.pad(usable, pad).reshape(split).sum(axis=(1, 3))
        total = np.pad(values, ((0, 0), *pad)).reshape(-1, *split).sum(axis=(2, 4), dtype=np.float64)
        # Half of a block must be valid: the valid area must not grow.
        return (total / np.maximum(count, 1)).astype(np.float32), 2 * count >= f * f


def _nodes(start: int, length: int) -> tuple[Places, int]:
    """Multiples of NODE_PX around a range of pixels, and the range's start counted from the first of them."""
    first, last = start // NODE_PX, -((start + length - 1) // -NODE_PX)
    return np.arange(first, max(last, first + 1) + 1, dtype=np.float64) * NODE_PX, start - first * NODE_PX


def _between(nodes: Places, start: int, length: int, axis: int) -> Places:
    """Linear interpolation between nodes along an axis, at whole pixels from `start` on."""
    pixel = np.arange(start, start + length)
    share = (pixel % NODE_PX / NODE_PX).reshape((-1, 1) if axis == 0 else (1, -1))
    low = nodes.take(pixel // NODE_PX, axis=axis)
    high = nodes.take(np.minimum(pixel // NODE_PX + 1, nodes.shape[axis] - 1), axis=axis)
    return np.where(share == 0, low, low * (1 - share) + high * share)


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
    nearest = np.clip(np.rint(row), 0, height - 1).astype(np.intp), np.clip(np.rint(col), 0, width - 1).astype(np.intp)
    valid = usable[nearest] & (weight > 0)
    total /= np.where(valid, weight, np.float32(1))
    return total, valid


def _resolution_ratio(source: Lattice, reference: Grid) -> float:
    """Size of a reference pixel in source pixels, at the middle of the reference grid."""
    middle = reference.crop(Window(reference.rows // 2, reference.cols // 2, 1, 1))
    xs, ys = zip(*(middle.xy(r, c) for r, c in ((0, 0), (0, 1), (1, 0))), strict=True)
    x, y = transform(middle.crs, source.crs, list(xs), list(ys))[:2]
    if not np.isfinite([*x, *y]).all():
        raise GeoreferenceError("the sensors' coordinate systems have no common ground", hint="mmedge info SCENE")
    row, col = source.rowcol(np.array(x), np.array(y))
    return math.sqrt(abs((row[1] - row[0]) * (col[2] - col[0]) - (row[2] - row[0]) * (col[1] - col[0])))


def _to_linear(values: Data, unit: Unit) -> Data:
    return np.power(10.0, values / 10, dtype=np.float32) if unit == "dB" else values


def _from_linear(values: Data, unit: Unit) -> Data:
    return 10 * np.log10(np.where(values > 0, values, 1), dtype=np.float32) if unit == "dB" else values
