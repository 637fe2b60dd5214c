"""What goes missing while training: whole sensors, and holes in those that stay."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path

import numpy as np
import numpy.typing as npt

from mmedge.geo_io.failures.causes import Cause
from mmedge.geo_io.failures.clouds import cloud_shapes
from mmedge.geo_io.failures.injection import Levels
from mmedge.geo_io.failures.simulate import draw
from mmedge.grid import Window

Bool = npt.NDArray[np.bool_]
Rng = np.random.Generator
# How sensors fail in part, by the unit of what they give; clouds most of all.
FAILURES: Mapping[str, tuple[Cause, ...]] = {
    "reflectance": ("cloud", "cloud", "cloud", "missing_swath", "slc_off", "dead_line"),
    "dB": ("missing_swath", "border_noise"),
    "m": ("lidar_void", "missing_swath"),
    "raw": ("missing_swath", "dead_line"),
}
LOST_WHOLE = 1 / 3


def patterns(sensors: tuple[str, ...]) -> list[tuple[str, ...]]:
    """The 2^M - 1 non-empty sets of sensors, smallest first."""
    return [c for n in range(1, len(sensors) + 1) for c in combinations(sensors, n)]


def kept_of(
    sampler: str,
    rng: Rng,
    present: Bool,
    sensors: tuple[str, ...],
    wish: Mapping[tuple[str, ...], float] | None = None,
) -> Bool:
    """Which of the `present` sensors (M,) an example keeps (M,), at least one of them.

    `uniform`: each non-empty set of those present is as likely as any other. `guided`: sets as likely as `wish` says,
    where it says something. `present` must not be empty.
    """
    if sampler == "guided" and wish:
        names = list(wish)
        weights = np.array([wish[n] for n in names])
        drawn = names[rng.choice(len(names), p=weights / weights.sum())]
        kept: Bool = present & np.array([m in drawn for m in sensors])
        if kept.any():
            return kept
    there = np.flatnonzero(present)
    code = int(rng.integers(1, 1 << len(there)))
    drawn_set: Bool = np.zeros(len(sensors), np.bool_)
    drawn_set[[m for i, m in enumerate(there) if code >> i & 1]] = True
    return drawn_set


def fixed_kept(seed: int, square: Sequence[int], eta: float, present: Bool) -> Bool:
    """MaMOL's protocol: a share `eta` of the squares loses something, and a square always loses the same."""
    rng = np.random.default_rng([seed, *square])
    if rng.random() >= eta:
        return present
    code = int(rng.integers(1, max(2, (1 << len(present)) - 1)))
    kept: Bool = present & np.array([bool(code >> i & 1) for i in range(len(present))])
    return kept if kept.any() else present


def realistic(
    rng: Rng, valid: Mapping[str, Bool], units: Mapping[str, str], eta: float
) -> tuple[dict[str, Bool], Bool]:
    """Failures as `mmedge simulate-failure` makes them: what stays valid, and which sensors (M,) are not lost whole.

    valid[m] (1, 1, H, W). In a share `eta` of the windows one sensor or more fails, a third of them as a whole and the
    others at 5 to 100 % of their pixels. Something always stays.
    """
    found, kept = dict(valid), np.array([v.any() for v in valid.values()])
    there = np.flatnonzero(kept)
    if not len(there) or rng.random() >= eta:
        return found, kept
    fails = rng.random(len(there)) < 0.5
    fails[rng.integers(len(there))] = True
    for name in [list(valid)[i] for i in there[fails]]:
        if rng.random() < LOST_WHOLE:
            kept[list(valid).index(name)] = False
            continue
        causes, shape = FAILURES[units[name]], valid[name].shape[-2:]
        none = Levels(low=np.zeros(1), high=np.ones(1), clip=np.ones(1))  # the place alone is wanted
        failure = draw(causes[rng.integers(len(causes))], shape, none, rng, fraction=float(rng.uniform(0.05, 1)))
        found[name] = valid[name] & ~failure.mask(Window(0, 0, *shape))
    kept &= np.array([v.any() for v in found.values()])
    return (found, kept) if kept.any() else (dict(valid), np.array([v.any() for v in valid.values()]))


def read_cloud_masks(path: Path) -> Bool:
    """Cloud masks (N, H, W) of the partly cloudy dates, True = cloud."""
    with np.load(path) as z:
        masks: Bool = z["clm"]
    share = masks.mean((1, 2))
    partly: Bool = masks[(share > 0.02) & (share < 0.98)]
    return partly


def packed_holes(size: int) -> Holes:
    """Holes with the cloud shapes that ship with the package, enlarged for windows that are larger than they."""
    masks = cloud_shapes()
    times = -(-size // min(masks.shape[1:]))
    return Holes(masks.repeat(times, 1).repeat(times, 2))


@dataclass(frozen=True, slots=True)
class Holes:
    """Draws holes: boxes, ellipses, dead lines, and cuts of real cloud masks where there are any."""

    clouds: Bool | None = None

    def draw(self, rng: Rng, size: int) -> Bool:
        """One hole in a window (size, size), True = lost. It never covers the window."""
        kinds = [_box, _ellipse, _stripes, self._cloud]
        for _ in range(8):
            hole = kinds[rng.choice(4, p=(0.3, 0.25, 0.1, 0.35))](rng, size)
            if 0 < hole.mean() < 0.9:
                return hole
        return _box(rng, size)

    def _cloud(self, rng: Rng, size: int) -> Bool:
        if self.clouds is None:
            return _ellipse(rng, size)
        mask = self.clouds[rng.integers(len(self.clouds))]
        row, col = (rng.integers(n - size + 1) for n in mask.shape)
        cutout = np.rot90(mask[row : row + size, col : col + size], int(rng.integers(4)))
        return np.ascontiguousarray(cutout[:, ::-1] if rng.random() < 0.5 else cutout)


def _box(rng: Rng, size: int) -> Bool:
    height, width = rng.integers(4, size * 5 // 8, 2)
    row, col = rng.integers(-height // 2, size - height // 2), rng.integers(-width // 2, size - width // 2)
    hole = np.zeros((size, size), np.bool_)
    hole[max(0, row) : row + height, max(0, col) : col + width] = True
    return hole


def _ellipse(rng: Rng, size: int) -> Bool:
    rows, cols = np.mgrid[:size, :size]
    angle = rng.uniform(0, np.pi)
    y, x = rows - rng.uniform(0, size), cols - rng.uniform(0, size)
    along, across = x * np.cos(angle) + y * np.sin(angle), y * np.cos(angle) - x * np.sin(angle)
    hole: Bool = (along / rng.uniform(3, size / 2)) ** 2 + (across / rng.uniform(3, size / 2)) ** 2 < 1
    return hole


def _stripes(rng: Rng, size: int) -> Bool:
    """Dead lines, or a scene's border: a run of rows or columns, once or at intervals."""
    lines = np.zeros(size, np.bool_)
    thick, step = rng.integers(1, 9), rng.integers(12, 2 * size)
    for start in range(int(rng.integers(0, size)), size, int(step)):
        lines[start : start + thick] = True
    hole = np.broadcast_to(lines[:, None], (size, size))
    return np.ascontiguousarray(hole if rng.random() < 0.5 else hole.T)
