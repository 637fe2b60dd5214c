"""Elevation as a network may see it: height above the surroundings, and slope.

Absolute elevation identifies a scene (measured: elevation alone scored .71 where relief scores .56), so it never
reaches a network. `relief` looks at the whole window, for networks that do so too; `terrain` no farther than
`TERRAIN_REACH_PX`, for networks of finite reach, whose maps must not depend on where windows lie.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from mmedge.modality import Derive

PERCENTILE = 5.0
TERRAIN_REACH_PX = 7

Float = npt.NDArray[np.float32]
Bool = npt.NDArray[np.bool_]


def derive(kind: Derive, dem: Float, valid: Bool, pixel_m: float | tuple[float, float]) -> Float:
    """The channels that `kind` names (`mmedge.modality.DERIVED_CHANNELS`)."""
    return {"relief": relief, "terrain": terrain}[kind](dem, valid, pixel_m)


def relief(dem: Float, valid: Bool, pixel_m: float | tuple[float, float]) -> Float:
    """Height above the window's 5th percentile [m] and slope [degrees].

    dem: (B, 1, H, W) metres; valid: (B, 1, H, W), True = usable; pixel_m: size of a pixel, (row, column) where the
    two differ. Returns (B, 2, H, W). Invalid pixels get 0 in both channels, whatever `dem` holds there. The slope takes
    central differences of valid neighbours, one-sided ones beside borders and voids, 0 where a pixel has no neighbour.
    """
    height = np.where(valid, dem, np.float32(0))
    above = np.where(valid, height - _floor(height, valid), np.float32(0))
    return np.concatenate([above, _slope(height, valid, pixel_m)], axis=1)


def terrain(dem: Float, valid: Bool, pixel_m: float | tuple[float, float]) -> Float:
    """Topographic position index [m] and slope [degrees]; shapes as in `relief`.

    The index (Weiss 2001) is the height above the mean of the valid pixels of the 15 x 15 around. A pixel comes to the
    same bits wherever its window lies, if the window holds its surroundings.
    """
    height = np.where(valid, dem, np.float32(0))
    count = _box(valid.astype(np.float32))
    index = np.where(valid, height - _box(height) / np.maximum(count, 1), np.float32(0))
    return np.concatenate([index, _slope(height, valid, pixel_m)], axis=1)


def _box(x: Float) -> Float:
    """Sum over the square of TERRAIN_REACH_PX around each pixel of (B, 1, H, W), added in one order everywhere."""
    for axis in (2, 3):
        pad = [(0, 0)] * 4
        pad[axis] = (TERRAIN_REACH_PX, TERRAIN_REACH_PX)
        padded, size = np.pad(x, pad), x.shape[axis]
        x = np.take(padded, range(size), axis)
        for i in range(1, 2 * TERRAIN_REACH_PX + 1):
            x += np.take(padded, range(i, i + size), axis)
    return x


def _slope(height: Float, valid: Bool, pixel_m: float | tuple[float, float]) -> Float:
    row_m, col_m = pixel_m if isinstance(pixel_m, tuple) else (pixel_m, pixel_m)
    steepness = np.hypot(_gradient(height, valid, row_m, axis=2), _gradient(height, valid, col_m, axis=3))
    return np.where(valid, np.degrees(np.arctan(steepness)), np.float32(0))


def _floor(height: Float, valid: Bool) -> Float:
    """5th percentile of the valid pixels of each window (B, 1, 1, 1), linear between ranks; 0 where none is valid."""
    batch = height.shape[0]
    ranked = np.sort(np.where(valid, height, np.float32(np.inf)).reshape(batch, -1), axis=1)
    count = valid.reshape(batch, -1).sum(1)
    rank = (np.maximum(count, 1) - 1) * (PERCENTILE / 100)
    low = rank.astype(np.intp)
    high = np.minimum(low + 1, np.maximum(count, 1) - 1)
    window = np.arange(batch)
    below, above = ranked[window, low], ranked[window, high]
    some = count > 0
    below, above = np.where(some, below, 0), np.where(some, above, 0)
    floor = below + (above - below) * (rank - low).astype(np.float32)
    result: Float = floor.astype(np.float32).reshape(batch, 1, 1, 1)
    return result


def _gradient(height: Float, valid: Bool, pixel_m: float, *, axis: int) -> Float:
    """Mean of the forward and backward differences that exist, in metres per metre."""
    total, count = np.zeros_like(height), np.zeros_like(height)
    here, there = [slice(None)] * 4, [slice(None)] * 4
    here[axis], there[axis] = slice(None, -1), slice(1, None)
    first, second = tuple(here), tuple(there)
    pair = valid[first] & valid[second]
    step = np.where(pair, (height[second] - height[first]) / np.float32(pixel_m), np.float32(0))
    for side in (first, second):
        total[side] += step
        count[side] += pair
    return np.divide(total, np.maximum(count, 1), out=total)
