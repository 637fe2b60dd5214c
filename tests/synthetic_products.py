"""Products made for tests, to their specifications: no SAFE folder, JP2 or Collection 2 file is at hand.

SYNTHETIC: the pixels are real (the example scene), the folders, names, metadata and quality layers are made here. What
the metadata of Sentinel-2 look like: Sentinel-2 Products Specification Document, S2-PDGS-TAS-DI-PSD; Sentinel-1:
S1-RS-MDA-52-7441; Landsat Collection 2: LSDS-1619 (Landsat 8-9) and LSDS-1618 (Landsat 4-7).
"""

from __future__ import annotations

import json
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import rasterio
from rasterio.control import GroundControlPoint
from rasterio.errors import NotGeoreferencedWarning
from rasterio.transform import Affine

ORIGIN = (700000.0, 5700000.0)
CRS = "EPSG:32718"
S2_GSD = {"B01": 60, "B02": 10, "B03": 10, "B04": 10, "B05": 20, "B06": 20, "B07": 20, "B08": 10, "B8A": 20}
S2_GSD |= {"B09": 60, "B10": 60, "B11": 20, "B12": 20}
S2_TILE = "T18HYC_20220412T141741"
S2_NAME = "S2A_MSIL{level}_20220412T141741_N0400_R010_T18HYC_20220412T193212.SAFE"


def write(path: Path, pixels: Any, gsd_m: float, **changes: Any) -> Path:
    """A raster (bands, rows, cols) with its corner at ORIGIN; lossless JP2 where the name says so."""
    path.parent.mkdir(parents=True, exist_ok=True)
    profile = {
        "driver": "JP2OpenJPEG" if path.suffix == ".jp2" else "GTiff",
        "count": pixels.shape[0],
        "height": pixels.shape[1],
        "width": pixels.shape[2],
        "dtype": pixels.dtype,
        "crs": CRS,
        "transform": Affine(gsd_m, 0, ORIGIN[0], 0, -gsd_m, ORIGIN[1]),
        **changes,
    }
    if path.suffix == ".jp2":
        profile |= {"QUALITY": "100", "REVERSIBLE": "YES"}
    with rasterio.open(path, "w", **profile) as out:
        out.write(pixels)
    return path


def coarser(pixels: Any, factor: int) -> Any:
    """Block means (rows, cols), rounded to the type of the pixels."""
    rows, cols = (n // factor * factor for n in pixels.shape)
    blocks = pixels[:rows, :cols].reshape(rows // factor, factor, cols // factor, factor)
    return np.rint(blocks.mean(axis=(1, 3))).astype(pixels.dtype)


def chile_dn(chile: Path) -> dict[str, Any]:
    """Digital numbers of the example scene by band, with the offset of baseline 04.00 in them; 216 x 216 pixels."""
    with rasterio.open(chile / "optical.tif") as src:
        return {
            name.split(":")[-1]: src.read(i)[:216, :216].astype(np.uint16)
            for i, name in enumerate(src.descriptions, start=1)
        }


def write_sentinel2(
    folder: Path,
    dn: Mapping[str, Any],
    *,
    level: str = "2A",
    baseline: str = "04.00",
    offsets: Sequence[float] | None = (-1000,) * 13,
    layers: Mapping[str, Any] | None = None,
    **metadata: str,
) -> Path:
    """A SAFE folder of 10 m digital numbers by band, brought to each band's own resolution.

    `layers`: quality layers by file stem, such as `MSK_QUALIT_B04` (8, rows, cols) or `SCL` (1, rows, cols), at 20 m
    (SCL, MSK_QUALIT) or 60 m (MSK_CLASSI).
    """
    safe = folder / S2_NAME.format(level=level)
    granule = safe / "GRANULE" / f"L{level}_T18HYC_A035555_20220412T142544"
    for band, pixels in dn.items():
        gsd = S2_GSD[band]
        name = f"R{gsd}m/{S2_TILE}_{band}_{gsd}m.jp2" if level == "2A" else f"{S2_TILE}_{band}.jp2"
        write(granule / "IMG_DATA" / name, coarser(pixels, gsd // 10)[None], gsd)
    for name, values in (layers or {}).items():
        gsd = 60 if name.startswith("MSK_CLASSI") else 20
        place = f"IMG_DATA/R20m/{S2_TILE}_SCL_20m.jp2" if name == "SCL" else f"QI_DATA/{name}.jp2"
        write(granule / place, values.astype(np.uint8), gsd)
    text = sentinel2_metadata(level, baseline, offsets, **metadata)
    (safe / f"MTD_MSIL{level}.xml").write_text(text, encoding="utf-8")
    return safe


def sentinel2_metadata(
    level: str, baseline: str, offsets: Sequence[float] | None, *, quantification: str = "10000"
) -> str:
    """MTD_MSIL1C.xml or MTD_MSIL2A.xml, with the elements that a reader needs and the namespaces of the real one."""
    bands = ["B1", "B2", "B3", "B4", "B5", "B6", "B7", "B8", "B8A", "B9", "B10", "B11", "B12"]
    spectral = "".join(f'<Spectral_Information bandId="{i}" physicalBand="{b}"/>' for i, b in enumerate(bands))
    prefix, values = ("BOA", "BOA_ADD_OFFSET") if level == "2A" else ("", "RADIO_ADD_OFFSET")
    added = "".join(f'<{values} band_id="{i}">{v:g}</{values}>' for i, v in enumerate(offsets or ()))
    q = f"{prefix}_QUANTIFICATION_VALUE".strip("_")
    return f"""<?xml version="1.0" encoding="UTF-8" standalone="no"?>
<n1:Level-{level}_User_Product xmlns:n1="https://psd-14.sentinel2.eo.esa.int/PSD/User_Product_Level-{level}.xsd">
<n1:General_Info><Product_Info><PRODUCT_START_TIME>2022-04-12T14:17:41.024Z</PRODUCT_START_TIME>
<PRODUCT_STOP_TIME>2022-04-12T14:17:41.024Z</PRODUCT_STOP_TIME><PROCESSING_LEVEL>Level-{level}</PROCESSING_LEVEL>
<PROCESSING_BASELINE>{baseline}</PROCESSING_BASELINE></Product_Info>
<Product_Image_Characteristics><Special_Values><SPECIAL_VALUE_TEXT>NODATA</SPECIAL_VALUE_TEXT>
<SPECIAL_VALUE_INDEX>0</SPECIAL_VALUE_INDEX></Special_Values>
<{q} unit="none">{quantification}</{q}>{added}
<Spectral_Information_List>{spectral}</Spectral_Information_List></Product_Image_Characteristics></n1:General_Info>
</n1:Level-{level}_User_Product>
"""


def write_landsat(
    folder: Path,
    product: str,
    bands: Mapping[int, Any],
    *,
    mtl: Mapping[str, Mapping[str, str]] | None = None,
    layers: Mapping[str, Any] | None = None,
    text: bool = False,
) -> Path:
    """A Collection 2 folder: uint16 bands by number (30 m), an MTL file (JSON, or ODL text), quality layers by name."""
    place = folder / product
    prefix = "SR_" if "_L2" in product else ""
    for number, pixels in bands.items():
        write(place / f"{product}_{prefix}B{number}.TIF", pixels.astype(np.uint16)[None], 30, nodata=0)
    for name, values in (layers or {}).items():
        write(place / f"{product}_{name}.TIF", values.astype(np.uint16)[None], 30, nodata=1)
    if mtl is not None and text:
        (place / f"{product}_MTL.txt").write_text(_odl(mtl), encoding="utf-8")
    elif mtl is not None:
        (place / f"{product}_MTL.json").write_text(json.dumps({"LANDSAT_METADATA_FILE": mtl}), encoding="utf-8")
    return place


def _odl(groups: Mapping[str, Mapping[str, str]]) -> str:
    lines = ["GROUP = LANDSAT_METADATA_FILE"]
    for name, group in groups.items():
        lines += [f"  GROUP = {name}", *(f"    {k} = {_quoted(v)}" for k, v in group.items()), f"  END_GROUP = {name}"]
    return "\n".join([*lines, "END_GROUP = LANDSAT_METADATA_FILE", "END", ""])


def _quoted(value: str) -> str:
    return value if value.replace(".", "").replace("-", "").replace("E", "").isdigit() else f'"{value}"'


S1_STEM = "s1a-iw-grd-{band}-20200607t010800-20200607t010825-032904-03cfba-{number:03d}"
S1_NAME = "S1A_IW_GRDH_1SDV_20200607T010800_20200607T010825_032904_03CFBA_D457.SAFE"


def write_sentinel1(
    folder: Path,
    dn: Mapping[str, Any],
    *,
    points: Sequence[GroundControlPoint],
    lut: tuple[Sequence[float], Sequence[float], Any],
    in_tiff: bool = True,
    noise: str | None = None,
) -> Path:
    """A GRD SAFE folder of uint16 digital numbers by polarisation (`vv`).

    `points` are written into the TIFF, or only into the annotation; `lut` is (lines, pixels, A (lines, pixels));
    `noise` the text of a noise annotation, see `sentinel1_noise`.
    """
    safe = folder / S1_NAME
    for number, (band, pixels) in enumerate(dn.items(), start=1):
        stem = S1_STEM.format(band=band, number=number)
        path = safe / "measurement" / f"{stem}.tiff"
        path.parent.mkdir(parents=True, exist_ok=True)
        rows, cols = pixels.shape
        placed: dict[str, Any] = {"gcps": list(points), "crs": "EPSG:4326"} if in_tiff else {}
        profile = {"driver": "GTiff", "count": 1, "height": rows, "width": cols, "dtype": "uint16", **placed}
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", NotGeoreferencedWarning)
            with rasterio.open(path, "w", **profile) as out:
                out.write(pixels.astype(np.uint16), 1)
        calibration = safe / "annotation" / "calibration" / f"calibration-{stem}.xml"
        calibration.parent.mkdir(parents=True, exist_ok=True)
        calibration.write_text(_calibration(*lut), encoding="utf-8")
        if noise is not None:
            calibration.with_name(f"noise-{stem}.xml").write_text(noise, encoding="utf-8")
        (safe / "annotation" / f"{stem}.xml").write_text(_annotation(points), encoding="utf-8")
    return safe


def sentinel1_noise(
    vectors: Sequence[tuple[float, Sequence[float], Sequence[float]]],
    swaths: Sequence[tuple[tuple[int, int, int, int], Sequence[float], Sequence[float]]] | None,
) -> str:
    """A noise annotation: range vectors (line, pixels, noise), azimuth vectors ((first line, first sample, last line,
    last sample), lines, factors); `swaths` None: as products were before IPF 2.9.
    """

    def listed(name: str, values: Sequence[float]) -> str:
        return f'<{name} count="{len(values)}">{" ".join(f"{v:g}" for v in values)}</{name}>'

    kind, lut = ("noiseVector", "noiseLut") if swaths is None else ("noiseRangeVector", "noiseRangeLut")
    across = "".join(
        f"<{kind}><azimuthTime>2020-06-07T01:08:00.000000</azimuthTime><line>{line:g}</line>{listed('pixel', pixels)}"
        f"{listed(lut, noise)}</{kind}>"
        for line, pixels, noise in vectors
    )
    names = ("firstAzimuthLine", "firstRangeSample", "lastAzimuthLine", "lastRangeSample")
    along = "".join(
        "<noiseAzimuthVector><swath>IW1</swath>"
        + "".join(f"<{name}>{value}</{name}>" for name, value in zip(names, bounds, strict=True))
        + listed("line", lines)
        + listed("noiseAzimuthLut", factors)
        + "</noiseAzimuthVector>"
        for bounds, lines, factors in swaths or ()
    )
    return (
        f'<?xml version="1.0" encoding="UTF-8"?><noise><{kind}List count="{len(vectors)}">{across}</{kind}List>'
        + (f'<noiseAzimuthVectorList count="{len(swaths)}">{along}</noiseAzimuthVectorList>' if swaths else "")
        + "</noise>"
    )


def _calibration(lines: Sequence[float], pixels: Sequence[float], a: Any) -> str:
    def vector(line: float, values: Any) -> str:
        at, listed = (" ".join(f"{v:g}" for v in numbers) for numbers in (pixels, values))
        return (
            f"<calibrationVector><azimuthTime>2020-06-07T01:08:00.000000</azimuthTime><line>{line:g}</line>"
            f'<pixel count="{len(pixels)}">{at}</pixel><sigmaNought count="{len(pixels)}">{listed}</sigmaNought>'
            f'<betaNought count="1">1</betaNought></calibrationVector>'
        )

    vectors = "".join(vector(line, values) for line, values in zip(lines, a, strict=True))
    return (
        f'<?xml version="1.0" encoding="UTF-8"?><calibration><calibrationVectorList count="{len(lines)}">{vectors}'
        "</calibrationVectorList></calibration>"
    )


def _annotation(points: Sequence[GroundControlPoint]) -> str:
    grid = "".join(
        f"<geolocationGridPoint><line>{p.row:g}</line><pixel>{p.col:g}</pixel><latitude>{p.y!r}</latitude>"
        f"<longitude>{p.x!r}</longitude><height>0</height></geolocationGridPoint>"
        for p in points
    )
    return (
        '<?xml version="1.0" encoding="UTF-8"?><product><adsHeader><startTime>2020-06-07T01:08:00.123456</startTime>'
        "<stopTime>2020-06-07T01:08:25.123455</stopTime></adsHeader><geolocationGrid><geolocationGridPointList>"
        f"{grid}</geolocationGridPointList></geolocationGrid></product>"
    )
