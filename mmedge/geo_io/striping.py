"""Periodic striping: lines whose detector has another gain or offset than its neighbours', at a fixed distance."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from mmedge.geo_io.runs import run_lengths
from mmedge.tile import Valid

Floats = npt.NDArray[np.float64]

SIDE = 4  # neighbours on each side that a line is compared with
SIGMAS = 5.0  # how far beyond the usual deviation of lines
WIDE = 2  # more deviating lines side by side are a thing on the ground
HARM = 0.02  # of the band's spread: a fainter stripe is not worth the pixels


def striped(profiles: list[list[Floats]], spread: Floats, length: int) -> Valid:
    """Lines to give up, (length,) bool, in any band.

    `profiles[band]` are mean profiles across the lines, one for each 32 px along them; `spread` is each band's 10th to
    90th percentile. A line deviates where the median over segments of its distance from the median of its eight
    neighbours exceeds `SIGMAS` robust standard deviations of that distance and `HARM` of the spread, with the same sign
    in four segments of five. Deviating lines are striping only if they are periodic: roads and field edges are not.
    """
    found = np.zeros(length, bool)
    for band, segments in enumerate(profiles):
        if len(segments) >= 3 and length >= 4 * SIDE:
            table = np.stack(segments)
            groups = _groups(table)
            distinct = table[:, np.unique(groups, return_index=True)[1]]
            found |= periodic(_deviating(distinct, float(spread[band])))[groups]
    return found


def _groups(profiles: Floats) -> npt.NDArray[np.int64]:
    """Number of the native line that each line repeats: bands of 20 and 60 m come repeated on a 10 m grid."""
    left, right = profiles[:, :-1], profiles[:, 1:]
    new = ((left != right) & np.isfinite(left + right)).any(axis=0)
    groups: npt.NDArray[np.int64] = np.concatenate([[0], np.cumsum(new)])
    return groups


def _deviating(profiles: Floats, spread: float) -> Valid:
    distance = profiles - _neighbours(profiles)
    known = np.isfinite(distance)
    enough = known.sum(axis=0) >= max(3, 0.5 * len(profiles))
    middle = _nanmedian(np.where(enough, distance, np.nan))
    usual = 1.4826 * float(_nanmedian(np.abs(middle)[:, None])[0])
    agree = ((distance * np.sign(middle) > 0) & known).sum(axis=0) >= 0.8 * known.sum(axis=0)
    over = np.nan_to_num(np.abs(middle)) > max(SIGMAS * usual, HARM * spread)
    found: Valid = over & agree & enough
    narrow: Valid = found & (run_lengths(found[None], 1)[0] <= WIDE)
    return narrow


def _neighbours(profiles: Floats) -> Floats:
    """Median of the `SIDE` lines on each side of every line; NaN where one is unknown or outside."""
    padded = np.pad(profiles, ((0, 0), (SIDE, SIDE)), constant_values=np.nan)
    windows = np.lib.stride_tricks.sliding_window_view(padded, 2 * SIDE + 1, axis=1)
    result: Floats = np.median(np.delete(windows, SIDE, axis=2), axis=2)
    return result


def _nanmedian(values: Floats) -> Floats:
    """Median over axis 0 of what is known; NaN where nothing is."""
    known = np.isfinite(values)
    ordered = np.sort(np.where(known, values, np.inf), axis=0)
    number = known.sum(axis=0)
    low, high = np.maximum(number - 1, 0) // 2, np.minimum(number // 2, len(values) - 1)
    columns = np.arange(values.shape[1])
    both = np.where(number > 0, 0.5, np.nan)
    pair = np.where(number > 0, ordered[low, columns] + ordered[high, columns], 0.0)
    return both * pair


def periodic(deviating: Valid) -> Valid:
    """The lines among `deviating` that share a remainder for some period of 3 to 64 lines with enough others:
    at least four, and three quarters of all lines with that remainder."""
    kept = np.zeros_like(deviating)
    hits = np.flatnonzero(deviating)
    if len(hits) < 4:
        return kept
    for period in range(3, 65):
        number = np.bincount(hits % period, minlength=period)
        total = np.bincount(np.arange(len(deviating)) % period, minlength=period)
        good = (number >= 4) & (number >= 0.75 * total)
        kept[hits[good[hits % period]]] = True
    return kept
