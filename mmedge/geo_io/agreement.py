"""Whether the sensors of a scene belong together: do they overlap, is their time the same, do they lie on each other.

Nothing is corrected here: what is found is said, with numbers, and a person decides.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from itertools import combinations

import numpy as np
import numpy.typing as npt

from mmedge.geo_io.ground import gsd_m
from mmedge.geo_io.rasters.places import PlaceMap
from mmedge.geo_io.source import Source
from mmedge.grid import Grid, Window
from mmedge.tile import Data, Valid

Image = npt.NDArray[np.float64]
Said = tuple[str, tuple[str, ...]]  # a warning, and the sensors that it is about

# A sensor that lies under less than this share of the map's grid barely overlaps the others.
MIN_OVERLAP = 0.1
OVERLAP_PLACES = 32  # along each side of the grid
# Radar and optics of one place are seldom more than 12 days apart where both fly; a month is another season.
MAX_GAP_DAYS = 30

# Windows of 96 pixels, 3 x 3 of them spread over the scene (2 x 2 where more would show the same), a search of 8 pixels
# to each side. Shifts of 0.25 to 3.8 pixels injected into examples/chile (radar against optics) are found within 0.08
# pixels rms; see docs.
SHIFT_PX, SHIFT_PLACES, SEARCH_PX = 96, 3, 8
MIN_WINDOWS, MIN_VALID = 3, 0.9
# The peak's height over the rest of the correlation, in standard deviations. Between sensors that show different edges
# (optics and elevation) it is 4 to 8 whatever the shift.
MIN_PEAK = 12.0
# Two optical or two radar sources are off by less than 0.35 px in all open scenes. Radar and optics see other edges of
# the same field: the four TerraMesh scenes, as published, are 1.1 to 2.0 px apart where a shift can be measured.
LIKE_SHIFT_PX, UNLIKE_SHIFT_PX = 0.5, 2.5
SMOOTH = 0.25  # cycles a pixel: the width of the low pass on the cross spectrum, whose high end is noise


def disagreements(sources: Mapping[str, Source], reference: Grid) -> dict[str, tuple[str, ...]]:
    """Warnings about sensors that barely overlap, were acquired far apart, or do not lie on each other, and of which.

    Elevation has no date and no shift: terrain keeps, and its edges are others than those of images.
    """
    if len(sources) < 2:
        return {}
    images = {name: source for name, source in sources.items() if source.info.unit != "m"}
    return dict([*_overlaps(sources, reference), *_gaps(images), *_shifts(images, reference)])


def _overlaps(sources: Mapping[str, Source], reference: Grid) -> Iterator[Said]:
    for name, source in sources.items():
        share = min((_share(grid, reference) for grid in source.info.grids), default=1.0)
        if share < MIN_OVERLAP:
            said = f"covers {share:.1%} of" if share else "does not touch"
            yield (
                f"`{name}` {said} the grid that is mapped: the rest is made without it; if it should overlap, check "
                "its CRS, or choose another grid with `--reference`",
                (name,),
            )


def _share(grid: Grid, reference: Grid) -> float:
    """Share of the reference that a grid covers."""
    steps = (np.arange(OVERLAP_PLACES) + 0.5) / OVERLAP_PLACES
    place = PlaceMap(grid, reference)
    row, col = place.exact(steps[:, None] * reference.rows - 0.5, steps[None] * reference.cols - 0.5)
    return float(((row >= 0) & (row < grid.rows) & (col >= 0) & (col < grid.cols)).mean())


def _gaps(sources: Mapping[str, Source]) -> Iterator[Said]:
    for one, other in combinations(sources, 2):
        a, b = sources[one].info.acquired, sources[other].info.acquired
        if a and b and (days := max(a.start - b.end, b.start - a.end).days) > MAX_GAP_DAYS:
            yield (
                f"`{one}` ({a}) and `{other}` ({b}) were acquired {days} days apart: what changed between them is in "
                "one of them only; use scenes of one season, or leave one out with `--available`",
                (one, other),
            )


def _shifts(sources: Mapping[str, Source], reference: Grid) -> Iterator[Said]:
    edges: dict[str, list[Image | None]] = {}
    if len(sources) > 1 and min(reference.shape) >= SHIFT_PX:
        edges = {name: [_edges(*source.read(w)) for w in _windows(reference)] for name, source in sources.items()}
    for one, other in combinations(edges, 2):
        pairs = [(a, b) for a, b in zip(edges[one], edges[other], strict=True) if a is not None and b is not None]
        if len(pairs) < MIN_WINDOWS:
            continue
        down, right, peak = measure_shift(pairs)
        off, like = float(np.hypot(down, right)), sources[one].info.unit == sources[other].info.unit
        if peak >= MIN_PEAK and off > (LIKE_SHIFT_PX if like else UNLIKE_SHIFT_PX):
            yield (
                f"`{other}` lies {off:.1f} pixels ({off * gsd_m(reference):.0f} m) off `{one}`: {down:+.1f} rows, "
                f"{right:+.1f} columns; register it first, or leave it out with `--available`",
                (one, other),
            )


def _windows(grid: Grid) -> list[Window]:
    places = SHIFT_PLACES if min(grid.shape) >= 2 * SHIFT_PX else 2
    rows, cols = (np.linspace(0, size - SHIFT_PX, places).round().astype(int) for size in grid.shape)
    return [Window(int(row), int(col), SHIFT_PX, SHIFT_PX) for row in rows for col in cols]


def _edges(data: Data, valid: Valid) -> Image | None:
    """Gradient magnitude (rows, cols), each band in units of its own spread; None where too little is valid."""
    if valid.mean() < MIN_VALID:
        return None
    total = np.zeros(valid.shape)
    for band in data.astype(np.float64):
        slope = np.hypot(*np.gradient(np.where(valid, band, band[valid].mean())))
        total += slope / max(float(slope.std()), 1e-12)
    return total


def measure_shift(pairs: list[tuple[Image, Image]]) -> tuple[float, float, float]:
    """(rows, columns) by which the second images lie off the first, in pixels, and how far the peak stands out.

    Phase correlation over all pairs of square images of one size (Kuglin and Hines 1975), its peak interpolated by a
    parabola along each axis.
    """
    side = len(pairs[0][0])
    taper = np.outer(np.hanning(side), np.hanning(side))
    frequency = np.fft.fftfreq(side)
    cross = np.zeros((side, side), complex)
    for first, second in pairs:
        one, other = (np.fft.fft2((image - image.mean()) * taper) for image in (first, second))
        product = other * np.conj(one)
        cross += product / np.maximum(np.abs(product), 1e-12)
    cross *= np.exp(-(frequency[:, None] ** 2 + frequency[None] ** 2) / (2 * SMOOTH**2))
    surface = np.fft.fftshift(np.fft.ifft2(cross).real)
    low = side // 2 - SEARCH_PX
    near = surface[low : low + 2 * SEARCH_PX + 1, low : low + 2 * SEARCH_PX + 1]
    row, col = (int(v) + low for v in np.unravel_index(int(near.argmax()), near.shape))
    rest = np.ones(surface.shape, bool)
    rest[row - 3 : row + 4, col - 3 : col + 4] = False
    height = (surface[row, col] - surface[rest].mean()) / max(float(surface[rest].std()), 1e-12)
    down = row - side // 2 + _vertex(surface[row - 1 : row + 2, col])
    right = col - side // 2 + _vertex(surface[row, col - 1 : col + 2])
    return down, right, float(height)


def _vertex(three: Image) -> float:
    """Where the parabola through three values has its extremum, counted from the middle one."""
    before, here, after = (float(v) for v in three)
    bend = before - 2 * here + after
    return 0.5 * (before - after) / bend if bend else 0.0
