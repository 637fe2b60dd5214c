"""The refined Lee speckle filter: statistics from the half of a 7 x 7 window that lies on the pixel's side of an edge.

J.-S. Lee 1981, "Refined filtering of image noise using local statistics", CGIP 15(4), with multiplicative noise as in
Lee and Pottier 2009, "Polarimetric radar imaging", chapter 5. Arrays are (bands, rows, cols), `valid` (rows, cols).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from functools import reduce
from itertools import accumulate

import numpy as np
import numpy.typing as npt

from mmedge.tile import Data, Valid

Sums = npt.NDArray[np.float64]

REACH_PX = 3
AREAS = (-2, 0, 2)
# Areas by (row, col) on the two sides of an edge that runs up and down, along one diagonal, from side to side, and
# along the other diagonal; the middle one of each side is first.
EDGES = (
    (((1, 0), (0, 0), (2, 0)), ((1, 2), (0, 2), (2, 2))),
    (((0, 0), (0, 1), (1, 0)), ((2, 2), (1, 2), (2, 1))),
    (((0, 1), (0, 0), (0, 2)), ((2, 1), (2, 0), (2, 2))),
    (((0, 2), (0, 1), (1, 2)), ((2, 0), (1, 0), (2, 1))),
)


def refined_lee(power: Data, valid: Valid, *, looks: float = 4.4) -> Data:
    """Filter `power`, linear, of a radar of `looks` looks; each band finds its own edges.

    The strongest of four gradients between the means of 3 x 3 areas says how the edge runs; of its two sides, the one
    whose middle area is nearer to the central one gives, with the edge itself, 28 pixels with mean m and variance v.
    The pixel x becomes m + b (x - m), b = max(0, (v - m^2 / looks) / (v (1 + 1 / looks))). What is not valid has no
    weight and stays as it is; an area without a valid pixel has the window's mean. A pixel depends on the 3 pixels
    around it and on nothing else, bit by bit. Raises ValueError for looks <= 0.
    """
    if looks <= 0:
        raise ValueError(f"looks must be > 0, got {looks}")
    x = np.where(valid, power, 0).astype(np.float64)
    seen = np.broadcast_to(valid.astype(np.float64), x.shape)
    side = _side(x, seen)
    count, total, squares = (_chosen(values, side) for values in (seen, x, x * x))
    count = np.maximum(count, 1)
    mean = total / count
    variance = np.maximum(squares / count - mean * mean, 0)
    signal = np.maximum(variance - mean * mean / looks, 0) / (1 + 1 / looks)
    weight = signal / np.where(variance > 0, variance, 1)
    return np.where(valid, mean + weight * (x - mean), power).astype(np.float32)


def _side(x: Sums, seen: Sums) -> npt.NDArray[np.int64]:
    """The half window of each pixel: twice the edge's direction, plus 1 for its second side."""
    means = _means(x, seen)
    gradient, second = [], []
    for one, other in EDGES:
        gradient.append(np.abs(_add(means[r, c] for r, c in one) - _add(means[r, c] for r, c in other)))
        second.append(np.abs(means[other[0]] - means[1, 1]) < np.abs(means[one[0]] - means[1, 1]))
    direction = np.argmax(gradient, axis=0)
    return np.asarray(2 * direction + np.choose(direction, second))


def _means(x: Sums, seen: Sums) -> dict[tuple[int, int], Sums]:
    """Means of the nine areas of 3 x 3 pixels; those without a valid pixel have that of the window."""
    whole = _box(x, REACH_PX) / np.maximum(_box(seen, REACH_PX), 1)
    total, count = (_box(_padded(values, 2), 1) for values in (x, seen))
    rows, cols = x.shape[1:]
    found = {}
    for i, dr in enumerate(AREAS):
        for j, dc in enumerate(AREAS):
            cut = np.s_[:, 2 + dr : 2 + dr + rows, 2 + dc : 2 + dc + cols]
            found[i, j] = np.where(count[cut] > 0, total[cut] / np.maximum(count[cut], 1), whole)
    return found


def _chosen(values: Sums, side: npt.NDArray[np.int64]) -> Sums:
    """Sums of `values` over each pixel's half window."""
    result = np.zeros_like(values)
    for number, half in enumerate(_halves(values)):
        np.copyto(result, half, where=side == number)
    return result


def _halves(values: Sums) -> Iterator[Sums]:
    """Sums over the eight half windows, both sides of each of `EDGES`, the edge itself included."""
    left, right = _runs(values), [run[:, :, ::-1] for run in _runs(values[:, :, ::-1])]
    rows, whole = range(-REACH_PX, REACH_PX + 1), left[2 * REACH_PX]
    yield from (_add(_row(run[REACH_PX], dr) for dr in rows) for run in (left, right))
    yield from (_add(_row(run[REACH_PX + sign * dr], dr) for dr in rows) for run, sign in ((left, -1), (right, 1)))
    yield from (_add(_row(whole, dr) for dr in part) for part in (rows[: REACH_PX + 1], rows[REACH_PX:]))
    yield from (_add(_row(run[REACH_PX + sign * dr], dr) for dr in rows) for run, sign in ((right, -1), (left, 1)))


def _runs(values: Sums) -> list[Sums]:
    """Sums of the first 1 to 7 pixels of the 7 around each, from the left; three rows more above and below."""
    wide, cols = _padded(values, REACH_PX), values.shape[2]
    return list(accumulate((wide[:, :, i : i + cols] for i in range(2 * REACH_PX + 1)), np.add))


def _row(runs: Sums, offset: int) -> Sums:
    return runs[:, REACH_PX + offset : runs.shape[1] - REACH_PX + offset]


def _box(values: Sums, reach: int) -> Sums:
    """Sums over the pixels at most `reach` away along both axes."""
    for axis in (1, 2):
        wide, length = np.pad(values, [(reach, reach) if a == axis else (0, 0) for a in range(3)]), values.shape[axis]
        values = _add(wide.take(range(i, i + length), axis=axis) for i in range(2 * reach + 1))
    return values


def _padded(values: Sums, reach: int) -> Sums:
    return np.pad(values, ((0, 0), (reach, reach), (reach, reach)))


def _add(terms: Iterable[Sums]) -> Sums:
    """Terms one by one: running sums would depend on where an array begins."""
    return np.asarray(reduce(np.add, terms))
