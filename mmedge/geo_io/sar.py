"""Radar backscatter in dB, and linear power that passes for it."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from typing import Literal

import numpy as np
import numpy.typing as npt

from mmedge.errors import UnitError
from mmedge.tile import Data, Valid

Backscatter = Literal["dB", "linear", "amplitude"]

# Linear power is never negative and seldom above 1; backscatter in dB is nearly always below 0.
LINEAR_SHARE = 0.99
LINEAR_MEDIAN = 1.0
# The brightest city blocks reach 20 dB; half of a scene never does. Digital numbers of Sentinel-1 lie around 40 dB.
MAX_MEDIAN_DB = 15.0
# Metadata in an image's description are some kB.
MAX_DESCRIPTION = 1 << 20


def amplitude_scale(tags: Mapping[str, str]) -> float | None:
    """Factor from the numbers of a file to the root of calibrated backscatter, where its tags say it.

    Capella and SpaceNet 6 write `{"collect": {"image": {"scale_factor": ...}}}` as the image's description.
    """
    text = tags.get("TIFFTAG_IMAGEDESCRIPTION", "")
    if not text.startswith("{") or len(text) > MAX_DESCRIPTION:
        return None
    try:
        factor = float(json.loads(text)["collect"]["image"]["scale_factor"])
    except (ValueError, KeyError, TypeError, RecursionError):
        return None  # another description: it says nothing of the scale
    return factor if math.isfinite(factor) and factor > 0 else None


def saturated(values: npt.NDArray[np.complexfloating]) -> Valid:
    """Where a complex sample sits at the end of 16-bit integers, in which radars record: it was clipped there."""
    return _clipped(values.real) | _clipped(values.imag)


def _clipped(part: npt.NDArray[np.floating]) -> Valid:
    return np.asarray((np.abs(part) == 32767) | (part == -32768))


def to_db(data: Data, valid: Valid, given: Backscatter) -> tuple[Data, Valid]:
    """Backscatter (bands, rows, cols) in dB. Power that is not positive was never measured: invalid."""
    if given == "dB":
        return data, valid
    # GRD border noise is exactly 0, not nodata: log10 would make it -inf.
    valid = valid & (data > 0).all(axis=0)
    factor = 20 if given == "amplitude" else 10
    return factor * np.log10(np.where(valid, data, 1), dtype=np.float32), valid


def power_of(db: Data) -> Data:
    """Linear power of dB. No backscatter comes near 300 dB: digital numbers taken for dB do, and must reach the check
    that says so.
    """
    return np.power(10.0, np.minimum(db, 300) / 10, dtype=np.float32)


def db_of(power: Data) -> Data:
    """dB of linear power; 0 where there is none."""
    return 10 * np.log10(np.where(power > 0, power, 1), dtype=np.float32)


def check_calibrated(sample: Data, name: str) -> None:
    """Look at valid pixels (bands, pixels) in dB; raise UnitError where they can only be digital numbers."""
    if sample.size and np.median(sample) > MAX_MEDIAN_DB:
        raise UnitError(
            f"`{name}` is not calibrated backscatter in dB: half of its values are above {np.median(sample):.4g}",
            hint=f"give the SAFE folder, whose calibration is applied, or `--scale {name}=FACTOR` on the amplitude",
        )


def check_backscatter(sample: Data, name: str) -> list[str]:
    """Look at valid pixels (bands, pixels) in dB; raise UnitError where they look like linear power or DN."""
    check_calibrated(sample, name)
    if sample.size and (sample >= 0).mean() >= LINEAR_SHARE and np.median(sample) < LINEAR_MEDIAN:
        raise UnitError(
            f"`{name}` looks like linear power (median {np.median(sample):.3g}, none below 0), dB is wanted",
            hint=f"add `--unit {name}=linear` (or `{name}=amplitude`) to convert it",
        )
    return []
