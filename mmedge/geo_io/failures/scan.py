"""First pass of failure detection: what only the whole scene can tell, from a few slabs of it.

At most `SLABS` bands of `SLAB_PX` full rows and as many of full columns are read, one at a time: memory grows with a
scene's sides, not with its area. A scene of up to SLABS * SLAB_PX pixels a side is seen whole.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt

from mmedge.geo_io.failures.runs import box_count, box_mean, run_lengths
from mmedge.geo_io.failures.striping import striped
from mmedge.geo_io.failures.swath import Swath, swath_of
from mmedge.grid import Window
from mmedge.tile import Data, Valid

Kind = Literal["optical", "sar", "elevation"]
Reader = Callable[[Window], tuple[Data, Valid]]
Floats = npt.NDArray[np.float64]

SLABS, SLAB_PX = 6, 128
SAMPLE_PX = 200_000
SMOOTH_PX = 9
LEVELS = 32  # a band with fewer is a map or a mask, not a measurement
CEILING_PX = 64  # more than one 60 m pixel repeated on a 10 m grid, which is 36
GAP_PX = 24  # rows of the highest SLC-off gap: in three real scenes of 25 m, 99 % have at most 19


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Scan:
    """Verdicts on a scene of `shape`. Per band, (bands,) float64: `fill` (an undeclared nodata value, else NaN), `low`
    (1st percentile), `spread` (10th to 90th percentile), `ceiling` (the value at which it saturates, else NaN),
    `step` (median difference of neighbours in a row); and
    `coarse`, bool: it has so few levels that runs and steps of its values mean nothing.

    `dropped` are indices of bands that carry nothing; `striped_rows` and `striped_cols` the lines whose gain is off;
    `gap_period_px` the distance of SLC-off gaps (NaN: none); `noise_floor_db` what the sensor saw at its darkest.
    """

    kind: Kind
    shape: tuple[int, int]
    fill: Floats
    low: Floats
    spread: Floats
    ceiling: Floats
    step: Floats
    coarse: Valid
    dropped: tuple[int, ...]
    striped_rows: Valid
    striped_cols: Valid
    swath: Swath
    gap_period_px: float
    noise_floor_db: float


@np.errstate(over="ignore", invalid="ignore")  # as in local.failure_masks
def scan(read: Reader, shape: tuple[int, int], *, kind: Kind) -> Scan:
    """Look at a scene of `shape` (rows, cols) through `read` (a `Source.read`); see `Scan`."""
    if kind not in ("optical", "sar", "elevation"):
        raise ValueError(f"kind must be optical, sar or elevation, got {kind!r}")
    sample = _sample(read, shape)
    fill = fill_values(sample, kind)
    kept = sample[~(sample == fill).all(axis=1)]
    levels = _levels(kept)
    seen_rows = _Lines(read, shape, 1, fill, kind)
    seen_cols = _Lines(read, shape, 0, fill, kind)
    stripes = kind != "elevation"
    none = np.zeros(0, bool)
    return Scan(
        kind=kind,
        shape=shape,
        fill=fill,
        low=levels[1],
        spread=levels[3] - levels[2],
        ceiling=ceilings(kept) if kind == "optical" else np.full(fill.shape, np.nan),
        step=np.array([np.median(steps) if steps else np.nan for steps in seen_rows.steps]),
        coarse=_coarse(kept),
        dropped=_dropped(kept) if stripes else (),
        striped_rows=striped(seen_cols.profiles, levels[3] - levels[2], shape[0]) if stripes else none,
        striped_cols=striped(seen_rows.profiles, levels[3] - levels[2], shape[1]) if stripes else none,
        swath=swath_of(seen_rows.spans, seen_cols.spans, shape),
        gap_period_px=gap_period(seen_cols.runs) if kind == "optical" else np.nan,
        noise_floor_db=noise_floor(seen_rows.smooth),
    )


def slabs(shape: tuple[int, int], axis: int) -> Iterator[Window]:
    """Slabs of full rows (axis 1) or full columns (axis 0), spread evenly, at most `SLABS`, without overlap."""
    length = shape[1 - axis]
    starts = range(0, length, SLAB_PX)
    if len(starts) > SLABS:
        starts = sorted({round(i * (length - SLAB_PX) / (SLABS - 1)) for i in range(SLABS)})  # type: ignore[assignment]
    for start in starts:
        size = min(SLAB_PX, length - start)
        yield Window(start, 0, size, shape[1]) if axis == 1 else Window(0, start, shape[0], size)


def looked_at(data: Data, valid: Valid) -> Valid:
    """Where a pixel can be judged at all: usable, and finite in every band."""
    return valid & np.isfinite(data).all(axis=0)


def is_fill(data: Data, fill: Floats) -> Valid:
    """Pixels that hold the undeclared nodata value in every band."""
    found: Valid = (data == fill[:, None, None]).all(axis=0)
    return found


def _sample(read: Reader, shape: tuple[int, int]) -> Floats:
    """Usable pixels of the row slabs, thinned to about `SAMPLE_PX`: (pixels, bands)."""
    area = sum(w.height * w.width for w in slabs(shape, 1))
    step = max(1, int(np.ceil(np.sqrt(area / SAMPLE_PX))))
    parts = []
    for window in slabs(shape, 1):
        data, valid = read(window)
        thin, keep = data[:, ::step, ::step], looked_at(data, valid)[::step, ::step]
        parts.append(thin[:, keep].T.astype(np.float64))
    return np.concatenate(parts)


def _levels(sample: Floats) -> Floats:
    """Minimum, 1st, 10th, 90th percentile and maximum per band: (5, bands); NaN where there is no pixel."""
    if not len(sample):
        return np.full((5, sample.shape[1]), np.nan)
    return np.percentile(sample, [0, 1, 10, 90, 100], axis=0)


def fill_values(sample: Floats, kind: Kind) -> Floats:
    """The value per band that stands for "nothing here" without being declared, else NaN.

    It is the minimum of all bands in the same pixels (at least 0.1 % of them), and a band shows it cut off from the
    rest: the other pixels' 1st percentile lies above a tenth of the way to their median. Dark water, which is clamped
    in some bands and fades in the others, is not taken. Heights: an empty range of 50 m, and of the scene's own spread,
    lies above it, for 0 m is where the sea is.
    """
    none = np.full(sample.shape[1], np.nan)
    if len(sample) < 2:
        return none
    lowest = sample.min(axis=0)
    here = (sample == lowest).all(axis=1)
    rest = sample[~here]
    if here.mean() < 1e-3 or len(rest) < 100:
        return none
    if kind == "elevation":
        spread = np.subtract(*np.percentile(rest, [95, 5], axis=0))
        cut = (rest.min(axis=0) - lowest > np.maximum(spread, 50)).all()
    else:
        dark, middle = np.percentile(rest, [1, 50], axis=0)
        cut = (dark - lowest > 0.1 * (middle - lowest)).any()
    return lowest if cut else none


def ceilings(sample: Floats) -> Floats:
    """The value per band at which it saturates, else NaN: at least `CEILING_PX` pixels are exactly at the maximum, and
    more of them than in the 2 % of the range below it. A natural tail thins out, a clipped one piles up."""
    result = np.full(sample.shape[1], np.nan)
    for band, values in enumerate(sample.T):
        if not len(values) or values.max() == values.min():
            continue
        top, range_ = values.max(), values.max() - values.min()
        at = np.count_nonzero(values == top)
        near = np.count_nonzero((values < top) & (values >= top - 0.02 * range_))
        if at >= CEILING_PX and at > near:
            result[band] = top
    return result


def _coarse(sample: Floats) -> Valid:
    few = [len(values) >= 1000 and len(np.unique(values)) < LEVELS for values in sample.T]
    return np.array(few, bool)


def _dropped(sample: Floats) -> tuple[int, ...]:
    """Bands in which every pixel has one value, where other bands do not."""
    if len(sample) < 100:
        return ()
    flat = sample.min(axis=0) == sample.max(axis=0)
    return tuple(int(b) for b in np.flatnonzero(flat)) if flat.size > 1 and not flat.all() else ()


def gap_period(runs: list[tuple[Floats, Floats]]) -> float:
    """Distance in rows of SLC-off gaps, NaN where there are none; `runs` gives each column's gap centres and lengths.

    A column shows them where at least four gaps of 2 to `GAP_PX` rows follow each other at one distance (16 to 64 rows,
    within 15 % of the median, for three in four). The scene has them where a twentieth of its columns do.
    """
    periods = []
    for centres, lengths in runs:
        gaps = centres[(lengths >= 2) & (lengths <= GAP_PX)]
        steps = np.diff(gaps)
        if len(steps) < 3:
            continue
        middle = float(np.median(steps))
        if 16 <= middle <= 64 and np.mean(np.abs(steps - middle) <= 0.15 * middle) >= 0.75:
            periods.append(middle)
    return float(np.median(periods)) if periods and len(periods) >= 0.05 * len(runs) else float("nan")


def noise_floor(smooth: tuple[list[Floats], list[Floats]]) -> float:
    """Darkest the scene gets away from its border, in dB: the 0.5th percentile of the means far away, or else of those
    not quite so far; NaN where there are fewer than 100 of either."""
    for means in smooth:
        values = np.concatenate(means) if means else np.zeros(0)
        if len(values) >= 100:
            return float(np.percentile(values, 0.5))
    return float("nan")


class _Lines:
    """Facts gathered along `axis` (1: from slabs of rows, 0: of columns), one slab in memory at a time.

    profiles: per band a list of mean profiles over 32 lines each; spans: first and last seen pixel of each line;
    steps: per band a slab's median step; runs: gaps of every 8th column; smooth: box means away from what was not seen.
    """

    def __init__(self, read: Reader, shape: tuple[int, int], axis: int, fill: Floats, kind: Kind) -> None:
        self.profiles: list[list[Floats]] = [[] for _ in fill]
        self.steps: list[list[float]] = [[] for _ in fill]
        self.spans: dict[int, tuple[int, int]] = {}
        self.runs: list[tuple[Floats, Floats]] = []
        self.smooth: tuple[list[Floats], list[Floats]] = ([], [])
        for window in slabs(shape, axis):
            data, valid = read(window)
            seen = looked_at(data, valid) & ~is_fill(data, fill)
            if axis == 0:
                data, seen = data.transpose(0, 2, 1), seen.T
            start = window.row if axis == 1 else window.col
            self.spans |= {start + i: span for i, span in enumerate(_spans(seen))}
            if kind != "elevation":
                self._profile(data, seen)
            if kind == "optical" and axis == 0:
                self.runs += [_gaps(column) for column in seen[::8]]
            if kind == "sar" and axis == 1:
                self._step(data, seen)
                self._smooth(data, seen)

    def _profile(self, data: Data, seen: Valid) -> None:
        for top in range(0, seen.shape[0], 32):
            keep = seen[top : top + 32]
            number = keep.sum(axis=0)
            for band, values in enumerate(data[:, top : top + 32]):
                total = np.where(keep, values, 0).sum(axis=0, dtype=np.float64)
                self.profiles[band].append(np.where(number >= 8, total / np.maximum(number, 1), np.nan))

    def _step(self, data: Data, seen: Valid) -> None:
        both = seen[:, 1:] & seen[:, :-1]
        for band, values in enumerate(data):
            steps = np.abs(values[:, 1:] - values[:, :-1])[both][::4]
            if len(steps):
                self.steps[band].append(float(np.median(steps)))

    def _smooth(self, data: Data, seen: Valid) -> None:
        """Means of pixels away from anything unseen: 128 px, or 64 px where the scene is too small for that."""
        darkest = np.max([box_mean(band, seen, SMOOTH_PX) for band in data], axis=0)
        for means, side in zip(self.smooth, (257, 129), strict=True):
            far = box_count(~seen, side, side) == 0
            means.append(darkest[far & np.isfinite(darkest)][::4])


def _spans(seen: Valid) -> list[tuple[int, int]]:
    """First and last True of each row; (length, -1) where there is none."""
    some, length = seen.any(axis=1), seen.shape[1]
    first = np.where(some, seen.argmax(axis=1), length)
    last = np.where(some, length - 1 - seen[:, ::-1].argmax(axis=1), -1)
    return list(zip(first.tolist(), last.tolist(), strict=True))


def _gaps(seen: Valid) -> tuple[Floats, Floats]:
    """Centres and lengths of the unseen runs of one line that have seen pixels at both ends."""
    lengths = run_lengths(~seen[None], 1)[0]
    edges = np.diff(np.concatenate([[0], (~seen).astype(np.int8), [0]]))
    first, stop = np.flatnonzero(edges == 1), np.flatnonzero(edges == -1)
    inside = (first > 0) & (stop < len(seen))
    first, stop = first[inside], stop[inside]
    return (first + stop) / 2.0, lengths[first].astype(np.float64)
