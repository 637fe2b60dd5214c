"""Maps side by side as one raster without copying a pixel: GDAL's virtual dataset (VRT).

Written from the maps' STAC items: maps of one CRS and pixel size become one mosaic. Where maps overlap the one whose id
comes last in the alphabet is seen; nodata hides nothing.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import ceil, floor
from typing import Any
from xml.etree.ElementTree import Element, SubElement, indent, tostring

from rasterio.crs import CRS

Item = Mapping[str, Any]
Key = tuple[str, float, float]


def mosaics(items: Sequence[Item]) -> dict[str, str]:
    """VRT documents by file name: `mosaic_EPSG_32719_10m.vrt`... Maps that are turned in their CRS are in none."""
    groups: dict[Key, list[Item]] = {}
    for item in sorted(items, key=lambda item: str(item["id"])):
        a, b, _, d, e, _ = item["properties"]["proj:transform"][:6]
        if b == d == 0 and e < 0 < a:
            groups.setdefault((_crs(item), a, -e), []).append(item)
    named: dict[str, str] = {}
    for key, members in sorted(groups.items()):
        name = _name(key)
        while name in named:  # other CRSs that have no code
            name += "_2"
        named[name] = _vrt(key, members)
    return {f"{name}.vrt": text for name, text in named.items()}


def _crs(item: Item) -> str:
    return str(item["properties"].get("proj:code") or item["properties"]["proj:wkt2"])


def _name(key: Key) -> str:
    crs, width, height = key
    code = crs.replace(":", "_") if crs.startswith("EPSG:") else "local"
    side = f"{width:g}" if width == height else f"{width:g}x{height:g}"
    return f"mosaic_{code}_{side}"


def _vrt(key: Key, items: Sequence[Item]) -> str:
    crs, width, height = key
    spans = [_span(item) for item in items]
    left, top = min(s[0] for s in spans), max(s[1] for s in spans)
    cols = ceil(round((max(s[2] for s in spans) - left) / width, 6))
    rows = ceil(round((top - min(s[3] for s in spans)) / height, 6))
    asset = items[0]["assets"]["map"]
    classes = asset["classification:classes"]
    root = Element("VRTDataset", rasterXSize=str(cols), rasterYSize=str(rows))
    SubElement(root, "SRS").text = CRS.from_user_input(crs).to_wkt(version="WKT2_2019")
    SubElement(root, "GeoTransform").text = ", ".join(repr(float(v)) for v in (left, width, 0, top, 0, -height))
    tags = SubElement(root, "Metadata")
    for c in classes:
        SubElement(tags, "MDI", key=f"CLASS_{c['value']}").text = c["name"]
    band = SubElement(root, "VRTRasterBand", dataType="Byte", band="1")
    SubElement(band, "NoDataValue").text = str(asset["nodata"])
    SubElement(band, "ColorInterp").text = "Palette"
    _colours(band, classes)
    for item, (x0, y0, _, _) in zip(items, spans, strict=True):
        _source(band, item, (x0 - left) / width, (top - y0) / height)
    indent(root, " ")
    return tostring(root, encoding="unicode") + "\n"


def _span(item: Item) -> tuple[float, float, float, float]:
    """Left, top, right, bottom in the map's CRS."""
    a, _, x, _, e, y = item["properties"]["proj:transform"][:6]
    rows, cols = item["properties"]["proj:shape"]
    return x, y, x + cols * a, y + rows * e


def _colours(band: Element, classes: Sequence[Mapping[str, Any]]) -> None:
    """Colours and names by class value; what is no class is transparent."""
    known = {c["value"]: c for c in classes}
    table, names = SubElement(band, "ColorTable"), SubElement(band, "CategoryNames")
    for value in range(256):
        red, green, blue = bytes.fromhex(known[value]["color_hint"]) if value in known else (0, 0, 0)
        opaque = "255" if value in known else "0"
        SubElement(table, "Entry", c1=str(red), c2=str(green), c3=str(blue), c4=opaque)
        SubElement(names, "Category").text = known[value]["name"] if value in known else None


def _source(band: Element, item: Item, col: float, row: float) -> None:
    asset, (rows, cols) = item["assets"]["map"], item["properties"]["proj:shape"]
    source = SubElement(band, "ComplexSource")
    SubElement(source, "SourceFilename", relativeToVRT="1").text = asset["href"].removeprefix("./")
    SubElement(source, "SourceBand").text = "1"
    SubElement(source, "SrcRect", xOff="0", yOff="0", xSize=str(cols), ySize=str(rows))
    SubElement(source, "DstRect", xOff=_number(col), yOff=_number(row), xSize=str(cols), ySize=str(rows))
    SubElement(source, "NODATA").text = str(asset["nodata"])


def _number(value: float) -> str:
    """A whole number of pixels where it is one but for rounding."""
    nearest = floor(value + 0.5)
    return str(nearest) if abs(value - nearest) < 1e-6 else repr(value)
