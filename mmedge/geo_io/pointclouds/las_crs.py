"""Where a point cloud lies: its horizontal CRS and the metres of its vertical unit, from WKT or GeoTIFF keys.

LAS 1.4 formats 6 to 10 keep WKT, and it wins over GeoTIFF keys; older formats keep GeoTIFF keys, and those win.
x is always easting or longitude and y northing or latitude, whatever axis order the CRS itself declares.
"""

from __future__ import annotations

import math
import re
import struct
from dataclasses import dataclass, field
from pathlib import Path

import rasterio
from rasterio.crs import CRS
from rasterio.errors import CRSError, RasterioIOError
from rasterio.io import MemoryFile

from mmedge.errors import GeoreferenceError
from mmedge.geo_io.pointclouds.las_header import GEO_ASCII, GEO_DOUBLES, GEO_KEYS, WKT, LasHeader

FOOT_M, US_FOOT_M = 0.3048, 1200 / 3937
UNIT_CODES = {9001: 1.0, 9002: FOOT_M, 9003: US_FOOT_M}
VERTICAL = ("VERT_CS", "VERTCS", "VERTCRS", "VERTICALCRS")
COMPOUND = ("COMPD_CS", "COMPOUNDCRS")
HORIZONTAL = (
    "PROJCS",
    "GEOGCS",
    "PROJCRS",
    "PROJECTEDCRS",
    "GEOGCRS",
    "GEOGRAPHICCRS",
    "GEODCRS",
    "GEODETICCRS",
    "BOUNDCRS",
)
TOKEN = re.compile(r'"(?:[^"]|"")*"|[\[\](),]|[^\s\[\](),"]+')


@dataclass(frozen=True, slots=True, kw_only=True)
class CloudCrs:
    """`wkt` is horizontal only; `z_unit_m` metres per unit of z; `notes` and `warnings` go to `SourceInfo`."""

    wkt: str
    z_unit_m: float
    geographic: bool
    notes: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()


@dataclass(slots=True)
class Node:
    """A WKT element: its keyword, its values and children, and the part of the text that it spans."""

    name: str
    start: int
    end: int = 0
    values: list[str] = field(default_factory=list)
    children: list[Node] = field(default_factory=list)


def cloud_crs(header: LasHeader, *, crs: str | None = None, z_unit_m: float | None = None) -> CloudCrs:
    """The CRS of a file; `crs` (anything rasterio reads) and `z_unit_m` override what the file says.

    Raises GeoreferenceError where there is no CRS, or one without a map plane.
    """
    found, source = (given_crs(crs), "given") if crs else _from_file(header)
    note = "CRS as given, not as in the file" if crs and _from_file(header)[0] else ""
    if source == "fallback":
        note = "the CRS comes from the record that this LAS version does not prefer"
    unit = _key_unit(header, source)
    return crs_from_wkt(header.path, found, z_unit_m=z_unit_m, usual_m=unit, note=note, why=source)


def crs_from_wkt(
    path: Path,
    found: str | None,
    *,
    z_unit_m: float | None,
    usual_m: float | None = None,
    note: str = "",
    why: str = "it names none",
) -> CloudCrs:
    """The CRS of a cloud from its WKT (None: `why`). `usual_m`: metres of z where the WKT says nothing of them.

    Raises GeoreferenceError where there is no CRS, or one without a map plane.
    """
    if found is None:
        raise GeoreferenceError(f"`{path}` has no usable CRS: {why}", hint=_hint(path))
    try:
        wkt, vertical_m, warnings = split_wkt(found)
        with rasterio.Env():  # without it, GDAL prints its complaint to stderr
            horizontal = CRS.from_wkt(wkt)
    except (CRSError, ValueError) as err:
        raise GeoreferenceError(f"`{path}` has no usable CRS: {err}", hint=_hint(path)) from err
    if not (horizontal.is_projected or horizontal.is_geographic):
        kind = wkt.partition("[")[0]
        raise GeoreferenceError(f"`{path}`: a {kind} CRS has no map plane to grid points on", hint=_hint(path))
    factor, said = _z_unit(horizontal, z_unit_m, vertical_m or usual_m)
    return CloudCrs(
        wkt=wkt,
        z_unit_m=factor,
        geographic=bool(horizontal.is_geographic),
        notes=tuple(f"{path.name}: {text}" for text in (note, said) if text),
        warnings=tuple(f"{path.name}: {w}" for w in warnings),
    )


def split_wkt(wkt: str) -> tuple[str, float | None, list[str]]:
    """(horizontal WKT, metres per vertical unit or None, warnings) of a compound or plain CRS."""
    root = _tree(wkt)
    vertical = _find(root, VERTICAL)
    horizontal = wkt
    if root.name in COMPOUND and (part := _find(root, HORIZONTAL)):
        horizontal = wkt[part.start : part.end]
    unit = _find(vertical, ("UNIT", "LENGTHUNIT")) if vertical else None
    if unit is None or len(unit.values) < 2:
        return horizontal, None, []
    return horizontal, *_length(unit.values[0], unit.values[1])


def _length(name: str, stated: str) -> tuple[float | None, list[str]]:
    """Metres of a WKT length unit. `UNIT["US survey foot",1.0]` exists: the name wins over a factor of 1."""
    try:
        factor = float(stated)
    except ValueError:
        factor = math.nan
    plain = name.lower().replace("_", " ").strip('"')
    feet = "foot" in plain or "feet" in plain or plain in ("ft", "us-ft", "ftus")
    if feet and not 0.3 < factor < 0.31:
        return (US_FOOT_M if "us" in plain else FOOT_M), [f"vertical unit {name} with factor {stated}: read as feet"]
    return (
        (factor, []) if math.isfinite(factor) and factor > 0 else (None, [f"vertical unit {name} has no usable factor"])
    )


def _z_unit(horizontal: CRS, given: float | None, vertical_m: float | None) -> tuple[float, str]:
    """(metres per unit of z, what was assumed). Without a vertical CRS, z is in the unit of x and y, or in metres."""
    if given is not None:
        return given, f"heights read with {given:g} m a unit, as given"
    if vertical_m is not None:
        return vertical_m, ""
    if horizontal.is_projected:
        name, factor = horizontal.linear_units_factor
        return float(factor), f"no vertical CRS: heights taken to be in the horizontal unit ({name})"
    return 1.0, "no vertical CRS: heights taken to be in metres"


def given_crs(crs: str) -> str:
    """The WKT of a CRS as a person gives it. Raises GeoreferenceError."""
    try:
        return str(CRS.from_user_input(crs).to_wkt())
    except (CRSError, ValueError) as err:
        raise GeoreferenceError(f"`{crs}` is not a CRS: {err}", hint="give one such as EPSG:32633") from err


def _from_file(header: LasHeader) -> tuple[str | None, str]:
    """(WKT, where it comes from), or (None, why not)."""
    readers = [_from_geotiff, _from_wkt]
    if header.modern or header.wkt_bit:
        readers.reverse()
    for rank, reader in enumerate(readers):
        if wkt := reader(header):
            return wkt, "fallback" if rank and _present(header, readers[0] is _from_wkt) else "file"
    present = [key for key in (WKT, GEO_KEYS) if key in header.records]
    return None, "its CRS records cannot be read" if present else "it has no CRS record"


def _present(header: LasHeader, wkt: bool) -> bool:
    return (WKT if wkt else GEO_KEYS) in header.records


def _from_wkt(header: LasHeader) -> str | None:
    text = header.records.get(WKT, b"").split(b"\0")[0].decode("utf-8", "replace").strip()
    if not text:
        return None
    try:
        horizontal, _, _ = split_wkt(text)
        with rasterio.Env():  # without it, GDAL prints its complaint to stderr
            CRS.from_wkt(horizontal)
    except (CRSError, ValueError):
        return None
    return text


def _from_geotiff(header: LasHeader) -> str | None:
    """Let GDAL read the GeoTIFF keys: they are put into a one-pixel TIFF in memory. None where they say nothing."""
    keys = _directory(header.records.get(GEO_KEYS, b""))
    if not {2048, 3072} & {key for key, *_ in _entries(keys)}:  # GeographicType, ProjectedCSType
        return None
    raw = _one_pixel_tiff(keys, header.records.get(GEO_DOUBLES, b""), header.records.get(GEO_ASCII, b""))
    try:
        with rasterio.Env(GTIFF_REPORT_COMPD_CS=True), MemoryFile(raw) as memory, memory.open() as dataset:
            crs = dataset.crs
            usable = crs is not None and (crs.is_projected or crs.is_geographic)
            return str(crs.to_wkt()) if usable else None
    except (CRSError, RasterioIOError, UnicodeDecodeError):
        return None


def _directory(raw: bytes) -> bytes:
    """The key directory without the one zero entry that libLAS counts at its end. More zero entries are damage."""
    count = struct.unpack_from("<4H", raw)[3] if len(raw) >= 8 else 0
    if count == 0 or len(raw) < 8 * (count + 1):
        return b""
    if raw[8 * count : 8 * (count + 1)] == bytes(8):
        count -= 1
    return struct.pack("<4H", *struct.unpack_from("<3H", raw), count) + raw[8 : 8 * (count + 1)]


def _key_unit(header: LasHeader, source: str) -> float | None:
    """Metres of VerticalUnitsGeoKey (4099), which GDAL drops where no vertical CRS goes with it."""
    keys = _directory(header.records.get(GEO_KEYS, b""))
    if source == "given" or header.modern or not keys:
        return None
    return next((UNIT_CODES.get(value) for key, where, _, value in _entries(keys) if key == 4099 and where == 0), None)


def _entries(keys: bytes) -> list[tuple[int, int, int, int]]:
    """(key, tag that holds the value, count, value or index) of a key directory."""
    return [struct.unpack_from("<4H", keys, at) for at in range(8, len(keys), 8)]


def _one_pixel_tiff(keys: bytes, doubles: bytes, text: bytes) -> bytes:
    """A little-endian TIFF of one byte, with GeoTIFF tags. SHORT = 3, LONG = 4, ASCII = 2, DOUBLE = 12."""
    plain = [(256, 1), (257, 1), (258, 8), (259, 1), (262, 1), (273, 8), (277, 1), (278, 1), (279, 1)]
    blobs = [(33550, 12, struct.pack("<3d", 1, 1, 0)), (33922, 12, bytes(48)), (34735, 3, keys)]
    blobs += [(34736, 12, doubles[: len(doubles) // 8 * 8])] if len(doubles) >= 8 else []
    text = text.rstrip(b"\0").replace(b"\0", b" ").decode("ascii", "replace").replace("\ufffd", "?").encode("ascii")
    blobs += [(34737, 2, text.ljust(4) + b"\0")] if text else []
    at = 16 + 2 + 12 * (len(plain) + len(blobs)) + 4
    directory, data = struct.pack("<H", len(plain) + len(blobs)), b""
    directory += b"".join(struct.pack("<HHII", tag, 4, 1, value) for tag, value in plain)
    for tag, kind, blob in blobs:
        directory += struct.pack("<HHII", tag, kind, len(blob) // {12: 8, 3: 2, 2: 1}[kind], at + len(data))
        data += blob + bytes(len(blob) % 2)
    return b"II*\0" + struct.pack("<I", 16) + bytes(8) + directory + bytes(4) + data


def _tree(wkt: str) -> Node:
    """Parse WKT 1 or 2 without recursion. Raises ValueError where brackets do not match."""
    root = Node("", 0)
    stack, word = [root], ("", 0)
    for token in TOKEN.finditer(wkt):
        text = token.group()
        if text in "[(":
            node = Node(word[0].upper(), word[1])
            stack[-1].children.append(node)
            stack.append(node)
        elif text in "])":
            if len(stack) == 1:
                raise ValueError("unbalanced WKT")
            stack.pop().end = token.end()
        elif text != ",":
            word = (text, token.start())
            stack[-1].values.append(text.strip('"'))
    if len(stack) != 1 or not root.children:
        raise ValueError("unbalanced WKT")
    return root.children[0]


def _find(root: Node, names: tuple[str, ...]) -> Node | None:
    """The first element, depth first, that has one of `names`."""
    todo = [root]
    while todo:
        node = todo.pop()
        if node.name in names:
            return node
        todo.extend(reversed(node.children))
    return None


def _hint(path: Path) -> str:
    return f"say which CRS `{path.name}` is in: --crs SENSOR=EPSG:32633, in Python crs='EPSG:32633'"
