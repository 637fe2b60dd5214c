"""Runs and boxes of pixels: the few local operations that failure masks are made of. Arrays are (rows, cols)."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from mmedge.tile import Valid

Ints = npt.NDArray[np.signedinteger[Any]]


def constant_runs(values: npt.NDArray[Any], axis: int) -> Ints:
    """For every pixel the length of the run of equal values that it lies in, along `axis`. NaN equals nothing."""
    if axis == 0:
        return constant_runs(values.T, 1).T
    if not values.size:
        return np.zeros(values.shape, np.int64)
    starts = np.ones(values.shape, bool)
    starts[:, 1:] = values[:, 1:] != values[:, :-1]
    first = np.flatnonzero(starts)
    lengths = np.diff(np.append(first, values.size))
    return np.repeat(lengths, lengths).reshape(values.shape)


def has_run(values: npt.NDArray[Any], length: int, axis: int) -> bool:
    """Whether `length` pixels in a row may have one value: never False where they have. Much cheaper than the runs.

    A run that long holds an aligned block of half as many equal pairs.
    """
    same = values[:, 1:] == values[:, :-1] if axis == 1 else values[1:] == values[:-1]
    half = length // 2
    rows, cols = same.shape
    if axis == 1:
        return bool(same[:, : cols // half * half].reshape(rows, -1, half).all(axis=2).any())
    return bool(same[: rows // half * half].reshape(-1, half, cols).all(axis=1).any())


def run_lengths(mask: Valid, axis: int) -> Ints:
    """For every True pixel the length of its run along `axis`; 0 elsewhere."""
    return np.where(mask, constant_runs(mask, axis), 0)


def box_count(mask: Valid, height: int, width: int) -> Ints:
    """How many pixels are True in the box of `height` x `width` (odd) around each pixel; outside counts as False."""
    return _along(_along(mask.astype(np.int32), height, 0), width, 1)


def box_mean(values: npt.NDArray[Any], valid: Valid, size: int) -> npt.NDArray[np.float64]:
    """Mean of the valid pixels in the `size` x `size` (odd) box around each pixel; NaN where fewer than half are valid.

    Sums are of integers (1/1024 of the unit), so that the mean does not depend on where a window begins.
    """
    fixed = np.zeros(values.shape, np.int64)
    fixed[valid] = np.rint(np.clip(values[valid].astype(np.float64), -1e6, 1e6) * 1024)
    number = box_count(valid, size, size)
    total = _along(_along(fixed, size, 0), size, 1)
    return np.where(2 * number > size * size, total / (1024.0 * np.maximum(number, 1)), np.nan)


def last_true(mask: Valid, axis: int) -> Ints:
    """For every pixel the index along `axis` of the nearest True pixel at or before it; far below 0 if none."""
    shape = [1, 1]
    shape[axis] = mask.shape[axis]
    index = np.arange(mask.shape[axis], dtype=np.int64).reshape(shape)
    return np.maximum.accumulate(np.where(mask, index, -(1 << 40)), axis=axis)


def _along(values: Ints, size: int, axis: int) -> Ints:
    """Sums over `size` (odd) pixels around each pixel along `axis`, as differences of the running sum."""
    if size < 1 or size % 2 == 0:
        raise ValueError(f"a box side must be odd and positive, got {size}")
    half, length = size // 2, values.shape[axis]
    before, after = list(values.shape), list(values.shape)
    before[axis], after[axis] = half + 1, half
    running = np.cumsum(values, axis, dtype=values.dtype)
    last = np.broadcast_to(running.take([length - 1], axis), after)
    padded = np.concatenate([np.zeros(before, values.dtype), running, last], axis)
    upper = padded[size:] if axis == 0 else padded[:, size:]
    lower = padded[:-size] if axis == 0 else padded[:, :-size]
    result: Ints = upper - lower
    return result
