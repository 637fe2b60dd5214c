"""Wavelengths of bands: where files keep them, which bands are bad, which band stands for a named one.

Sentinel-2's bands are the names that models use. A band of another instrument stands for one of them where its centre
lies inside that band's passband; the substitution is recorded as an assumption.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

from mmedge.geo_io.bands import band_name
from mmedge.geo_io.rasters.file import RasterBand

# (centre, width) in nm of Sentinel-2A's bands: ESA, Sentinel-2 Spectral Response Functions (COPE-GSEG-EOPG-TN-15-0007).
SENTINEL2_NM = {
    "B01": (442.7, 20.0),
    "B02": (492.7, 65.0),
    "B03": (559.8, 35.0),
    "B04": (664.6, 30.0),
    "B05": (704.1, 14.0),
    "B06": (740.5, 14.0),
    "B07": (782.8, 19.0),
    "B08": (832.8, 105.0),
    "B8A": (864.7, 21.0),
    "B09": (945.1, 19.0),
    "B10": (1373.5, 29.0),
    "B11": (1613.7, 90.0),
    "B12": (2202.4, 174.0),
}
# Narrow bands are asked for by their centre: imaging spectrometers sample at 5-10 nm, a neighbour is as good.
MIN_TOLERANCE_NM = 10.0
# Wavelength of a band that its own file calls bad.
BAD = -1.0
OPTICAL_NM = (350.0, 2600.0)

_TO_NM = {"nm": 1.0, "nanometer": 1.0, "nanometers": 1.0, "um": 1e3, "µm": 1e3, "μm": 1e3}
_TO_NM |= {"micrometer": 1e3, "micrometers": 1e3, "micron": 1e3, "microns": 1e3}
_DESCRIBED = re.compile(r"(?<![\w.])(\d+(?:\.\d+)?)\s*(nm|nanometers?|um|µm|μm|micrometers?|microns?)\b", re.IGNORECASE)


def band_wavelengths(ds: Any) -> dict[int, float]:
    """Centre wavelength in nm by band index of a rasterio dataset, `BAD` for bands that its bad-band list names.

    `bbl` is that list. Wavelengths are read from band tags (`wavelength` and `wavelength_units`, as GDAL gives ENVI
    headers), the IMAGERY domain (`CENTRAL_WAVELENGTH_UM`), a list in the file's tags, or a description such as
    `Band 12 (455.3 nm)`.
    """
    listed = _listed(ds, "wavelength", "wavelengths")
    unit = _first(ds, "wavelength_units") or ""
    found = {i: nm for i in ds.indexes if (nm := _wavelength(ds, i, listed, unit)) is not None}
    good = _listed(ds, "bbl", "bad_bands_list")
    if len(good) == ds.count:
        found |= {i: BAD for i in ds.indexes if good[i - 1] == 0}
    return found


def reflectance_scale(ds: Any) -> float | None:
    """1 / ENVI's `reflectance scale factor` of a rasterio dataset; None where its header has none, or none above 0."""
    factor = _listed(ds, "reflectance_scale_factor")
    return 1 / factor[0] if len(factor) == 1 and factor[0] > 0 else None


def nearest_band(name: str, bands: Sequence[RasterBand]) -> RasterBand | None:
    """The band whose wavelength is nearest to that of the named band, renamed, with the assumption recorded.

    None where the name has no wavelength or no band lies within half of its width (at least 10 nm) of its centre.
    """
    if band_name(name) not in SENTINEL2_NM:
        return None
    centre, width = SENTINEL2_NM[band_name(name)]
    known = [band for band in bands if band.wavelength_nm is not None]
    best = min(known, key=lambda band: abs((band.wavelength_nm or 0) - centre), default=None)
    if best is None or abs((best.wavelength_nm or 0) - centre) > max(width / 2, MIN_TOLERANCE_NM):
        return None
    said = f"{name} ({centre:g} nm) is read from `{best.path.name}` band {best.index} at {best.wavelength_nm:g} nm"
    return best.named(best.sensor or "optical", band_name(name)).assuming(said)


def _wavelength(ds: Any, index: int, listed: list[float], unit: str) -> float | None:
    tags = {key.lower(): value for key, value in ds.tags(index).items()}
    micrometres = ds.tags(index, ns="IMAGERY").get("CENTRAL_WAVELENGTH_UM")
    if "wavelength" in tags:
        return _nm(tags["wavelength"], tags.get("wavelength_units", unit))
    if micrometres:
        return _nm(micrometres, "um")
    if len(listed) == ds.count:
        return _nm(str(listed[index - 1]), unit)
    described = _DESCRIBED.search(ds.descriptions[index - 1] or "")
    return _nm(*described.groups()) if described else None


def _nm(value: str, unit: str) -> float | None:
    """A wavelength in nm; None outside 350..2600 nm. Without a unit, values below 100 are micrometres."""
    try:
        number = float(value)
    except ValueError:
        return None
    nm = number * _TO_NM.get(unit.strip().lower(), 1e3 if number < 100 else 1.0)
    return round(nm, 3) if OPTICAL_NM[0] <= nm <= OPTICAL_NM[1] else None


def _first(ds: Any, *keys: str) -> str | None:
    """The first of these tags of a file, in its own or in ENVI's domain, whatever its case."""
    for domain in (None, "ENVI"):
        tags = {key.lower().replace(" ", "_"): value for key, value in ds.tags(ns=domain).items()}
        for key in keys:
            if key in tags:
                return str(tags[key])
    return None


def _listed(ds: Any, *keys: str) -> list[float]:
    """A list such as `{ 1, 0.5 }` from the file's tags; empty where there is none or it holds anything but numbers."""
    words = re.split(r"[\s,]+", (_first(ds, *keys) or "").strip(" {}[]\n"))
    try:
        return [float(word) for word in words if word]
    except ValueError:
        return []
