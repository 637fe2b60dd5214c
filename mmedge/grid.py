"""Where pixels are: `Grid` (shape, affine transform, CRS) and `Window` (a rectangle of its pixels)."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from math import floor, hypot
from typing import TypeVar

import numpy as np
import numpy.typing as npt

# Grids lie off whole pixels by 0, 1/2, 1/3 or 1/4: rounding up from .63 is far from all, so float noise never decides.
ANCHOR = 0.37

Number = TypeVar("Number", float, npt.NDArray[np.float64])
Transform = tuple[float, float, float, float, float, float]


@dataclass(frozen=True, slots=True)
class Window:
    """A rectangle of pixels. It may reach outside its grid: what lies there is invalid."""

    row: int
    col: int
    height: int
    width: int

    @property
    def shape(self) -> tuple[int, int]:
        return self.height, self.width

    @property
    def empty(self) -> bool:
        return self.height <= 0 or self.width <= 0

    def grow(self, margin: int) -> Window:
        """The window with `margin` more pixels on every side."""
        return Window(self.row - margin, self.col - margin, self.height + 2 * margin, self.width + 2 * margin)

    def intersect(self, other: Window) -> Window:
        """The common part; `empty` where there is none."""
        row, col = max(self.row, other.row), max(self.col, other.col)
        bottom = min(self.row + self.height, other.row + other.height)
        right = min(self.col + self.width, other.col + other.width)
        return Window(row, col, max(0, bottom - row), max(0, right - col))

    def within(self, other: Window) -> tuple[slice, slice]:
        """Slices that cut this window out of an array that holds `other`. This window must lie inside it."""
        row, col = self.row - other.row, self.col - other.col
        if row < 0 or col < 0 or row + self.height > other.height or col + self.width > other.width:
            raise ValueError(f"{self} does not lie inside {other}")
        return slice(row, row + self.height), slice(col, col + self.width)

    def blocks(self, size: int) -> Iterator[Window]:
        """Squares of `size` that cover the window, row by row; those at its right and lower edges may be smaller."""
        for row in range(self.row, self.row + self.height, size):
            for col in range(self.col, self.col + self.width, size):
                yield Window(row, col, size, size).intersect(self)


@dataclass(frozen=True, slots=True)
class Grid:
    """A raster grid: `rows` x `cols` pixels, `transform` (a, b, c, d, e, f) as in affine.Affine, `crs` as WKT.

    x = a * col + b * row + c and y = d * col + e * row + f give the upper left corner of pixel (row, col).
    """

    rows: int
    cols: int
    transform: Transform
    crs: str

    @property
    def window(self) -> Window:
        """The whole grid."""
        return Window(0, 0, self.rows, self.cols)

    @property
    def shape(self) -> tuple[int, int]:
        return self.rows, self.cols

    @property
    def pixel_size(self) -> tuple[float, float]:
        """Length of a pixel's sides (along a row, along a column) in units of the CRS."""
        a, b, _, d, e, _ = self.transform
        return hypot(a, d), hypot(b, e)

    @property
    def origin_px(self) -> tuple[int, int]:
        """(row, col) of the first pixel, counted in pixels from the CRS origin: what lattices are anchored to."""
        a, _, c, _, e, f = self.transform
        return (floor(f / e + ANCHOR) if e else 0, floor(c / a + ANCHOR) if a else 0)

    def xy(self, row: Number, col: Number) -> tuple[Number, Number]:
        """Coordinates of a place: whole numbers are corners of pixels. Numbers or arrays."""
        a, b, c, d, e, f = self.transform
        return a * col + b * row + c, d * col + e * row + f

    def rowcol(self, x: Number, y: Number) -> tuple[Number, Number]:
        """The inverse of `xy`: (row, col) of a place, in fractions of a pixel. Numbers or arrays."""
        a, b, c, d, e, f = self.transform
        det = a * e - b * d
        x, y = x - c, y - f
        return (a * y - d * x) / det, (e * x - b * y) / det

    def crop(self, window: Window) -> Grid:
        """The grid of `window` alone."""
        a, b, _, d, e, _ = self.transform
        c, f = self.xy(window.row, window.col)
        return Grid(window.height, window.width, (a, b, c, d, e, f), self.crs)
