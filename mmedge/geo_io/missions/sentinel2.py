"""Sentinel-2 L1C and L2A: SAFE folders and single band files (`T18HYC_20200412T141741_B04_10m.jp2`).

Reflectance = (DN + offset) / quantification value, both read from MTD_MSIL1C.xml or MTD_MSIL2A.xml. From processing
baseline 04.00 on the offset is -1000 in every band. DN 0 is no data, 65535 is saturated.
Specification: Sentinel-2 Products Specification Document, S2-PDGS-TAS-DI-PSD, issue 14.9 and later.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from pathlib import Path
from xml.etree.ElementTree import Element

from mmedge.errors import SceneError
from mmedge.geo_io.acquired import Acquisition, parse_acquisition
from mmedge.geo_io.bands import band_name
from mmedge.geo_io.missions.xmlfile import number_of, read_xml, text_of
from mmedge.geo_io.rasters.file import QualityLayer, RasterFile
from mmedge.geo_io.rasters.header import inspect_raster
from mmedge.geo_io.rasters.quality import FLAGGED, MSK_CLASSI_LAYERS, MSK_QUALIT_LAYERS, SCL

METADATA = ("MTD_MSIL2A.xml", "MTD_MSIL1C.xml")
BAND_FILE = re.compile(
    r"(?:L2A_)?T\d{2}[A-Z]{3}_\d{8}T\d{6}_(?P<band>B0[1-9]|B1[0-2]|B8A|SCL)(?:_(?P<gsd_m>10|20|60)m)?\.(?:jp2|tiff?)",
    re.IGNORECASE,
)
# Band ids of the metadata, in order.
BANDS = ("B01", "B02", "B03", "B04", "B05", "B06", "B07", "B08", "B8A", "B09", "B10", "B11", "B12")
FILL = (0.0, 65535.0)
# The first baseline with an offset, and with quality masks that are rasters.
OFFSET_BASELINE = (4, 0)


@dataclass(frozen=True, slots=True, kw_only=True)
class Metadata:
    """What a product's own file says. `offsets` are DN to add, by band; `baseline` such as (5, 11)."""

    path: Path
    level: str
    baseline: tuple[int, ...]
    quantification: float
    offsets: dict[str, float]
    acquired: Acquisition

    @property
    def assumptions(self) -> tuple[str, ...]:
        said = []
        if self.level == "1C":
            said.append("Level-1C is reflectance at the top of the atmosphere, taken for surface reflectance")
        if self.baseline < OFFSET_BASELINE and self.level == "1C":
            said.append("clouds are not masked: before baseline 04.00 the masks of Level-1C are vectors")
        return tuple(said)


def read_product(path: Path) -> list[RasterFile] | None:
    """The band files of a SAFE folder, each at its finest resolution, or the one that `path` names.

    None where the path is not Sentinel-2. Raises SceneError.
    """
    if path.is_dir():
        metadata = _metadata_in(path)
        return _folder(path, read_metadata(metadata)) if metadata else None
    if not BAND_FILE.fullmatch(path.name):
        return None
    metadata = next((m for parent in path.parents[:5] if (m := _metadata_in(parent))), None)
    return [_described(path, read_metadata(metadata)) if metadata else _alone(path)]


def read_metadata(path: Path) -> Metadata:
    """Level, baseline, scaling and date from a MTD_MSIL*.xml. Raises SceneError where one of them is missing."""
    root = read_xml(path)
    level = "2A" if "L2A" in path.name else "1C"
    baseline = _baseline(text_of(root, "PROCESSING_BASELINE", path), path)
    offsets = _offsets(root, "BOA_ADD_OFFSET" if level == "2A" else "RADIO_ADD_OFFSET", path)
    if baseline >= OFFSET_BASELINE and len(offsets) < len(BANDS):
        raise SceneError(
            f"`{path}` has offsets for {len(offsets)} of {len(BANDS)} bands, though its baseline is 04.00 or later",
            hint="download the product again",
        )
    return Metadata(
        path=path,
        level=level,
        baseline=baseline,
        quantification=_quantification(root, level, path),
        offsets=offsets,
        acquired=parse_acquisition(text_of(root, "PRODUCT_START_TIME", path), source=path.name),
    )


def _metadata_in(folder: Path) -> Path | None:
    return next((folder / name for name in METADATA if (folder / name).is_file()), None)


def _baseline(text: str, path: Path) -> tuple[int, ...]:
    if not re.fullmatch(r"\d\d\.\d\d", text):
        raise SceneError(f"`{path}`: `{text}` is no processing baseline", hint="download the product again")
    return tuple(int(part) for part in text.split("."))


def _quantification(root: Element, level: str, path: Path) -> float:
    value = number_of(root, "BOA_QUANTIFICATION_VALUE" if level == "2A" else "QUANTIFICATION_VALUE", path)
    if not value > 0:
        raise SceneError(f"`{path}`: quantification value {value:g}", hint="download the product again")
    return value


def _offsets(root: Element, name: str, path: Path) -> dict[str, float]:
    known = {s.get("bandId", ""): band_name(s.get("physicalBand", "")) for s in root.iter("Spectral_Information")}
    known = known or {str(i): band for i, band in enumerate(BANDS)}
    return {known[e.get("band_id", "")]: number_of(e, name, path) for e in root.iter(name) if e.get("band_id") in known}


def _folder(safe: Path, metadata: Metadata) -> list[RasterFile]:
    granules = sorted(folder for folder in safe.glob("GRANULE/*") if folder.is_dir())
    if len(granules) != 1:
        raise SceneError(f"`{safe}` holds {len(granules)} granules", hint="give a product of one granule, of 2016 on")
    finest: dict[str, tuple[int, Path]] = {}
    for path in sorted(granules[0].glob("IMG_DATA/**/*")):
        match = BAND_FILE.fullmatch(path.name)
        if match and match["band"] != "SCL":
            offer = (int(match["gsd_m"] or 0), path)
            finest[match["band"]] = min(offer, finest.get(match["band"], offer))
    if not finest:
        raise SceneError(f"`{safe}` holds no band in GRANULE/*/IMG_DATA", hint="unpack the whole product")
    return [_described(finest[band][1], metadata) for band in sorted(finest, key=BANDS.index)]


def _described(path: Path, metadata: Metadata) -> RasterFile:
    """A band file of a product, with scaling, date and quality layers."""
    file = _alone(path)
    name = str(file.bands[0].name)
    if name == "SCL":
        return file
    scale = 1 / metadata.quantification
    band = file.bands[0].scaled(scale, metadata.offsets.get(name, 0.0) * scale)
    return replace(
        file,
        bands=(replace(band, assumptions=metadata.assumptions),),
        acquired=metadata.acquired,
        quality=tuple(_quality(path, name, metadata.level)),
        sidecars=(metadata.path,),
    )


def _alone(path: Path) -> RasterFile:
    """A band file as its name describes it. Without metadata nobody knows whether the offset is in it."""
    file = inspect_raster(path)
    if len(file.bands) != 1:
        raise SceneError(f"`{path}` holds {len(file.bands)} bands, not the one of its name", hint="rename the file")
    match = BAND_FILE.fullmatch(path.name)
    name = match["band"].upper() if match else ""
    band = file.bands[0].named("optical", name)
    if name != "SCL":
        band = replace(band, fill=FILL)
        if not band.tagged:
            said = "has no MTD_MSIL*.xml beside it: taken to be free of the +1000 offset of baseline 04.00"
            band = band.assuming(f"`{path.name}` {said}")
    return replace(file, bands=(band,))


def _quality(path: Path, band: str, level: str) -> list[QualityLayer]:
    """The layers of a band: SCL (L2A) or MSK_CLASSI (L1C) for clouds, MSK_QUALIT for lost and saturated pixels."""
    image = next(parent for parent in path.parents if parent.name == "IMG_DATA")
    folder = image.parent / "QI_DATA"
    found = _flags(folder / f"MSK_QUALIT_{band}.jp2", MSK_QUALIT_LAYERS)
    if level == "1C":
        return [*_flags(folder / "MSK_CLASSI_B00.jp2", MSK_CLASSI_LAYERS), *found]
    classes = sorted(image.glob("**/*_SCL_*m.jp2"))[:1]  # 20 m before 60 m
    return [*(QualityLayer(file=inspect_raster(file), index=1, rule=SCL, name="SCL") for file in classes), *found]


def _flags(path: Path, layers: tuple[int, ...]) -> list[QualityLayer]:
    if not path.is_file():
        return []  # before baseline 04.00: vectors
    file = inspect_raster(path)
    name = path.stem.rpartition("_")[0]
    return [QualityLayer(file=file, index=b.index, rule=FLAGGED, name=name) for b in file.bands if b.index in layers]
