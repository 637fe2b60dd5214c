"""Names of sensors and bands, and the aliases under which files carry them.

A band is matched by name, never by position: `optical:B02`, `B2`, `blue` and `sentinel-2:blue` are one band.
"""

from __future__ import annotations

import re

_OPTICAL = {
    "B01": "b1 coastal coastal_aerosol",
    "B02": "b2 blue",
    "B03": "b3 green",
    "B04": "b4 red",
    "B05": "b5 rededge1 red_edge_1 vre1",
    "B06": "b6 rededge2 red_edge_2 vre2",
    "B07": "b7 rededge3 red_edge_3 vre3",
    "B08": "b8 nir",
    "B8A": "b08a nir08 nir_narrow narrow_nir",
    "B09": "b9 nir09 water_vapour water_vapor",
    "B10": "cirrus",
    "B11": "swir16 swir1",
    "B12": "swir22 swir2",
}
_SAR = {"VV": "", "VH": "", "HH": "", "HV": ""}
# Layers that say which pixels are usable: see `quality`.
_QUALITY = {"SCL": "scene_classification", "QA60": "", "QA_PIXEL": "", "QA_RADSAT": ""}
_ELEVATION = {"DEM": "elevation dtm ground srtm height"}

SENSOR_ALIASES = {
    "optical": "optics s2 sentinel2 sentinel_2 msi multispectral",
    "sar": "radar s1 sentinel1 sentinel_1",
    "elevation": "lidar dem dtm terrain srtm",
}


def _key(name: str) -> str:
    return re.sub(r"[\s\-.]+", "_", name.strip().lower())


def _table(canonical: dict[str, str]) -> dict[str, str]:
    return {_key(alias): name for name, aliases in canonical.items() for alias in (name, *aliases.split())}


_BANDS = _table(_OPTICAL) | _table(_SAR) | _table(_ELEVATION) | _table(_QUALITY)
_SENSORS = _table(SENSOR_ALIASES)
_SENSOR_OF = (
    dict.fromkeys((*_OPTICAL, *_QUALITY), "optical")
    | dict.fromkeys(_SAR, "sar")
    | dict.fromkeys(_ELEVATION, "elevation")
)


def sensor_name(name: str) -> str:
    """The usual name of a sensor (`lidar` -> `elevation`); an unknown one as it is, in lower case."""
    return _SENSORS.get(_key(name), name.strip().lower())


def band_name(name: str) -> str:
    """The usual name of a band (`blue` -> `B02`); an unknown one as it is."""
    return _BANDS.get(_key(name), name.strip())


def split_description(description: str | None) -> tuple[str | None, str | None]:
    """(sensor, band) of a band description such as `sar:VV` or `blue`; None for what it does not say."""
    if not description or not description.strip():
        return None, None
    sensor, colon, band = description.partition(":")
    if colon:
        return sensor_name(sensor), band_name(band)
    band = band_name(description)
    return _SENSOR_OF.get(band), band


def band_in_file_name(stem: str) -> str | None:
    """The one band that a file's name says, such as B04 in `T33UVP_20200412_B04_10m`; None if none or several."""
    found = {_BANDS[k] for part in re.split(r"[_\-. ]+", stem) if (k := _key(part)) in _BANDS}
    return found.pop() if len(found) == 1 else None
