"""Sensor failures in a scene: dead lines, stripes, gaps, lost bands, garbage, borders, voids.

Arrays are (bands, rows, cols) float32 in model units, `valid` is (rows, cols) bool, True = usable. Detection is
conservative: what it takes from `valid` is lost to the model. Two passes keep memory bounded: `scan` looks at slabs of
the scene, `detect_window` at one window and 160 pixels around it.
Rules, thresholds and measured precision and recall: docs/sensors/failures.md.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import get_args

import numpy as np
import numpy.typing as npt

from mmedge.geo_io.failures.causes import DETECTED
from mmedge.geo_io.failures.local import HALO_PX, failure_masks
from mmedge.geo_io.failures.runs import box_count
from mmedge.geo_io.failures.scan import Kind, Reader, Scan, scan
from mmedge.geo_io.source import Source, SourceInfo
from mmedge.grid import Window
from mmedge.modality import Unit
from mmedge.tile import Data, Lost, Valid

__all__ = [
    "KINDS",
    "FailureReport",
    "Kind",
    "Scan",
    "Screened",
    "clipped_complex",
    "detect",
    "detect_window",
    "own",
    "scan",
    "survey",
]

KINDS: dict[Unit, Kind] = {"reflectance": "optical", "dB": "sar", "m": "elevation"}


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class FailureReport:
    """What failed in a window. `masks[cause]` (rows, cols) bool, True = failed, for each of `causes.DETECTED`.

    A mask also holds pixels that were invalid before, where their shape tells why; causes may overlap.
    `valid` is what remains usable: never more than was. `dropped_bands` are indices of bands that carry nothing.
    """

    masks: dict[str, Valid]
    valid: Valid
    dropped_bands: tuple[int, ...]

    @property
    def share(self) -> dict[str, float]:
        """Share of the window's pixels that each cause holds, 0..1."""
        return {cause: float(mask.mean()) if mask.size else 0.0 for cause, mask in self.masks.items()}

    @property
    def failed(self) -> Valid:
        """Pixels that any cause holds."""
        result: Valid = np.logical_or.reduce(list(self.masks.values()))
        return result


def detect(data: Data, valid: Valid, *, kind: Kind) -> FailureReport:
    """Failures of a scene that is in memory: data (bands, rows, cols) float32, valid (rows, cols) bool.

    `kind`: "optical" (reflectance), "sar" (dB) or "elevation" (metres). Raises ValueError where shapes do not fit.
    """
    whole = _whole(data, valid, kind)

    def read(window: Window) -> tuple[Data, Valid]:
        cut = window.within(whole)
        return data[(slice(None), *cut)], valid[cut]

    return detect_window(read, whole, scan(read, valid.shape, kind=kind))


def detect_window(read: Reader, window: Window, verdicts: Scan) -> FailureReport:
    """Failures in one window of a scene; `read` is a `Source.read`, `verdicts` its `scan`.

    Equal to that part of what `detect` finds in the whole scene.
    """
    around = window.grow(HALO_PX).intersect(Window(0, 0, *verdicts.shape))
    data, valid = read(around)
    cut = window.within(around)
    masks = {cause: mask[cut] for cause, mask in failure_masks(data, valid, around, verdicts).items()}
    failed = np.logical_or.reduce(list(masks.values()))
    return FailureReport(masks=masks, valid=valid[cut] & ~failed, dropped_bands=verdicts.dropped)


def survey(read: Reader, shape: tuple[int, int], *, kind: Kind, block_px: int = 1024) -> dict[str, float]:
    """Share of a scene that each cause holds, 0..1, window by window: memory does not grow with the scene."""
    verdicts = scan(read, shape, kind=kind)
    total: dict[str, int] = dict.fromkeys(DETECTED, 0)
    for window in Window(0, 0, *shape).blocks(block_px):
        for cause, mask in detect_window(read, window, verdicts).masks.items():
            total[cause] += int(mask.sum())
    return {cause: number / (shape[0] * shape[1]) for cause, number in total.items()}


def own(source: Source) -> Reader:
    """What a sensor gives by itself: a cloud mask that blanks whole rows is no swath that is missing."""

    def read(window: Window) -> tuple[Data, Valid]:
        data, valid, lost = source.look(window)
        return data, _own(valid, lost)

    return read


def _own(valid: Valid, lost: Lost) -> Valid:
    return ~lost["nodata"] if "nodata" in lost else valid


class Screened:
    """A source whose `valid` leaves out what failed. The scan runs once, when it is made.

    `raw` is what the source gives before a filter of it: failures are looked for there, and what the filter made of
    them, up to `reach_px` pixels away, is left out with them.
    """

    def __init__(
        self, source: Source, shape: tuple[int, int], *, kind: Kind, raw: Source | None = None, reach_px: int = 0
    ) -> None:
        self._source, self._raw, self._reach = source, raw, reach_px
        self.verdicts = scan(own(raw or source), shape, kind=kind)

    @property
    def info(self) -> SourceInfo:
        return self._source.info

    def read(self, window: Window) -> tuple[Data, Valid]:
        """Data as the source gives it; valid without the failed pixels."""
        data, valid, _ = self.look(window)
        return data, valid

    def look(self, window: Window) -> tuple[Data, Valid, Lost]:
        """The same, the failures among what was lost."""
        around = window.grow(HALO_PX + self._reach).intersect(Window(0, 0, *self.verdicts.shape))
        data, valid, lost = (self._raw or self._source).look(around)
        given = _own(valid, lost)
        masks = failure_masks(data, given, around, self.verdicts)
        if self._reach:
            masks = {cause: mask | _grown(mask & given, self._reach) for cause, mask in masks.items()}
        usable = valid & ~np.logical_or.reduce(list(masks.values()))
        cut = window.within(around)
        data = data[(slice(None), *cut)] if self._raw is None else self._source.read(window)[0]
        return data, usable[cut], {cause: m[cut] for cause, m in (lost | masks).items()}

    def close(self) -> None:
        self._source.close()
        if self._raw is not None:
            self._raw.close()


def _grown(mask: Valid, reach_px: int) -> Valid:
    side = 2 * reach_px + 1
    found: Valid = box_count(mask, side, side) > 0 if mask.any() else mask
    return found


def clipped_complex(pixels: npt.NDArray[np.complex64]) -> Valid:
    """Pixels of a complex SAR image (rows, cols) at which the receiver saturated: a part of theirs is at full scale.

    Full scale is the largest real or imaginary part, if it is a whole number that at least four parts reach. Intensity
    does not show it: it has no single ceiling there.
    """
    parts = np.abs(np.stack([pixels.real, pixels.imag]))
    full = float(np.max(parts, initial=0.0, where=np.isfinite(parts)))
    if full == 0 or full != round(full) or np.count_nonzero(parts == full) < 4:
        return np.zeros(pixels.shape, bool)
    found: Valid = (parts == full).any(axis=0)
    return found


def _whole(data: Data, valid: Valid, kind: Kind) -> Window:
    if data.ndim != 3 or data.shape[1:] != valid.shape or not data.size:
        raise ValueError(f"data {data.shape} must be (bands, rows, cols), valid (rows, cols), got {valid.shape}")
    if kind not in get_args(Kind):
        raise ValueError(f"kind must be one of {', '.join(get_args(Kind))}, got {kind!r}")
    return Window(0, 0, *valid.shape)
