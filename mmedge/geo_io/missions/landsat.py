"""Landsat 4 to 9, Collection 2, Level 1 and Level 2: folders with an MTL file, and single bands of them.

Bands get the usual names by the light that they see, never by their number: band 5 is near infrared on Landsat 8 and 9,
short-wave infrared on Landsat 4 to 7, and Sentinel-2's B05 is neither.

=======  ==========================  ==========================  =================================================
name     Landsat 8 and 9 (OLI)       Landsat 4 to 7 (TM, ETM+)   note
=======  ==========================  ==========================  =================================================
B01      B1  443 nm
B02      B2  482 nm                  B1  485 nm
B03      B3  561 nm                  B2  560 nm
B04      B4  655 nm                  B3  660 nm
B08                                  B4  835 nm                  770-900 nm, as wide as Sentinel-2's B08
B8A      B5  865 nm                                              851-879 nm, as narrow as Sentinel-2's B8A
B10      B9  1373 nm                                             cirrus
B11      B6  1609 nm                 B5  1650 nm
B12      B7  2201 nm                 B7  2215 nm
=======  ==========================  ==========================  =================================================

A model that wants B08 gets OLI's B5, which lies inside B08's passband, and the assumption is recorded; TM's broad B4
never stands for B8A. Panchromatic and thermal bands are left out.
Specification: LSDS-1619 and LSDS-1618 (Collection 2 Level 2 Science Product Guides), LSDS-1822 (Level 1 format).
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from mmedge.errors import SceneError
from mmedge.geo_io.acquired import Acquisition, parse_acquisition
from mmedge.geo_io.rasters.file import QualityLayer, RasterFile
from mmedge.geo_io.rasters.header import inspect_raster
from mmedge.geo_io.rasters.quality import QA_PIXEL, RADSAT_DROPPED, Rule, bits

Facts = Mapping[str, Mapping[str, str]]  # group -> key -> value of an MTL file

FILE = re.compile(
    r"(?P<product>L[COTE](?P<satellite>0[4-9])_L(?P<level>[12])[A-Z]{2}_\d{6}_\d{8}_\d{8}_02_(?:T1|T2|RT))"
    r"_(?P<layer>(?:SR_)?B(?P<number>\d)|QA_PIXEL|QA_RADSAT)\.tiff?",
    re.IGNORECASE,
)
OLI = {1: ("B01", 443.0), 2: ("B02", 482.0), 3: ("B03", 561.4), 4: ("B04", 654.6)}
OLI |= {5: ("B8A", 864.7), 6: ("B11", 1608.9), 7: ("B12", 2200.7), 9: ("B10", 1373.4)}
TM = {
    1: ("B02", 485.0),
    2: ("B03", 560.0),
    3: ("B04", 660.0),
    4: ("B08", 835.0),
    5: ("B11", 1650.0),
    7: ("B12", 2215.0),
}
# Collection 2 scales surface reflectance in the same way for every scene.
SR_SCALE, SR_OFFSET = 2.75e-5, -0.2
SR_GROUP, L1_GROUP = "LEVEL2_SURFACE_REFLECTANCE_PARAMETERS", "LEVEL1_RADIOMETRIC_RESCALING"
MAX_MTL_BYTES = 1 << 20
ODL_LINE = re.compile(r'\s*(\w+)\s*=\s*"?(.*?)"?\s*')


@dataclass(frozen=True, slots=True)
class _Band:
    """What the name of a band's file says."""

    path: Path
    product: str
    satellite: int
    level: int
    number: int

    @property
    def role(self) -> tuple[str, float] | None:
        """(usual name, wavelength in nm); None for panchromatic and thermal bands."""
        return (OLI if self.satellite >= 8 else TM).get(self.number)


def read_product(path: Path) -> list[RasterFile] | None:
    """The optical bands of a Collection 2 folder, or the one that `path` names; None where it is not Landsat.

    Raises SceneError, for a Level 1 band also where no MTL file lies beside it.
    """
    if path.is_dir():
        bands = [band for file in sorted(path.iterdir()) if (band := _named(file)) and band.role]
        if len({band.product for band in bands}) > 1:
            raise SceneError(f"`{path}` holds several Landsat scenes", hint="give the files of one with `--source`")
        return [_described(band) for band in bands] or None
    layer = re.fullmatch(FILE, path.name)
    if layer and layer["number"] is None:
        return [_quality_file(path, layer["layer"].upper())]
    band = _named(path)
    if band is None:
        return None
    if band.role is None:
        raise SceneError(f"`{path}` is a thermal or panchromatic band: mmedge reads none", hint="leave it out")
    return [_described(band)]


def read_mtl(path: Path) -> Facts:
    """Groups of an MTL file, as JSON or as text (ODL). Raises SceneError."""
    try:
        with path.open(encoding="utf-8") as file:
            text = file.read(MAX_MTL_BYTES + 1)
        if len(text) > MAX_MTL_BYTES:
            raise SceneError(f"`{path}` is too long for an MTL file", hint="download the product again")
        groups = _from_json(text) if path.suffix.lower() == ".json" else _from_odl(text)
    except (OSError, ValueError) as err:
        raise SceneError(f"`{path}` cannot be read: {err}", hint="download the product again") from None
    if "IMAGE_ATTRIBUTES" not in groups:
        raise SceneError(f"`{path}` is no Collection 2 MTL file", hint="download the product again")
    return groups


def _named(path: Path) -> _Band | None:
    match = FILE.fullmatch(path.name)
    if not match or match["number"] is None:
        return None
    if (match["level"] == "2") != match["layer"].upper().startswith("SR_"):
        return None  # ST_B10 and the like have other names; a Level 2 product has no B1
    return _Band(path, match["product"], int(match["satellite"]), int(match["level"]), int(match["number"]))


def _described(band: _Band) -> RasterFile:
    """A band file with its usual name, scaling, date and quality layers."""
    name, wavelength = band.role or ("", 0.0)
    file = inspect_raster(band.path)
    if len(file.bands) != 1:
        raise SceneError(f"`{band.path}` holds {len(file.bands)} bands, not one", hint="download the product again")
    mtl = _beside(band)
    facts = read_mtl(mtl) if mtl else None
    scale, offset, said = _scaling(band, facts)
    raw = replace(file.bands[0], wavelength_nm=wavelength, fill=(0.0,), assumptions=said)
    return replace(
        file,
        bands=(raw.named("optical", name).scaled(scale, offset),),
        acquired=_acquired(facts, mtl) if facts and mtl else None,
        quality=tuple(_quality(band)),
        sidecars=(mtl,) if mtl else (),
    )


def _beside(band: _Band) -> Path | None:
    offers = (band.path.with_name(f"{band.product}_MTL.{suffix}") for suffix in ("json", "txt"))
    return next((path for path in offers if path.is_file()), None)


def _scaling(band: _Band, facts: Facts | None) -> tuple[float, float, tuple[str, ...]]:
    """(scale, offset) from DN to reflectance, and what had to be assumed."""
    if facts is None and band.level == 1:
        raise SceneError(f"`{band.path}` has no MTL file beside it", hint=f"copy {band.product}_MTL.json beside it")
    if facts is None:
        said = f"`{band.path.name}` has no MTL file beside it: scaled by {SR_SCALE:g} and {SR_OFFSET:g}"
        return SR_SCALE, SR_OFFSET, (said,)
    group = SR_GROUP if band.level == 2 else L1_GROUP
    scale = _number(facts, group, f"REFLECTANCE_MULT_BAND_{band.number}", band)
    offset = _number(facts, group, f"REFLECTANCE_ADD_BAND_{band.number}", band)
    if band.level == 2:
        return scale, offset, ()
    # Level 1 is not corrected for the height of the sun (LSDS-1822, section on TOA reflectance).
    sun = math.sin(math.radians(_number(facts, "IMAGE_ATTRIBUTES", "SUN_ELEVATION", band)))
    if sun <= 0:
        raise SceneError(f"`{band.path}` was taken at night: it has no reflectance", hint="give a scene taken by day")
    said = "Level 1 is reflectance at the top of the atmosphere, taken for surface reflectance"
    return scale / sun, offset / sun, (said,)


def _number(facts: Facts, group: str, key: str, band: _Band) -> float:
    try:
        return float(facts[group][key])
    except (KeyError, ValueError):
        raise SceneError(
            f"the MTL file of `{band.path}` has no {key} in {group}", hint="download the product again"
        ) from None


def _acquired(facts: Facts, mtl: Path) -> Acquisition | None:
    image = facts["IMAGE_ATTRIBUTES"]
    date, time = image.get("DATE_ACQUIRED"), image.get("SCENE_CENTER_TIME")
    return parse_acquisition(f"{date}T{time}" if time else date, source=mtl.name) if date else None


def _quality(band: _Band) -> list[QualityLayer]:
    """QA_PIXEL, and the bits of QA_RADSAT that speak of this band."""
    rules = {"QA_PIXEL": QA_PIXEL, "QA_RADSAT": Rule(bits=bits(band.number - 1, RADSAT_DROPPED))}
    found = []
    for layer, rule in rules.items():
        offers = (band.path.with_name(f"{band.product}_{layer}.{suffix}") for suffix in ("TIF", "tif", "tiff"))
        path = next((path for path in offers if path.is_file()), None)
        if path:
            found.append(QualityLayer(file=inspect_raster(path), index=1, rule=rule, name=layer))
    return found


def _quality_file(path: Path, layer: str) -> RasterFile:
    file = inspect_raster(path)
    return replace(file, bands=tuple(band.named("optical", layer) for band in file.bands))


def _from_json(text: str) -> Facts:
    found: Any = json.loads(text)
    groups = found.get("LANDSAT_METADATA_FILE", {}) if isinstance(found, dict) else {}
    return {
        name: {key: str(value) for key, value in group.items()}
        for name, group in groups.items()
        if isinstance(group, dict)
    }


def _from_odl(text: str) -> Facts:
    groups: dict[str, dict[str, str]] = {}
    here = ""
    for line in text.splitlines():
        match = ODL_LINE.fullmatch(line)
        if match and match[1] == "GROUP":
            here = match[2]
        elif match and match[1] != "END_GROUP":
            groups.setdefault(here, {})[match[1]] = match[2]
    return groups
