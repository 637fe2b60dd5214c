"""Speckle filters for backscatter in linear power: Lee's (J.-S. Lee 1980, IEEE TPAMI 2(2), multiplicative noise) and
the refined one, see `refined_lee`. `lee` filters an array, `FilteredReader` the windows of a file as they are read.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import reduce
from typing import Literal

import numpy as np
import numpy.typing as npt

from mmedge.errors import UsageError
from mmedge.geo_io.refined_lee import refined_lee
from mmedge.geo_io.sar import db_of, power_of
from mmedge.geo_io.source import WindowReader
from mmedge.grid import Window
from mmedge.tile import Data, Valid

Sums = npt.NDArray[np.float64]

# Sentinel-1 IW GRDH, at the middle of its range; a complex image has one look.
GRD_LOOKS, COMPLEX_LOOKS = 4.4, 1.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Speckle:
    """How speckle is filtered: over `size` x `size` pixels of a file's own grid, for a radar of `looks` looks.

    `looks` None: 1 for complex images, 4.4 for all others. Raises UsageError for an even size, one other than 7 for
    the refined filter, or looks <= 0.
    """

    kind: Literal["lee", "refined-lee"] = "lee"
    size: int = 5
    looks: float | None = None

    def __post_init__(self) -> None:
        if self.size < 3 or self.size % 2 == 0:
            raise UsageError(f"a speckle filter takes an odd number of pixels, not {self.size}", hint="--speckle lee,5")
        if self.kind == "refined-lee" and self.size != 7:
            raise UsageError(f"the refined Lee filter has 7 x 7 pixels, not {self.size}", hint="--speckle refined-lee")
        if self.looks is not None and not self.looks > 0:
            raise UsageError(f"a radar has more than {self.looks:g} looks", hint="--speckle lee,5,4.4")

    def __str__(self) -> str:
        return f"{'refined ' if self.kind == 'refined-lee' else ''}Lee, {self.size} x {self.size} pixels"

    def looks_of(self, *, is_complex: bool) -> float:
        return self.looks or (COMPLEX_LOOKS if is_complex else GRD_LOOKS)

    def filtered(self, power: Data, valid: Valid, *, looks: float) -> Data:
        """`power` (bands, rows, cols), linear, through the filter. A pixel depends on `size // 2` around it."""
        if self.kind == "refined-lee":
            return refined_lee(power, valid, looks=looks)
        return lee(power, valid, size=self.size, looks=looks)


class FilteredReader:
    """What another reader gives of an image of `shape`, in dB, through the filter; its validity does not change."""

    def __init__(self, reader: WindowReader, shape: tuple[int, int], speckle: Speckle, *, looks: float) -> None:
        self._reader, self._whole, self._speckle, self._looks = reader, Window(0, 0, *shape), speckle, looks

    def read(self, window: Window) -> tuple[Data, Valid]:
        around = window.grow(self._speckle.size // 2).intersect(self._whole)
        db, valid = self._reader.read(around)
        cut = window.within(around)
        filtered = self._speckle.filtered(power_of(db), valid, looks=self._looks)[(slice(None), *cut)]
        return db_of(filtered), valid[cut]

    def close(self) -> None:
        self._reader.close()


def lee(power: Data, valid: Valid, *, size: int = 5, looks: float = 4.4) -> Data:
    """Filter `power` (bands, rows, cols), linear, over a window of `size` x `size` valid pixels.

    Each pixel x becomes m + w (x - m) with w = max(0, 1 - cu^2 / ci^2): m and ci are the window's mean and coefficient
    of variation, cu^2 = 1 / looks that of speckle (4.4 looks: Sentinel-1 IW GRDH; 1: SLC intensity). What is not valid
    has no weight and stays as it is. A pixel depends on `size // 2` pixels around it and on nothing else, so a window
    that is read with that margin filters as the whole scene does. Raises ValueError for an even size or looks <= 0.
    """
    if size < 3 or size % 2 == 0:
        raise ValueError(f"size must be odd and at least 3, got {size}")
    if looks <= 0:
        raise ValueError(f"looks must be > 0, got {looks}")
    x = np.where(valid, power, 0).astype(np.float64)
    count = np.maximum(_box(valid[None].astype(np.float64), size), 1)
    mean = _box(x, size) / count
    variance = np.maximum(_box(x * x, size) / count - mean * mean, 0)
    weight = np.maximum(0, 1 - mean * mean / looks / np.where(variance > 0, variance, np.inf))
    weight[variance == 0] = 0
    return np.where(valid, mean + weight * (x - mean), power).astype(np.float32)


def _box(values: Sums, size: int) -> Sums:
    """Sums over size x size windows. Terms are added one by one: running sums would depend on where an array begins."""
    for axis in (1, 2):
        pad = [(0, 0)] * 3
        pad[axis] = (size // 2, size // 2)
        wide, length = np.pad(values, pad), values.shape[axis]
        shifted = (wide.take(range(i, i + length), axis=axis) for i in range(size))
        values = np.asarray(reduce(np.add, shifted))
    return values
