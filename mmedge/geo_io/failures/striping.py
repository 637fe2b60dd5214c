"""Periodic striping: lines whose detector has another gain or offset than its neighbours', at a fixed distance."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from mmedge.geo_io.failures.runs import run_lengths
from mmedge.tile import Valid

Floats = npt.NDArray[np.float64]
Lines = npt.NDArray[np.int64]

SIDE = 4  # neighbours on each side that a line is compared with
# A line deviates beyond so many robust standard deviations of lines; at least this share of all lines is expected to.
LEVELS = ((2.0, 0.02), (5.0, 0.002))
HARM = 0.02  # of the band's spread: a fainter stripe is not worth the pixels
AGREE = 2 / 3  # of the segments along a line have the sign of its median
WIDE = 2  # more deviating lines side by side are a thing on the ground
PERIODS = range(3, 65)
CHANCE = 1e-9  # some 10,000 classes of lines are looked at in a scene, and lines on the ground depend on each other


def striped(profiles: list[list[Floats]], spread: Floats, length: int) -> Valid:
    """Lines to give up, (length,) bool, in any band.

    `profiles[band]` are mean profiles across the lines, one for each 32 px along them; `spread` is each band's 10th to
    90th percentile. Lines with one remainder for some period of 3 to 64 are a class, as the lines of one detector are.
    A class is striped where so many of its lines deviate from their neighbours to one side that chance, with the share
    of all lines that do, would not bring it about: roads and field edges have no period. All of its lines are given up.
    """
    found = np.zeros(length, bool)
    for band, segments in enumerate(profiles):
        if len(segments) >= 3 and length >= 4 * SIDE:
            table = np.stack(segments)
            groups = _groups(table)
            distinct = table[:, np.unique(groups, return_index=True)[1]]
            found |= _classes(distinct, HARM * float(spread[band]))[groups]
    return found


def _groups(profiles: Floats) -> npt.NDArray[np.int64]:
    """Number of the native line that each line repeats: bands of 20 and 60 m come repeated on a 10 m grid."""
    left, right = profiles[:, :-1], profiles[:, 1:]
    new = ((left != right) & np.isfinite(left + right)).any(axis=0)
    groups: npt.NDArray[np.int64] = np.concatenate([[0], np.cumsum(new)])
    return groups


def _classes(profiles: Floats, least: float) -> Valid:
    """Lines of striped classes, which deviate by `least` or more."""
    lines = np.arange(profiles.shape[1])
    found = np.zeros(len(lines), bool)
    for hits, known, share in _deviating(profiles - _neighbours(profiles), least):
        for period in PERIODS[1:]:
            found |= _striped(hits, known, share, period)[lines % period]
    for place in range(PERIODS[0]):  # every third line: three in eight neighbours deviate as well, and are left out
        mine = lines % PERIODS[0] == place
        for hits, known, share in _deviating(profiles - _nearest(np.where(mine, np.nan, profiles)), least):
            if _striped(hits, known, share, PERIODS[0])[place]:
                found |= mine
    return found


def _deviating(distance: Floats, least: float) -> list[tuple[Lines, Lines, float]]:
    """Lines whose median `distance` is high, or low, at each level; the lines that were asked; the share that is."""
    told = np.isfinite(distance)
    middle = _nanmedian(np.where(told.sum(axis=0) >= max(3, 0.5 * len(distance)), distance, np.nan))
    some = np.isfinite(middle)
    usual = 1.4826 * float(_nanmedian(np.abs(middle)[:, None])[0])
    found = []
    for sign in (1.0, -1.0):
        agree = ((sign * distance > 0) & told).sum(axis=0) >= AGREE * told.sum(axis=0)
        for sigmas, expected in LEVELS:
            over = some & (sign * np.nan_to_num(middle) > max(sigmas * usual, least)) & agree
            narrow = over & (run_lengths(over[None], 1)[0] <= WIDE)
            share = max(expected, float(over.sum()) / max(1, int(some.sum())))
            found.append((np.flatnonzero(narrow), np.flatnonzero(some), share))
    return found


def _striped(hits: Lines, known: Lines, share: float, period: int) -> Valid:
    """Which of the classes of a period are striped: three quarters of their lines are hit, and at least four, where
    `share` of all are; by Chernoff's bound on the binomial tail."""
    number = np.bincount(hits % period, minlength=period)
    if number.max() < 4:
        return np.zeros(period, bool)
    lines = np.bincount(known % period, minlength=period)
    part = np.clip(number / np.maximum(lines, 1), share, 1 - 1e-12)
    far = part * np.log(part / share) + (1 - part) * np.log((1 - part) / (1 - share))
    result: Valid = (number >= 4) & (part >= 0.75) & (lines * far > -np.log(CHANCE))
    return result


def _neighbours(profiles: Floats) -> Floats:
    """Median of the `SIDE` lines on each side of every line; NaN where one is unknown or outside."""
    padded = np.pad(profiles, ((0, 0), (SIDE, SIDE)), constant_values=np.nan)
    windows = np.lib.stride_tricks.sliding_window_view(padded, 2 * SIDE + 1, axis=1)
    result: Floats = np.median(np.delete(windows, SIDE, axis=2), axis=2)
    return result


def _nearest(profiles: Floats) -> Floats:
    """Mean of what is known of the two lines on each side, of both sides alike; NaN where a side has none."""
    padded = np.pad(profiles, ((0, 0), (2, 2)), constant_values=np.nan)
    near, far = (padded[:, 1:-3], padded[:, 3:-1]), (padded[:, :-4], padded[:, 4:])
    sides = [np.where(np.isfinite(a), a, b) for a, b in zip(near, far, strict=True)]
    return (sides[0] + sides[1]) / 2


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
