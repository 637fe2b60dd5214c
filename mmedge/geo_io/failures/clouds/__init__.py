"""Real cloud shapes at any size: the partly cloudy masks of one Sentinel-2 site, mirrored, rotated, resampled."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from importlib.resources import files

import numpy as np

from mmedge.grid import Window
from mmedge.tile import Valid

SCALES = (1.0, 4.0)  # how much larger than at its own 10 m a mask may be drawn


@cache
def cloud_shapes() -> Valid:
    """The masks, (19, 101, 100) bool, True = cloud, read-only. eo-learn's test patch, MIT licence (LICENSE here)."""
    resource = files(__name__).joinpath("masks.npz")
    with resource.open("rb") as file, np.load(file) as stored:
        masks = np.unpackbits(stored["packed"], axis=2, count=int(stored["cols"])).astype(bool)
    masks.flags.writeable = False
    return masks


@dataclass(frozen=True, slots=True, kw_only=True)
class CloudField:
    """Mask `index` laid over an endless plane, mirrored at its edges so that no cloud is cut off by a straight line."""

    index: int
    row: float
    col: float
    angle: float
    scale: float

    def mask(self, window: Window, step: int = 1) -> Valid:
        """True = cloud, for every `step`-th pixel of `window`."""
        shape = cloud_shapes()[self.index]
        rows = np.arange(window.row, window.row + window.height, step, dtype=np.float64)[:, None]
        cols = np.arange(window.col, window.col + window.width, step, dtype=np.float64)[None, :]
        cosine, sine = np.cos(self.angle) / self.scale, np.sin(self.angle) / self.scale
        there: Valid = shape[
            _folded(self.row + cosine * rows - sine * cols, shape.shape[0]),
            _folded(self.col + sine * rows + cosine * cols, shape.shape[1]),
        ]
        return there


def draw_clouds(shape: tuple[int, int], fraction: float, rng: np.random.Generator, tries: int = 64) -> CloudField:
    """The best of `tries` random fields: its clouds cover about `fraction` of a scene of `shape`."""
    whole = Window(0, 0, *shape)
    step = max(1, max(shape) // 256)
    shares = cloud_shapes().mean(axis=(1, 2))
    nearest = np.argsort(np.abs(shares - fraction), kind="stable")[:6]
    fields = [
        CloudField(
            index=int(rng.choice(nearest)),
            row=rng.uniform(0, 202),
            col=rng.uniform(0, 200),
            angle=rng.uniform(0, 2 * np.pi),
            scale=rng.uniform(*SCALES),
        )
        for _ in range(tries)
    ]
    return min(fields, key=lambda field: abs(float(field.mask(whole, step).mean()) - fraction))


def _folded(position: np.ndarray[tuple[int, ...], np.dtype[np.float64]], length: int) -> Valid:
    index = np.floor(position).astype(np.int64) % (2 * length)
    return np.minimum(index, 2 * length - 1 - index)
