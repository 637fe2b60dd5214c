"""A simulated sensor failure, drawn for a whole scene and laid over any window of it.

The same seed gives the same pixels, whatever the windows are. Arrays are (bands, rows, cols) of any real dtype, which
is kept, and `valid` is (rows, cols) bool.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from mmedge.geo_io.failures.causes import Cause
from mmedge.geo_io.failures.clouds import CloudField
from mmedge.grid import Window
from mmedge.tile import Valid

Array = npt.NDArray[Any]
Floats = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Levels:
    """Per band, (bands,) float64: 1st and 99th percentile, and the quantile at which a saturated one clips."""

    low: Floats
    high: Floats
    clip: Floats

    @classmethod
    def of(cls, data: Array, valid: Valid, fraction: float) -> Levels:
        """Measured on the valid, finite pixels; raises ValueError where there are none."""
        pixels = data[:, valid & np.isfinite(data).all(axis=0)].astype(np.float64)
        if not pixels.size:
            raise ValueError("no valid pixel to take levels from")
        low, high, clip = np.percentile(pixels, [1, 99, 100 * (1 - fraction)], axis=1)
        return cls(low=low, high=high, clip=clip)

    @property
    def nothing(self) -> Floats:
        """What a dead detector reports: 0, or, where values are negative (dB), one range below the darkest."""
        return np.where(self.low < 0, self.low - 2 * (self.high - self.low), 0.0)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Injection:
    """A scene (or window) with a failure in it. `mask` (rows, cols) bool is where, True = failed."""

    data: Array
    valid: Valid
    mask: Valid


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Failure:
    """A failure drawn for a scene of `shape`. `boxes` (n, 5) int64: row, col, height, width, band (-1: every band).

    `declared`: the failed pixels become invalid. Otherwise only their values are wrong, and `valid` stays.
    """

    cause: Cause
    shape: tuple[int, int]
    levels: Levels
    seed: int
    declared: bool
    boxes: npt.NDArray[np.int64]
    period: int
    slope: float
    offset: float
    width: tuple[float, float]
    clouds: CloudField | None

    def mask(self, window: Window) -> Valid:
        """Where the failure lies; saturation, which depends on the values, has none before it is applied."""
        rows = np.arange(window.row, window.row + window.height, dtype=np.float64)[:, None]
        cols = np.arange(window.col, window.col + window.width, dtype=np.float64)[None, :]
        if self.clouds is not None:
            return self.clouds.mask(window)
        if self.cause == "lidar_void":
            return self._discs(rows, cols)
        if self.cause == "striping":
            return np.broadcast_to((rows if self.slope == 0 else cols) % self.period == self.offset, window.shape)
        if self.cause == "slc_off":
            place = (rows + self.slope * cols + self.offset) % self.period
            gap: Valid = place < self.width[0] + (self.width[1] - self.width[0]) * cols / self.shape[1]
            return gap
        if self.cause == "missing_swath":
            beyond: Valid = rows * np.cos(self.slope) + cols * np.sin(self.slope) < self.offset
            return beyond
        if self.cause == "border_noise":
            return np.broadcast_to(cols < self._border(rows), window.shape)
        return self._boxed(window)

    def apply(self, data: Array, valid: Valid, window: Window) -> Injection:
        """Lay the failure over the pixels of `window`. The arrays given are not changed."""
        data, valid = data.copy(), valid.copy()
        mask = self.mask(window) & valid
        if self.declared:
            valid &= ~mask
            _put(data, mask, self.levels.nothing)
        elif self.cause == "striping":
            _put(data, mask, _at(data, mask) + (self.width[0] * (self.levels.high - self.levels.low))[:, None])
        elif self.cause == "saturated":
            band = int(self.boxes[0, 4])
            mask = valid & (data[band] >= self.levels.clip[band])
            _put(data[band : band + 1], mask, self.levels.clip[band : band + 1])
        elif self.cause == "border_noise":
            valid &= ~(mask & self._blank(window))
            _put(data, mask, self._noise(window, mask))
        elif self.cause == "bit_flip":
            self._flip(data, mask, window)
        else:
            self._fill(data, mask, window)
        return Injection(data=data, valid=valid, mask=mask)

    def _boxed(self, window: Window, band: int | None = None) -> Valid:
        mask = np.zeros(window.shape, bool)
        for row, col, height, width, where in self.boxes.tolist():
            if band is None or where in (-1, band):
                part = Window(row, col, height, width).intersect(window)
                if not part.empty:
                    mask[part.within(window)] = True
        return mask

    def _discs(self, rows: Floats, cols: Floats) -> Valid:
        mask = np.zeros((rows.size, cols.size), bool)
        for row, col, height, width, _ in self.boxes.tolist():
            mask |= ((rows - row) / height) ** 2 + ((cols - col) / width) ** 2 < 1
        return mask

    def _border(self, rows: Floats) -> Floats:
        """Ragged inner edge of the border noise, in columns: it steps every 16 rows or so, as bursts do."""
        steps = hashed(np.floor(rows / 16), np.zeros_like(rows), self.seed)
        return self.width[0] + (self.width[1] - self.width[0]) * steps

    def _blank(self, window: Window) -> Valid:
        """The outermost columns of a border are nodata already."""
        cols = np.arange(window.col, window.col + window.width)
        return np.broadcast_to(cols < self.width[0] / 2, window.shape)

    def _noise(self, window: Window, mask: Valid) -> Floats:
        random = self._hashed(window)[mask][None]
        low, span = self.levels.low[:, None], (self.levels.high - self.levels.low)[:, None]
        decibels = low - 10.0 - 15.0 * random
        result: Floats = np.where(low < 0, decibels, np.minimum(low, span) * 0.05 * random)
        return result

    def _fill(self, data: Array, mask: Valid, window: Window) -> None:
        low, high = self.levels.low, self.levels.high
        share = 0.3 + 0.4 * float(hashed(np.zeros(1), np.zeros(1), self.seed)[0])
        value = low + share * (high - low) if self.cause == "stuck" else self.levels.nothing
        for band in range(len(data)):
            _put(data[band : band + 1], mask & self._boxed(window, band), value[band : band + 1])

    def _flip(self, data: Array, mask: Valid, window: Window) -> None:
        random = (self._hashed(window) * (1 << 16)).astype(np.uint64)
        for band in range(len(data)):
            here = mask & self._boxed(window, band)
            data[band][here] = flipped(data[band][here], random[here])

    def _hashed(self, window: Window) -> Floats:
        rows = np.arange(window.row, window.row + window.height)[:, None]
        cols = np.arange(window.col, window.col + window.width)[None, :]
        return hashed(rows, cols, self.seed)


def hashed(rows: Array, cols: Array, seed: int) -> Floats:
    """Uniform numbers in [0, 1) that depend on the pixel and the seed alone (splitmix64, Steele et al. 2014)."""
    start = np.array([seed], np.uint64)
    mixed = rows.astype(np.uint64) * np.uint64(0x9E3779B97F4A7C15) + cols.astype(np.uint64)
    mixed = mixed * np.uint64(0xD1342543DE82EF95) + start
    mixed = (mixed ^ (mixed >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    mixed = (mixed ^ (mixed >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    result: Floats = ((mixed ^ (mixed >> np.uint64(31))) >> np.uint64(11)).astype(np.float64) / float(1 << 53)
    return result


def flipped(values: Array, random: npt.NDArray[np.uint64]) -> Array:
    """`values` with a random half of their high bits flipped, in their own dtype.

    Integers: the upper half of the bits but the sign. Floats: the exponent's low bits and the mantissa's highest.
    """
    size = values.dtype.itemsize * 8
    unsigned = np.dtype(f"u{values.dtype.itemsize}")
    if values.dtype.kind == "f":
        first, count = {16: (8, 4), 32: (20, 5), 64: (49, 5)}[size]
    else:
        first, count = size // 2, size // 2 - 1
    pattern = (random % np.uint64(1 << min(count, 16))) << np.uint64(first)
    result: Array = (values.view(unsigned) ^ pattern.astype(unsigned)).view(values.dtype)
    return result


def _at(data: Array, mask: Valid) -> Floats:
    return data[:, mask].astype(np.float64)


def _put(data: Array, mask: Valid, values: Floats) -> None:
    """Write values, (bands,) or (bands, pixels), under `mask`; integers are rounded and kept within their range."""
    if values.ndim == 1:
        values = values[:, None]
    if data.dtype.kind in "iu":
        limits = np.iinfo(data.dtype)
        values = np.clip(np.rint(values), limits.min, limits.max)
    data[:, mask] = np.broadcast_to(values, (len(data), int(mask.sum()))).astype(data.dtype)
