"""The swath: which part of a scene the sensor looked at, told by straight edges of what it did not see."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from mmedge.grid import Window
from mmedge.tile import Valid

Ints = npt.NDArray[np.int64]

LAG_PX = 8  # second differences of an edge are taken over twice this
DEPTH_PX = 32  # less is left to the nodata value alone: SLC-off gaps that reach the border are thinner


@dataclass(frozen=True, slots=True, eq=False)
class Swath:
    """First and last seen column of each row (`left`, `right`), first and last seen row of each column."""

    left: Ints
    right: Ints
    top: Ints
    bottom: Ints

    def outside(self, window: Window) -> Valid:
        """Pixels of `window` beyond the swath's edges, (rows, cols) bool."""
        rows = np.arange(window.row, window.row + window.height)[:, None]
        cols = np.arange(window.col, window.col + window.width)[None, :]
        r = slice(window.row, window.row + window.height)
        c = slice(window.col, window.col + window.width)
        beside: Valid = (cols < self.left[r, None]) | (cols > self.right[r, None])
        above: Valid = (rows < self.top[None, c]) | (rows > self.bottom[None, c])
        return beside | above


def swath_of(rows: dict[int, tuple[int, int]], cols: dict[int, tuple[int, int]], shape: tuple[int, int]) -> Swath:
    """The swath from the spans (first, last seen pixel) of some rows and columns; the lines between are interpolated.

    Only edges count that are straight over `DEPTH_PX` lines and cut off that many pixels: a cloud that touches
    the border is ragged, an SLC-off gap thin.
    """
    left, right = _edges(rows, shape[0], shape[1])
    top, bottom = _edges(cols, shape[1], shape[0])
    return Swath(left, right, top, bottom)


def _edges(spans: dict[int, tuple[int, int]], lines: int, length: int) -> tuple[Ints, Ints]:
    known = np.array(sorted(spans), np.int64)
    first = np.array([spans[i][0] for i in known], np.int64)
    last = np.array([spans[i][1] for i in known], np.int64)
    lower = _straight(known, first)
    upper = _straight(known, length - 1 - last)
    every = np.arange(lines)
    return (
        np.floor(np.interp(every, known, lower)).astype(np.int64),
        length - 1 - np.floor(np.interp(every, known, upper)).astype(np.int64),
    )


def _straight(index: Ints, depth: Ints) -> Ints:
    """`depth` where it belongs to a straight edge, else 0."""
    cut = depth > 0
    smooth = np.zeros(len(depth), bool)
    if len(depth) > 2 * LAG_PX:
        inner = slice(LAG_PX, -LAG_PX)
        bend = depth[2 * LAG_PX :] - 2 * depth[inner] + depth[: -2 * LAG_PX]
        near = (index[2 * LAG_PX :] - index[: -2 * LAG_PX]) == 2 * LAG_PX
        smooth[inner] = (np.abs(bend) <= 2) & near
    kept = np.zeros_like(depth)
    bounds = np.flatnonzero(np.diff(np.concatenate([[0], cut.astype(np.int8), [0]])))
    for start, stop in zip(bounds[::2], bounds[1::2], strict=True):
        run = slice(start, stop)
        inside = smooth[start + LAG_PX : stop - LAG_PX]
        if stop - start >= DEPTH_PX and depth[run].max() >= DEPTH_PX and inside.size and inside.mean() >= 0.6:
            kept[run] = depth[run]
    return kept
