"""The header of a LAS, LAZ or COPC file, checked against the size of the file before anything is allocated.

Nothing here trusts a count or a length that the file states: records are walked in place, payloads are read only
where they are needed and only up to a limit. Layout: ASPRS LAS 1.4 R15, LASzip VLR, COPC 1.0.
"""

from __future__ import annotations

import os
import stat
import struct
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, NoReturn

from mmedge.errors import ReadError, SceneError

MAX_RECORDS = 10_000  # (E)VLRs that are looked at; lots_of_vlr.las of PDAL has 390
MAX_PAYLOAD = 1 << 20  # bytes of one EVLR payload (a WKT); a VLR cannot hold more than 65,535
MAX_SCALE, MAX_OFFSET = 1e3, 1e12  # units of the CRS; written so that NaN fails too
MIN_RECORD_LENGTH = {0: 20, 1: 28, 2: 26, 3: 34, 4: 57, 5: 63, 6: 30, 7: 36, 8: 38, 9: 59, 10: 67}
HEADER_LENGTH = {0: 227, 1: 227, 2: 227, 3: 235, 4: 375}

WKT = ("LASF_Projection", 2112)
GEO_KEYS, GEO_DOUBLES, GEO_ASCII = (("LASF_Projection", n) for n in (34735, 34736, 34737))
LASZIP = ("laszip encoded", 22204)
COPC_INFO = ("copc", 1)
WANTED = frozenset({WKT, GEO_KEYS, GEO_DOUBLES, GEO_ASCII, LASZIP, COPC_INFO})


@dataclass(frozen=True, slots=True, kw_only=True)
class LasHeader:
    """Facts of one file. `scale` and `offset` are (x, y, z); `bounds` is (xmin, ymin, zmin, xmax, ymax, zmax).

    `bounds` is what the file claims; it is checked against the points before anyone relies on it.
    `records` holds the payloads of the (E)VLRs that matter here, by (user id, record id).
    """

    path: Path
    file_size: int
    minor: int
    point_format: int
    record_length: int
    points: int
    point_offset: int
    compressed: bool
    wkt_bit: bool
    standard_gps_time: bool
    scale: tuple[float, float, float]
    offset: tuple[float, float, float]
    bounds: tuple[float, float, float, float, float, float]
    records: dict[tuple[str, int], bytes]
    warnings: tuple[str, ...]

    @property
    def modern(self) -> bool:
        """Point formats 6 to 10, which store returns and classes in other bytes."""
        return self.point_format >= 6


def damaged(path: Path, offset: int, what: str, *, error: type[SceneError] = SceneError) -> NoReturn:
    """Raise `error`, which names the file and the byte offset at which it stops making sense."""
    raise error(f"`{path}`: {what} (at byte {offset})", hint=f"check or repair the file: pdal info `{path}`")


def read_header(path: Path) -> LasHeader:
    """Read and check the header of `path`. Raises SceneError, which names the file and the byte offset."""
    try:
        if not stat.S_ISREG(os.stat(path).st_mode):
            raise SceneError(f"`{path}` is not a regular file", hint=f"give a file: ls -l `{path}`")
        with open(path, "rb") as file:
            return _parse(path, file, os.fstat(file.fileno()).st_size)
    except OSError as err:
        raise ReadError(f"`{path}`: {err.strerror or err}", hint=f"check the path: ls -l `{path}`") from err


def _parse(path: Path, file: BinaryIO, size: int) -> LasHeader:
    raw = file.read(375)
    if raw[:4] != b"LASF":
        damaged(path, 0, "not a LAS file: the signature LASF is missing")
    if len(raw) < 227:
        damaged(path, len(raw), "the file ends inside its header")
    major, minor = raw[24], raw[25]
    if major != 1 or minor not in HEADER_LENGTH:
        damaged(path, 24, f"LAS version {major}.{minor} is not one of 1.0 to 1.4")
    header_size, point_offset, vlrs = struct.unpack_from("<HII", raw, 94)
    if header_size < HEADER_LENGTH[minor] or len(raw) < HEADER_LENGTH[minor]:
        damaged(path, 94, f"a LAS 1.{minor} header has {HEADER_LENGTH[minor]} bytes, this one claims {header_size}")
    if not header_size <= point_offset <= size:
        damaged(path, 96, f"points at byte {point_offset}, outside the {size} bytes between header and end of file")
    format_byte, record_length = struct.unpack_from("<BH", raw, 104)
    point_format, compressed = format_byte & 0x3F, format_byte >= 0x40
    if point_format not in MIN_RECORD_LENGTH:
        damaged(path, 104, f"point format {point_format} is not one of 0 to 10")
    if record_length < MIN_RECORD_LENGTH[point_format]:
        damaged(
            path, 105, f"{record_length} bytes a point, format {point_format} needs {MIN_RECORD_LENGTH[point_format]}"
        )
    numbers = struct.unpack_from("<12d", raw, 131)
    if not all(0 < abs(s) <= MAX_SCALE for s in numbers[:3]) or not all(abs(o) <= MAX_OFFSET for o in numbers[3:6]):
        damaged(path, 131, f"impossible scales or offsets {numbers[:6]}")
    points = _point_count(raw, minor, point_format)
    if not compressed and point_offset + points * record_length > size:
        damaged(path, size, f"the header claims {points} points of {record_length} bytes, the file ends before that")
    records, warnings = _vlrs(path, file, header_size, point_offset, vlrs)
    if minor == 4:
        start, count = struct.unpack_from("<QI", raw, 235)
        warnings += _evlrs(file, start, count, size, records)
    (encoding,) = struct.unpack_from("<H", raw, 6)
    xmax, xmin, ymax, ymin, zmax, zmin = numbers[6:]
    return LasHeader(
        path=path,
        file_size=size,
        minor=minor,
        point_format=point_format,
        record_length=record_length,
        points=points,
        point_offset=point_offset,
        compressed=compressed,
        wkt_bit=minor == 4 and bool(encoding & 16),
        standard_gps_time=minor >= 2 and bool(encoding & 1),
        scale=numbers[:3],
        offset=numbers[3:6],
        bounds=(xmin, ymin, zmin, xmax, ymax, zmax),
        records=records,
        warnings=tuple(warnings),
    )


def _point_count(raw: bytes, minor: int, point_format: int) -> int:
    """LAS 1.4 has a 64-bit count; formats 0 to 5 may keep the old 32-bit one alone."""
    legacy = int(struct.unpack_from("<I", raw, 107)[0])
    if minor < 4:
        return legacy
    count = int(struct.unpack_from("<Q", raw, 247)[0])
    return count or (legacy if point_format < 6 else 0)


def _vlrs(
    path: Path, file: BinaryIO, start: int, end: int, claimed: int
) -> tuple[dict[tuple[str, int], bytes], list[str]]:
    """Payloads of the wanted VLRs between header and points. A claim of more than fits is cut there, with a warning."""
    records: dict[tuple[str, int], bytes] = {}
    at = start
    for index in range(min(claimed, MAX_RECORDS)):
        file.seek(at)
        head = file.read(54) if at + 54 <= end else b""
        length = struct.unpack_from("<H", head, 20)[0] if len(head) == 54 else 0
        if len(head) < 54 or at + 54 + length > end:
            return records, [f"{path.name}: VLR {index + 1} of {claimed} does not fit before the points (at byte {at})"]
        key = _key(head)
        if key in WANTED and key not in records:
            records[key] = file.read(length)
        at += 54 + length
    if claimed > MAX_RECORDS:
        return records, [f"{path.name}: {claimed} VLRs, only the first {MAX_RECORDS} were read (at byte {at})"]
    return records, []


def _evlrs(file: BinaryIO, start: int, claimed: int, size: int, records: dict[tuple[str, int], bytes]) -> list[str]:
    """Add the wanted EVLR payloads that no VLR gave. COPC hierarchies are reached by their own offset instead."""
    at = start
    name = Path(file.name).name
    for index in range(min(claimed, MAX_RECORDS)):
        head = b""
        if at + 60 <= size:
            file.seek(at)
            head = file.read(60)
        length = struct.unpack_from("<Q", head, 20)[0] if len(head) == 60 else 0
        if len(head) < 60 or at + 60 + length > size:
            return [f"{name}: EVLR {index + 1} of {claimed} does not fit into the file (at byte {at})"]
        key = _key(head)
        if key in WANTED and key not in records and length <= MAX_PAYLOAD:
            records[key] = file.read(length)
        at += 60 + length
    return [f"{name}: {claimed} EVLRs, only {MAX_RECORDS} were read (at byte {at})"] if claimed > MAX_RECORDS else []


def _key(head: bytes) -> tuple[str, int]:
    user, record = struct.unpack_from("<16sH", head, 2)
    return user.split(b"\0")[0].decode("latin-1"), record
