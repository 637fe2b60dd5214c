"""How far a network sees, and on which lattice it works: measured by changing its input, not read off its layers.

Shifting the input by `k` pixels shifts the output by `k` where k is a multiple of the network's stride. Changing all
that lies outside a square leaves alone what lies deeper in it than half the receptive field: bit for bit, for every
place of the square on the stride.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[np.float32]
Run = Callable[[Array], Array]  # (bands, side, side) standard normal -> (classes, side, side)

MAX_STRIDE = 64
SIDES = (256, 512, 1024)
PATCH = 64
SAME = 1e-4  # of the spread of the output: float noise of another place in memory is far below
LOUD = (10.0, 1000.0)  # what lies outside is changed by so many standard deviations, by turns


@dataclass(frozen=True, slots=True)
class Field:
    """`radius_px`: half the receptive field; `stride_px`: distance of places at which the network does the same."""

    radius_px: int
    stride_px: int

    @property
    def halo_px(self) -> int:
        """The radius, rounded up so that windows begin on the stride."""
        return -(-self.radius_px // self.stride_px) * self.stride_px


def measure(run: Run, bands: int, *, sides: tuple[int, ...] = SIDES) -> Field | None:
    """Receptive field and stride; None where the network looks at all of its input, or works on no lattice.

    `sides`: the sizes at which it may be run, tried one after the other until its field fits.
    """
    for side in sides:
        rng = np.random.default_rng(0)
        stride = _stride(run, rng.standard_normal((bands, side + MAX_STRIDE, side + MAX_STRIDE)).astype(np.float32))
        if stride is None:
            continue
        radius = _radius(run, rng, bands, side, stride)
        if radius is not None:
            return Field(radius, stride)
    return None


def _stride(run: Run, wide: Array) -> int | None:
    side = wide.shape[1] - MAX_STRIDE
    patch_px = min(PATCH, side // 4)
    centre = slice((side - patch_px) // 2, (side + patch_px) // 2)
    here = run(wide[:, :side, :side])
    patch = here[:, centre, centre]
    for k in range(1, min(MAX_STRIDE, side // 4) + 1):
        # Both axes at once, then each alone: a lattice may be finer along one.
        moved = slice(centre.start - k, centre.stop - k)
        if all(
            _same(run(wide[:, a : a + side, b : b + side])[:, moved if a else centre, moved if b else centre], patch)
            for a, b in ((k, k), (k, 0), (0, k))
        ):
            return k
    return None


def _same(a: Array, b: Array) -> bool:
    return bool(np.abs(a - b).max() <= SAME * max(float(b.std()), 1e-12))


def _radius(run: Run, rng: np.random.Generator, bands: int, side: int, stride: int) -> int | None:
    """Depth to which a change outside a square reaches into it, the largest over its places on the stride."""
    margin, radius = side // 8, 0
    quiet = rng.standard_normal((bands, side, side)).astype(np.float32)
    before = run(quiet)
    for phase in range(stride):
        first, last = margin + phase, side - margin - phase  # both edges take every place on the stride
        input_ = LOUD[phase % 2] * rng.standard_normal((bands, side, side)).astype(np.float32)
        input_[:, first:last, first:last] = quiet[:, first:last, first:last]
        changed = (run(input_) != before).any(axis=0)[first:last, first:last]
        radius = max(radius, _depth(changed))
        if 2 * radius >= last - first:
            return None
    return radius


def _depth(changed: npt.NDArray[np.bool_]) -> int:
    """Distance of the innermost changed pixel from the nearest edge, 1 for the edge itself; 0 where nothing changed."""
    rows, cols = np.nonzero(changed)
    if not len(rows):
        return 0
    height, width = changed.shape
    return int(np.minimum(np.minimum(rows, height - 1 - rows), np.minimum(cols, width - 1 - cols)).max()) + 1
