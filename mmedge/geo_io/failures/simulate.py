"""Simulated sensor failures of known position: for tests, training and robustness curves.

`inject` works on arrays: (bands, rows, cols) of any real dtype, `valid` (rows, cols) bool. `draw` gives the failure
itself, which can be laid over a scene window by window; `simulate_scene.simulate_failure` does so with a file.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from mmedge.geo_io.failures.causes import CAUSES, DECLARED, Cause
from mmedge.geo_io.failures.clouds import draw_clouds
from mmedge.geo_io.failures.injection import Array, Failure, Injection, Levels
from mmedge.grid import Window
from mmedge.tile import Valid

__all__ = ["Failure", "Injection", "Levels", "draw", "inject"]


def draw(
    cause: Cause,
    shape: tuple[int, int],
    levels: Levels,
    rng: np.random.Generator,
    *,
    fraction: float = 0.05,
    declared: bool | None = None,
) -> Failure:
    """Draw a failure that hits about `fraction` (0 < fraction <= 1) of a scene of `shape` with `levels`.

    Lines, blocks and stripes come in whole numbers, at least one. `dropped_band` takes one band whole, whatever the
    fraction; `declared` None: as such failures come (gaps, swaths, voids and clouds are nodata, the rest is not).
    Raises ValueError for an unknown cause or a fraction out of range.
    """
    if cause not in CAUSES:
        raise ValueError(f"cause must be one of {', '.join(CAUSES)}, got {cause!r}")
    if not 0 < fraction <= 1:
        raise ValueError(f"fraction must be in (0, 1], got {fraction}")
    seed = int(rng.integers(1 << 62))
    period, slope, offset, width = _pattern(cause, shape, fraction, rng)
    return Failure(
        cause=cause,
        shape=shape,
        levels=levels,
        seed=seed,
        declared=cause in DECLARED if declared is None else declared and cause not in ("saturated", "striping"),
        boxes=_boxes(cause, shape, fraction, len(levels.low), rng),
        period=period,
        slope=slope,
        offset=offset,
        width=width,
        clouds=draw_clouds(shape, fraction, rng) if cause == "cloud" else None,
    )


def inject(
    data: Array,
    valid: Valid,
    cause: Cause,
    rng: np.random.Generator,
    *,
    fraction: float = 0.05,
    declared: bool | None = None,
) -> Injection:
    """A scene in memory with a failure in it, and the mask of where it is; see `draw`."""
    levels = Levels.of(data, valid, fraction)
    failure = draw(cause, valid.shape, levels, rng, fraction=fraction, declared=declared)
    return failure.apply(data, valid, Window(0, 0, *valid.shape))


def _pattern(
    cause: Cause, shape: tuple[int, int], fraction: float, rng: np.random.Generator
) -> tuple[int, float, float, tuple[float, float]]:
    """Period, slope, offset and width of what repeats or has an edge."""
    if cause == "striping":
        period = int(np.clip(round(1 / fraction), 3, 64))
        sign = 1.0 if rng.random() < 0.5 else -1.0
        return period, float(rng.integers(2)), float(rng.integers(period)), (sign * rng.uniform(0.08, 0.25), 0.0)
    if cause == "slc_off":
        period, slope = int(rng.integers(30, 42)), float(rng.uniform(0.1, 0.2) * rng.choice([-1, 1]))
        mean, tilt = min(fraction, 0.6) * period, rng.uniform(-0.5, 0.5)
        return period, slope, float(rng.uniform(0, period)), (mean * (1 - tilt), mean * (1 + tilt))
    if cause == "missing_swath":
        return 0, *_half_plane(shape, fraction, rng), (0.0, 0.0)
    if cause == "border_noise":
        mean = fraction * shape[1]
        return 0, 0.0, 0.0, (0.6 * mean, 1.4 * mean)
    return 0, 0.0, 0.0, (0.0, 0.0)


def _half_plane(shape: tuple[int, int], fraction: float, rng: np.random.Generator) -> tuple[float, float]:
    """Angle and offset of a straight edge that cuts off `fraction` of the scene, tilted by up to 20 degrees."""
    angle = float(rng.integers(4) * np.pi / 2 + rng.uniform(-0.35, 0.35))
    rows, cols = np.linspace(0, shape[0] - 1, 256)[:, None], np.linspace(0, shape[1] - 1, 256)[None, :]
    distance = rows * np.cos(angle) + cols * np.sin(angle)
    return angle, float(np.quantile(distance, fraction)) if fraction < 1 else float(distance.max() + 1)


def _boxes(
    cause: Cause, shape: tuple[int, int], fraction: float, bands: int, rng: np.random.Generator
) -> npt.NDArray[np.int64]:
    rows, cols = shape
    if cause in ("dead_line", "dead_column", "stuck"):
        upright = cause == "dead_column" or (cause == "stuck" and rng.random() < 0.5)
        places = _apart(shape[1] if upright else rows, fraction, rng)
        boxes = [(0, p, rows, 1, -1) if upright else (p, 0, 1, cols, -1) for p in places]
    elif cause in ("dropped_band", "saturated"):
        boxes = [(0, 0, rows, cols, int(rng.integers(bands)))]
    elif cause == "bit_flip":
        boxes = _scattered(shape, fraction, (16, 48), [-1, *range(bands)], rng)
    elif cause == "lidar_void":
        largest = max(3, min(shape) // 16)
        boxes = _scattered(shape, fraction * 4 / np.pi, (max(1, largest // 4), largest), [0], rng, discs=True)
    else:
        boxes = []
    return np.array(boxes, np.int64).reshape(-1, 5)


def _apart(length: int, fraction: float, rng: np.random.Generator) -> list[int]:
    """Lines, no two of them neighbours while at least two thirds stay alive."""
    number = max(1, round(fraction * length))
    pool = np.arange(length) if 3 * number > length else np.arange(rng.integers(3), length, 3)
    return sorted(int(p) for p in rng.choice(pool, min(number, len(pool)), replace=False))


def _scattered(
    shape: tuple[int, int],
    fraction: float,
    side: tuple[int, int],
    bands: list[int],
    rng: np.random.Generator,
    discs: bool = False,
) -> list[tuple[int, int, int, int, int]]:
    """Boxes (or half axes of discs) at random places until their area, overlap aside, is `fraction` of the scene."""
    boxes: list[tuple[int, int, int, int, int]] = []
    area, wanted = 0.0, fraction * shape[0] * shape[1]
    while area < wanted:
        height, width = (min(int(rng.integers(side[0], side[1] + 1)), s) for s in shape)
        room = (shape[0], shape[1]) if discs else (shape[0] - height + 1, shape[1] - width + 1)
        boxes.append((int(rng.integers(room[0])), int(rng.integers(room[1])), height, width, int(rng.choice(bands))))
        area += height * width * (4 if discs else 1)
    return boxes
