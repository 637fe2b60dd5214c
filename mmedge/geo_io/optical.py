"""Optical imagery: digital numbers to surface reflectance 0..1, and the ways in which the scaling goes wrong."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from mmedge.errors import UnitError
from mmedge.geo_io.rasters.file import RasterBand
from mmedge.tile import Data

# Reflectance seldom passes 1 (snow, glint, clouds): a median above 2 is digital numbers.
MAX_MEDIAN = 2.0
# Baseline >= 04.00 adds 1000 DN. No band of a scene that holds any shade or water stays above .095 once it is gone;
# TerraMesh 433D, which still carries it, has .0969 as its minimum over all bands.
OFFSET_DARKEST = 0.095
# Atmospheric correction goes a little below 0, glint and snow above 1; -9999 and 65535 / 10000 are fill values.
POSSIBLE, STRAY = (-0.5, 5.0), 0.005


@dataclass(frozen=True, slots=True)
class Scaling:
    """How a band becomes reflectance, and what had to be assumed for it."""

    band: RasterBand
    assumption: str | None


def reflectance(band: RasterBand) -> Scaling:
    """Scale of a band: its own tags, else DN / 10000 for integers (DN / 255 for 8 bits), else none for floats."""
    if band.is_complex:
        raise UnitError(f"`{band.path}` holds complex numbers, no reflectance", hint=f"--source sar={band.path}")
    if band.tagged or np.dtype(band.dtype).kind == "f":
        return Scaling(band, None)
    full = 255 if np.dtype(band.dtype).itemsize == 1 else 10000
    assumption = f"`{band.path.name}` has no scale tag: reflectance read as DN / {full}"
    if full == 255:
        assumption += ", as in a picture: not calibrated"
    return Scaling(band.scaled(1 / full, 0.0), assumption)


def may_hold_offset(band: RasterBand) -> bool:
    """Whether a band can be Sentinel-2's: not a picture of 8 bits, not a band known by its wavelength."""
    return np.dtype(band.dtype).itemsize > 1 and band.wavelength_nm is None


def check_reflectance(sample: Data, name: str, *, offset: bool = True) -> list[str]:
    """Look at valid pixels (bands, pixels) of a source; return warnings, raise UnitError where it is no reflectance.

    `offset`: also whether the offset of Sentinel-2's baseline 04.00 is still in it.
    """
    if sample.size == 0:
        return []
    if np.median(sample) > MAX_MEDIAN:
        raise UnitError(
            f"`{name}` is no reflectance: half of its values are above {np.median(sample):.4g}",
            hint=f"say how to scale it, e.g. `--scale {name}=0.0001` for DN / 10000",
        )
    said = []
    stray = ((sample < POSSIBLE[0]) | (sample > POSSIBLE[1])).any(0).mean()
    if stray > STRAY:
        said.append(
            f"{stray:.1%} of `{name}` is no reflectance ({sample.min():.4g} to {sample.max():.4g}): fill values, "
            "perhaps; say which in the file's nodata, or leave them out with `--screen`"
        )
    if offset and np.percentile(sample, 0.1, axis=1).min() > OFFSET_DARKEST:
        said.append(
            f"`{name}` has no dark pixel in any band (0.1 % percentile {np.percentile(sample, 0.1):.3f}): the +1000 "
            f"offset of Sentinel-2 baseline 04.00 may still be in it; if so, add `--scale {name}=0.0001,-0.1`"
        )
    return said
