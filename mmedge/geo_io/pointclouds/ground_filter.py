"""Bare earth from a raster of lowest points: the progressive morphological filter, and a bounded interpolation.

Zhang, K. et al. 2003: A progressive morphological filter for removing nonground measurements from airborne LIDAR data.
IEEE Transactions on Geoscience and Remote Sensing 41(4), 872-882, doi:10.1109/TGRS.2003.810682. The parameters are the
defaults of PDAL's filters.pmf. Empty cells take no part in erosion and dilation, so nothing has to be filled first.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Heights = npt.NDArray[np.float64]
Valid = npt.NDArray[np.bool_]

MAX_RADIUS = 64  # cells; at 0.1 m the largest opening is then 13 m wide instead of 33 m
MAX_FILL = 32  # cells


@dataclass(frozen=True, slots=True, kw_only=True)
class GroundFilter:
    """Parameters of the filter, in metres. `window_m` is wider than the widest building that has to go."""

    window_m: float = 33.0
    slope: float = 1.0
    first_step_m: float = 0.15
    largest_step_m: float = 2.5

    def radii(self, cell_m: float) -> list[int]:
        """Radii of the openings in cells: 1, 2, 4, ... up to half of `window_m`."""
        widest = max(1, min(MAX_RADIUS, int(self.window_m / cell_m / 2)))
        return [1 << k for k in range(int(math.log2(widest)) + 1)]

    def reach(self, cell_m: float) -> int:
        """How many cells away a point can change the result."""
        return 2 * sum(self.radii(cell_m))

    def step_m(self, radius: int, cell_m: float) -> float:
        """Height above the opened surface that still counts as ground.

        The paper's first step supposes cells of about 1 m; it grows with the part of a cell that is longer than that.
        """
        run_m = radius * cell_m if radius > 1 else 2 * max(0.0, cell_m - 1.0)
        return min(self.largest_step_m, self.slope * run_m + self.first_step_m)


def filter_ground(lowest: Heights, known: Valid, cell_m: float, settings: GroundFilter) -> Valid:
    """Which cells of `lowest` (rows, cols) metres show the ground. Cells that are not `known` never do."""
    ground: Valid = known.copy()
    surface = np.where(known, lowest, np.inf)
    for radius in settings.radii(cell_m):
        opened = _opening(surface, radius)
        ground &= surface - np.where(known, opened, 0.0) <= settings.step_m(radius, cell_m)
        surface = opened
    return ground


def fill(heights: Heights, known: Valid, distance: int) -> tuple[Heights, Valid]:
    """Inverse-distance (power 2) mean of the known cells at most `distance` cells away, where a cell is not known.

    Returns (heights, known). The order of the sum is fixed, so a window gives the same bits as the whole.
    """
    weight, total = np.zeros(heights.shape), np.zeros(heights.shape)
    value, one = np.where(known, heights, 0.0), known.astype(np.float64)
    for row, col in _disc(distance):
        to, source = _overlap(heights.shape, row, col)
        scale = 1.0 / (row * row + col * col)
        total[to] += scale * value[source]
        weight[to] += scale * one[source]
    reached = weight > 0
    filled = np.divide(total, weight, out=np.zeros(heights.shape), where=reached)
    return np.where(known, heights, filled), known | reached


def _opening(surface: Heights, radius: int) -> Heights:
    """Erosion, then dilation, over squares; +inf marks cells that do not take part."""
    eroded = _extreme(_extreme(surface, radius, 0, np.minimum, np.inf), radius, 1, np.minimum, np.inf)
    raised = np.where(np.isinf(eroded), -np.inf, eroded)
    opened = _extreme(_extreme(raised, radius, 0, np.maximum, -np.inf), radius, 1, np.maximum, -np.inf)
    return np.where(np.isinf(surface), np.inf, opened)


def _extreme(values: Heights, radius: int, axis: int, pick: np.ufunc, outside: float) -> Heights:
    """Running minimum or maximum over 2 * radius + 1 cells along an axis, by doubling."""
    pad = [(radius, radius) if a == axis else (0, 0) for a in (0, 1)]
    run, width, length = np.pad(values, pad, constant_values=outside), 1, 2 * radius + 1
    while width < length:
        step = min(width, length - width)
        run = pick(run[:-step], run[step:]) if axis == 0 else pick(run[:, :-step], run[:, step:])
        width += step
    return run


def _disc(radius: int) -> list[tuple[int, int]]:
    span = range(-radius, radius + 1)
    return [(r, c) for r in span for c in span if 0 < r * r + c * c <= radius * radius]


def _overlap(shape: tuple[int, ...], row: int, col: int) -> tuple[tuple[slice, slice], tuple[slice, slice]]:
    """Slices (to, from) that move an array by (row, col)."""
    (to_r, from_r), (to_c, from_c) = (_shift(n, s) for n, s in zip(shape, (row, col), strict=True))
    return (to_r, to_c), (from_r, from_c)


def _shift(length: int, by: int) -> tuple[slice, slice]:
    size = max(0, length - abs(by))
    return slice(max(0, -by), max(0, -by) + size), slice(max(0, by), max(0, by) + size)
