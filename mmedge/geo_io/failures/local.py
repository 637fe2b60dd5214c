"""Second pass of failure detection: which pixels of a window failed, given the scan's verdicts.

Every rule looks at most `HALO_PX` pixels away, so that a window read with that halo gives what the whole scene gives.
Arrays are (bands, rows, cols) float32, masks and `valid` (rows, cols) bool.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from mmedge.geo_io.failures.runs import box_count, box_mean, constant_runs, has_run, last_true, run_lengths
from mmedge.geo_io.failures.scan import GAP_PX, SMOOTH_PX, Scan, is_fill, looked_at
from mmedge.geo_io.failures.swath import DEPTH_PX
from mmedge.grid import Window
from mmedge.tile import Data, Valid

HALO_PX = 160
LINE_PX = 64  # a dead or stuck line is constant over this many pixels ...
THICK_PX = 8  # ... and at most this thick
WALK_PX = 16  # an SLC-off gap goes on sideways for at least this many columns
BORDER_PX = 128  # how far SAR border noise is followed from the edge of the swath
NOISE_DB = 3.0  # border noise is darker by this than anything inside the scene ...
DARK_DB = -28.0  # ... and than this: cut borders of good scenes give no alarm in VV and VH together
ROUGH = 1.0  # a flipped pixel differs from its neighbours by more than the 10th to 90th percentile range, times this,
DENSE = 25, 3, 4  # ... with so many such pixels in a box of 9 x 9; it has so many (4) in a box (3 x 3) around it itself
SPECKLE = 4.0  # under SAR, where speckle is alike everywhere in dB: by more than the median step in a row, times this,
DENSE_SAR = 38, 5, 10  # ... in towns at most 33 of the 81 pixels do


@np.errstate(over="ignore", invalid="ignore")  # garbage may be infinite, and a nodata value of -3.4e38 undeclared
def failure_masks(data: Data, valid: Valid, window: Window, scan: Scan) -> dict[str, Valid]:
    """One mask for each of `causes.DETECTED`, in that order. `window` is where the arrays lie in the scanned scene."""
    judged = looked_at(data, valid)
    empty = ~judged | is_fill(data, scan.fill)
    swath = empty & scan.swath.outside(window)
    gaps = slc_off(empty & ~swath, scan.gap_period_px)
    lines, stuck_lines = dead_lines(data, judged, scan, axis=1)
    cols, stuck_cols = dead_lines(data, judged, scan, axis=0)
    named = gaps | swath
    return {
        "dead_line": lines & ~named,
        "dead_column": cols & ~named,
        "striping": striping(window, scan) & judged,
        "slc_off": gaps,
        "dropped_band": judged if scan.dropped else np.zeros_like(judged),
        "stuck": (stuck_lines | stuck_cols) & ~named,
        "saturated": saturated(data, scan) & judged,
        "bit_flip": bit_flips(data, judged & ~empty, scan),
        "border_noise": border_noise(data, judged & ~empty, swath | empty & _rim(window, scan), scan),
        "missing_swath": swath,
        "lidar_void": empty & ~swath if scan.kind == "elevation" else np.zeros_like(judged),
    }


def dead_lines(data: Data, judged: Valid, scan: Scan, *, axis: int) -> tuple[Valid, Valid]:
    """Lines along `axis` (1: rows, 0: columns) that are constant where their neighbours are not: dead, and stuck.

    In some band at least `LINE_PX` pixels in a row have one value (or none), the line is at most `THICK_PX` thick, and
    for nine in ten of its pixels the next line on either side has another value. Dead: no value, or one at most the
    band's 1st percentile. Stuck: any other value. Flat rivers and lakes make constant runs in heights, and so do all
    things in a band of few levels: there only missing values count.
    """
    none = np.zeros(judged.shape, bool)
    dead, stuck = none, none
    if scan.shape[axis] < LINE_PX:
        return dead, stuck
    for band, low, fill, coarse in zip(data, scan.low, scan.fill, scan.coarse, strict=True):
        values = np.where(judged, band, np.inf)
        if not has_run(values, LINE_PX, axis):
            continue
        found = _thin_lines(values if axis == 1 else np.ascontiguousarray(values.T))
        found = found if axis == 1 else found.T
        off = ~judged | (band == fill)
        if scan.kind == "elevation" or coarse:
            found &= off
        dark = off | (band <= low)
        dead, stuck = dead | found & dark, stuck | found & ~dark
    return dead, stuck


def _thin_lines(values: npt.NDArray[np.float32]) -> Valid:
    long = constant_runs(values, 1) >= LINE_PX
    if not long.any():
        return long
    thick = run_lengths(long, 0)
    long &= thick <= THICK_PX
    single = thick == 1
    differs = long & _differs(values, long, single) & _differs(values[::-1], long[::-1], single[::-1])[::-1]
    side = 2 * LINE_PX + 1
    return long & (10 * box_count(differs, 1, side) >= 9 * box_count(long, 1, side))


def _differs(values: npt.NDArray[np.float32], line: Valid, otherwise: Valid) -> Valid:
    """Where the nearest pixel above that belongs to no line has another value; `otherwise` where there is none."""
    result, above, known = otherwise.copy(), np.zeros_like(values[0]), np.zeros(values.shape[1], bool)
    for row in np.flatnonzero(line.any(axis=1) | np.append(line[1:].any(axis=1), False)):
        here = line[row] & known
        result[row, here] = (above != values[row])[here]
        free = ~line[row]
        above, known = np.where(free, values[row], above), known | free
    return result


def striping(window: Window, scan: Scan) -> Valid:
    """Pixels on the lines that the scan found striped."""
    mask = np.zeros((window.height, window.width), bool)
    if scan.striped_rows.size:
        mask |= scan.striped_rows[window.row : window.row + window.height, None]
        mask |= scan.striped_cols[None, window.col : window.col + window.width]
    return mask


def slc_off(empty: Valid, period_px: float) -> Valid:
    """Gaps of Landsat 7's broken scan-line corrector: 2 to `GAP_PX` rows high, one `period_px` above or below another,
    and going on sideways for `WALK_PX` columns."""
    if not np.isfinite(period_px):
        return np.zeros(empty.shape, bool)
    height = run_lengths(empty, 0)
    thin = empty & (height >= 2) & (height <= GAP_PX)
    return thin & _partner(thin, period_px) & _oblong(thin)


def _partner(thin: Valid, period_px: float) -> Valid:
    slack = max(3, round(0.15 * period_px))
    near = box_count(thin, 2 * slack + 1, 1) > 0
    step = round(period_px)
    found = np.zeros_like(thin)
    found[step:] |= near[:-step]
    found[:-step] |= near[step:]
    return found


def _oblong(thin: Valid) -> Valid:
    """Part of a piece along which one can walk 16 columns, to the left or to the right."""
    return thin & (_walk(thin) | _walk(thin[:, ::-1])[:, ::-1])


def _walk(thin: Valid) -> Valid:
    """Where one can go `WALK_PX` columns to the left without leaving `thin`, moving one row a column at most."""
    there = thin.copy()
    for _ in range(WALK_PX):
        before = np.zeros(there.shape, bool)
        before[:, 1:] = there[:, :-1]
        before[1:, 1:] |= there[:-1, :-1]
        before[:-1, 1:] |= there[1:, :-1]
        there &= before
    return there


def saturated(data: Data, scan: Scan) -> Valid:
    """Pixels that are at the ceiling of some band."""
    found: Valid = np.zeros(data.shape[1:], bool)
    for band, ceiling in zip(data, scan.ceiling, strict=True):
        found |= band >= ceiling
    return found


def bit_flips(data: Data, seen: Valid, scan: Scan) -> Valid:
    """Blocks of garbage: in a band three in ten pixels of a 9 x 9 box stand out from their neighbours; under SAR half.

    A pixel stands out where it differs from the mean of the middle two of its four neighbours by more than
    `ROUGH` times the scene's 10th to 90th percentile range; under SAR `SPECKLE` times the usual step in a row will do.
    One bright roof does; a block full of them does not occur.
    """
    found = np.zeros(seen.shape, bool)
    if scan.kind == "elevation":
        return found
    many, side, enough = DENSE_SAR if scan.kind == "sar" else DENSE
    for band, usual, coarse in zip(data, _roughest(scan), scan.coarse, strict=True):
        limit = np.float32(usual)
        if coarse or not limit > 0 or _steep(band, limit) < 13:  # many pixels that stand out make 13 steep pairs
            continue
        odd = seen & (np.abs(band - _neighbours(np.where(seen, band, np.nan))) > limit)
        dense = box_count(odd, 9, 9) >= many
        found |= (box_count(dense, 9, 9) > 0) & (odd | (box_count(odd, side, side) >= enough))
    return found & seen


def _roughest(scan: Scan) -> npt.NDArray[np.float64]:
    """Step per band beyond which a pixel stands out. Speckle is alike everywhere, in dB: there the steps tell more."""
    limit = ROUGH * scan.spread
    return np.minimum(limit, SPECKLE * scan.step) if scan.kind == "sar" else limit


def _steep(band: npt.NDArray[np.float32], limit: np.float32) -> int:
    """Number of pairs of neighbours that differ by more than `limit`."""
    steps = (np.abs(band[1:] - band[:-1]), np.abs(band[:, 1:] - band[:, :-1]))
    return sum(int(np.count_nonzero(~(step <= limit))) for step in steps)


def _neighbours(band: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    padded = np.pad(band, 1, constant_values=np.nan)
    four = np.stack([padded[:-2, 1:-1], padded[2:, 1:-1], padded[1:-1, :-2], padded[1:-1, 2:]])
    result: npt.NDArray[np.float32] = (four.sum(axis=0) - four.max(axis=0) - four.min(axis=0)) / 2
    return result


def _rim(window: Window, scan: Scan) -> Valid:
    """Pixels less than `DEPTH_PX` from the scene's border."""
    rows = np.arange(window.row, window.row + window.height)[:, None]
    cols = np.arange(window.col, window.col + window.width)[None, :]
    inner_rows = (rows >= DEPTH_PX) & (rows < scan.shape[0] - DEPTH_PX)
    inner_cols = (cols >= DEPTH_PX) & (cols < scan.shape[1] - DEPTH_PX)
    return ~(inner_rows & inner_cols)


def border_noise(data: Data, seen: Valid, outside: Valid, scan: Scan) -> Valid:
    """Noise along the edge of a SAR swath: pixels darker than any real surface, with nothing brighter between them and
    what lies `outside` the swath, within `BORDER_PX`. Darkness is that of the 9 x 9 mean, in every band. (The problem:
    Ali et al. 2018, "Methods to remove the border noise from Sentinel-1 synthetic aperture radar data", JSTARS 11(3).)
    """
    if scan.kind != "sar" or not np.isfinite(scan.noise_floor_db) or not outside.any():
        return np.zeros(seen.shape, bool)
    limit = min(scan.noise_floor_db - NOISE_DB, DARK_DB)
    mean = np.max([box_mean(band, seen, SMOOTH_PX) for band in data], axis=0)
    dark = seen & ((mean < limit) | (np.isnan(mean) & (data.max(axis=0) < limit)))
    found = np.zeros(seen.shape, bool)
    for axis in (0, 1):
        found |= _follows(dark, outside, axis)
        found |= np.flip(_follows(np.flip(dark, axis), np.flip(outside, axis), axis), axis)
    return found


def _follows(dark: Valid, outside: Valid, axis: int) -> Valid:
    shape = [1, 1]
    shape[axis] = dark.shape[axis]
    here = np.arange(dark.shape[axis]).reshape(shape)
    edge, bright = last_true(outside, axis), last_true(~dark & ~outside, axis)
    result: Valid = dark & (edge > bright) & (here - edge <= BORDER_PX)
    return result
