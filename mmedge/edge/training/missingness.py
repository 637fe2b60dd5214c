"""What goes missing while training: whole sensors, and holes in those that stay."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import combinations
from pathlib import Path

import numpy as np
import numpy.typing as npt

Bool = npt.NDArray[np.bool_]
Rng = np.random.Generator


def patterns(sensors: tuple[str, ...]) -> list[tuple[str, ...]]:
    """The 2^M - 1 non-empty sets of sensors, smallest first."""
    return [c for n in range(1, len(sensors) + 1) for c in combinations(sensors, n)]


def read_cloud_masks(path: Path) -> Bool:
    """Cloud masks (N, H, W) of the partly cloudy dates, True = cloud."""
    with np.load(path) as z:
        masks: Bool = z["clm"]
    share = masks.mean((1, 2))
    partly: Bool = masks[(share > 0.02) & (share < 0.98)]
    return partly


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
