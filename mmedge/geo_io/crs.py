"""Coordinate systems of files: their horizontal part, whether they are of the Earth, and places between two of them."""

from __future__ import annotations

import math
import re
from functools import lru_cache

import numpy as np
import numpy.typing as npt
from rasterio._err import CPLE_BaseError  # what an impossible transformation raises; rasterio.errors has no name for it
from rasterio.crs import CRS
from rasterio.errors import CRSError
from rasterio.warp import transform

from mmedge.errors import GeoreferenceError, UsageError

Places = npt.NDArray[np.float64]

# Semi-major axes of the Earth's ellipsoids and spheres lie between 6 370 km (a sphere) and 6 378.4 km (1924).
EARTH_RADIUS_M = (6.3e6, 6.45e6)
_AXIS = re.compile(
    r'(?:SPHEROID|ELLIPSOID)\["(?:[^"]|"")*",\s*([0-9.eE+-]+)(?:,[^,\]]*,\s*LENGTHUNIT\["[^"]*",([0-9.]+))?'
)
_COMPOUND = re.compile(r'(?:COMPD_CS|COMPOUNDCRS)\["(?:[^"]|"")*",')


def horizontal(wkt: str) -> str:
    """The horizontal part of a compound CRS, which also says what heights mean; any other CRS as it is."""
    match = _COMPOUND.match(wkt)
    return _member(wkt, match.end()) if match else wkt


def _member(wkt: str, start: int) -> str:
    """The bracketed element of a WKT that begins at `start`. Brackets within quotes do not count."""
    depth, quoted = 0, False
    for i in range(start, len(wkt)):
        quoted ^= wkt[i] == '"'
        if not quoted:
            depth += (wkt[i] == "[") - (wkt[i] == "]")
            if depth == 0 and wkt[i] == "]":
                return wkt[start : i + 1]
    return wkt


@lru_cache(maxsize=64)
def known_crs(wkt: str) -> CRS:
    """A CRS from WKT, parsed once. Raises GeoreferenceError."""
    try:
        return CRS.from_wkt(wkt)
    except CRSError as err:
        raise GeoreferenceError(f"a CRS that PROJ does not understand: {err}", hint="gdalsrsinfo FILE") from None


def wkt_of(text: str) -> str:
    """The WKT of a CRS as a person writes it (`EPSG:32718`, WKT, PROJ). Raises UsageError."""
    try:
        return str(CRS.from_user_input(text).to_wkt())
    except (CRSError, ValueError):
        raise UsageError(f"`{text}` is no CRS", hint="--crs SENSOR=EPSG:32718") from None


def same_crs(a: str, b: str) -> bool:
    """Whether two WKT are one CRS, whatever its names are."""
    return a == b or bool(known_crs(a) == known_crs(b))


def check_on_earth(wkt: str, name: str) -> None:
    """Raise GeoreferenceError for a CRS that is neither projected nor geographic, or one of another planet."""
    crs = known_crs(wkt)
    if not (crs.is_projected or crs.is_geographic):
        raise GeoreferenceError(
            f"`{name}` has a local CRS, which has no place on the Earth",
            hint=f"if you know the true one: `rio edit-info --crs EPSG:32718 {name}`",
        )
    axis = _AXIS.search(wkt)
    radius = float(axis[1]) * float(axis[2] or 1) if axis else EARTH_RADIUS_M[0]
    if not EARTH_RADIUS_M[0] <= radius <= EARTH_RADIUS_M[1]:
        raise GeoreferenceError(
            f"`{name}` lies on another body than the Earth: its ellipsoid has a radius of {radius / 1000:.0f} km",
            hint="mmedge maps the Earth; if the file is of the Earth, correct its CRS with `rio edit-info --crs`",
        )


@lru_cache(maxsize=64)
def full_turn(wkt: str) -> float | None:
    """A full turn of longitude in the units of a geographic CRS (360 degrees); None for a projected one."""
    crs = known_crs(wkt)
    return float(2 * math.pi / crs.units_factor[1]) if crs.is_geographic else None


def project(source: str, target: str, x: Places, y: Places) -> tuple[Places, Places]:
    """Places (any shape) of one CRS in another; NaN where they have none, such as off the Earth's limb.

    GDAL refuses a whole array for one such point, so arrays are halved until it is alone: 0.05 ms a point.
    """
    if same_crs(source, target):
        return x, y
    found = np.full((2, x.size), np.nan)
    _project((known_crs(source), known_crs(target)), np.stack([x.ravel(), y.ravel()]), found)
    found[~np.isfinite(found)] = np.nan
    return found[0].reshape(x.shape), found[1].reshape(x.shape)


def _project(ends: tuple[CRS, CRS], places: Places, found: Places) -> None:
    try:
        found[:] = transform(*ends, *places)[:2]
    except (CPLE_BaseError, CRSError):
        if places.shape[1] > 1:
            half = places.shape[1] // 2
            _project(ends, places[:, :half], found[:, :half])
            _project(ends, places[:, half:], found[:, half:])
