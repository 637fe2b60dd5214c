"""Radar backscatter in dB, and linear power that passes for it."""

from __future__ import annotations

from typing import Literal

import numpy as np

from mmedge.errors import UnitError
from mmedge.tile import Data, Valid

Backscatter = Literal["dB", "linear", "amplitude"]

# Linear power is never negative and seldom above 1; backscatter in dB is nearly always below 0.
LINEAR_SHARE = 0.99
LINEAR_MEDIAN = 1.0
# The brightest city blocks reach 20 dB; half of a scene never does. Digital numbers of Sentinel-1 lie around 40 dB.
MAX_MEDIAN_DB = 15.0


def to_db(data: Data, valid: Valid, given: Backscatter) -> tuple[Data, Valid]:
    """Backscatter (bands, rows, cols) in dB. Power that is not positive was never measured: invalid."""
    if given == "dB":
        return data, valid
    # GRD border noise is exactly 0, not nodata: log10 would make it -inf.
    valid = valid & (data > 0).all(axis=0)
    factor = 20 if given == "amplitude" else 10
    return factor * np.log10(np.where(valid, data, 1), dtype=np.float32), valid


def check_calibrated(sample: Data, name: str) -> None:
    """Look at valid pixels (bands, pixels) in dB; raise UnitError where they can only be digital numbers."""
    if sample.size and np.median(sample) > MAX_MEDIAN_DB:
        raise UnitError(
            f"`{name}` is not calibrated backscatter: its median is {np.median(sample):.4g} dB",
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
