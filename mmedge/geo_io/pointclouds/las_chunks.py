"""Points of a LAS, LAZ or COPC file as a list of chunks, each read on its own with bounded memory.

A chunk is a run of bytes that can be decoded alone: some rows of a LAS file, one LASzip chunk, one COPC node. All
sizes are checked before lazrs sees a byte, because a panic can be caught and an allocation of 16 GB cannot.
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from dataclasses import dataclass
from typing import BinaryIO, NamedTuple, TypeVar

import numpy as np
import numpy.typing as npt

from mmedge.errors import ReadError
from mmedge.extras import need
from mmedge.geo_io.pointclouds.las_header import LASZIP, LasHeader, damaged

T = TypeVar("T")

LAS_CHUNK_BYTES = 16 << 20  # bytes of uncompressed points that are read at once
MAX_CHUNK_BYTES = 512 << 20  # of one LASzip chunk or COPC node, decoded; LASzip writes 50,000 points (3.4 MB at most)
MAX_CHUNKS = 2_000_000  # 1e11 points in LASzip's usual chunks
LAYERS = {10: 9, 11: 1, 12: 2, 13: 1}  # LASzip item type -> layers of a format 6+ chunk; type 14 has one a byte


class Chunk(NamedTuple):
    """`points` points in `size` bytes at byte `offset` of the file."""

    offset: int
    size: int
    points: int


@dataclass(frozen=True, slots=True)
class Points:
    """Points of a chunk: (n,) arrays. x, y in the file's CRS, z in the file's vertical unit."""

    x: npt.NDArray[np.float64]
    y: npt.NDArray[np.float64]
    z: npt.NDArray[np.float64]
    intensity: npt.NDArray[np.uint16]
    first: npt.NDArray[np.bool_]
    ground: npt.NDArray[np.bool_]
    noise: npt.NDArray[np.bool_]


def list_chunks(header: LasHeader) -> list[Chunk]:
    """Chunks of a LAS or LAZ file, in file order. Raises SceneError where the chunk table does not fit the file."""
    if header.points == 0:
        return []
    if not header.compressed:
        return _las_chunks(header)
    check_laszip(header)
    with open(header.path, "rb") as file:
        return _laz_chunks(header, file)


def read_chunk(header: LasHeader, file: BinaryIO, chunk: Chunk) -> Points:
    """Decode one chunk. Raises ReadError, which names the file and the chunk's byte offset."""
    file.seek(chunk.offset)
    raw = file.read(chunk.size)
    if len(raw) < chunk.size:
        damaged(header.path, chunk.offset + len(raw), "the file ends inside its points", error=ReadError)
    return _points(header, _decompress(header, raw, chunk) if header.compressed else raw)


def first_gps_time(header: LasHeader, chunk: Chunk) -> float | None:
    """Seconds since the GPS epoch of the file's first point; None where the file keeps no absolute time."""
    if not header.standard_gps_time or header.point_format in (0, 2):
        return None
    at = 22 if header.modern else 20
    one = chunk if header.compressed else Chunk(chunk.offset, header.record_length, 1)
    with open(header.path, "rb") as file:
        file.seek(one.offset)
        raw = file.read(one.size)
    if len(raw) < one.size:
        damaged(header.path, one.offset + len(raw), "the file ends inside its points", error=ReadError)
    record = _decompress(header, raw, one) if header.compressed else raw
    return float(struct.unpack_from("<d", record, at)[0]) + 1e9


def check_laszip(header: LasHeader) -> None:
    """Check the LASzip VLR against the header. Raises SceneError."""
    record = header.records.get(LASZIP, b"")
    if len(record) < 34:
        damaged(header.path, header.point_offset, "compressed points without a complete LASzip VLR")
    compressor, coder = struct.unpack_from("<HH", record)
    items = _items(record)
    if compressor not in (2, 3) or coder != 0 or not items:
        damaged(
            header.path, header.point_offset, f"LASzip compressor {compressor}, coder {coder}: not a chunked LAZ file"
        )
    if sum(size for _, size in items) != header.record_length:
        damaged(header.path, 105, f"LASzip items of {items} do not add up to {header.record_length} bytes a point")
    if (compressor == 3) != header.modern:
        damaged(header.path, 104, f"point format {header.point_format} cannot use LASzip compressor {compressor}")


def _las_chunks(header: LasHeader) -> list[Chunk]:
    step = max(1, LAS_CHUNK_BYTES // header.record_length)
    size = header.record_length
    return [
        Chunk(
            header.point_offset + start * size,
            min(step, header.points - start) * size,
            min(step, header.points - start),
        )
        for start in range(0, header.points, step)
    ]


def _laz_chunks(header: LasHeader, file: BinaryIO) -> list[Chunk]:
    """The chunk table, whose number of entries is checked before lazrs reads it."""
    table = _table_offset(header, file)
    file.seek(table)
    head = file.read(8)
    if len(head) < 8:
        damaged(header.path, table, "the LASzip chunk table is missing: the file was cut or never finished")
    (count,) = struct.unpack_from("<I", head, 4)
    (chunk_points,) = struct.unpack_from("<I", header.records[LASZIP], 12)
    variable = chunk_points == 0xFFFFFFFF
    most = header.points if variable else -(-header.points // max(1, chunk_points))
    if count > min(MAX_CHUNKS, header.file_size) or (not variable and count < most):
        damaged(
            header.path,
            table + 4,
            f"{count} LASzip chunks for {header.points} points of a {header.file_size}-byte file",
        )
    lazrs = need("lazrs")
    file.seek(header.point_offset)
    entries = _guarded(header, table, lambda: lazrs.read_chunk_table(file, lazrs.LazVlr(header.records[LASZIP])))
    return _placed(header, [(int(n), int(size)) for n, size in entries], table)


def _placed(header: LasHeader, entries: list[tuple[int, int]], end: int) -> list[Chunk]:
    """Turn (points, bytes) of consecutive chunks into chunks. The last chunk of a table states a full one."""
    chunks, at, left = [], header.point_offset + 8, header.points
    for points, size in entries:
        points = min(points, left)
        if points == 0:
            break
        check_chunk(header, chunk := Chunk(at, size, points), end)
        chunks.append(chunk)
        at, left = at + size, left - points
    if left:
        damaged(header.path, end, f"the LASzip chunks hold {header.points - left} of {header.points} points")
    return chunks


def check_chunk(header: LasHeader, chunk: Chunk, end: int) -> None:
    """Refuse a chunk that leaves the file's point bytes or that would decode to more than the limit."""
    if chunk.points < 1 or chunk.size < 1 or chunk.offset < header.point_offset or chunk.offset + chunk.size > end:
        damaged(
            header.path, chunk.offset, f"a chunk of {chunk.points} points in {chunk.size} bytes leaves the point data"
        )
    if chunk.points * header.record_length > MAX_CHUNK_BYTES:
        damaged(
            header.path, chunk.offset, f"a chunk of {chunk.points} points decodes to more than {MAX_CHUNK_BYTES} bytes"
        )


def _table_offset(header: LasHeader, file: BinaryIO) -> int:
    file.seek(header.point_offset)
    raw = file.read(8)
    table = struct.unpack("<q", raw)[0] if len(raw) == 8 else -2
    if table == -1:  # written by a program that could not seek back: the offset is at the end of the file
        file.seek(max(0, header.file_size - 8))
        table = struct.unpack("<q", file.read(8))[0]
    if not header.point_offset + 8 <= table <= header.file_size - 8:
        damaged(header.path, header.point_offset, f"the LASzip chunk table at byte {table} lies outside the file")
    return int(table)


def _items(record: bytes) -> list[tuple[int, int]]:
    """(type, bytes) of the LASzip items; empty where the VLR is too short for its own count."""
    (count,) = struct.unpack_from("<H", record, 32)
    if len(record) < 34 + 6 * count:
        return []
    return [struct.unpack_from("<HH", record, 34 + 6 * i) for i in range(count)]


def _decompress(header: LasHeader, raw: bytes, chunk: Chunk) -> bytearray:
    if header.modern:
        _check_layers(header, raw, chunk)
    lazrs = need("lazrs")
    out = bytearray(chunk.points * header.record_length)
    table = [(chunk.points, chunk.size)]
    record = header.records[LASZIP]
    _guarded(header, chunk.offset, lambda: lazrs.decompress_points_with_chunk_table(raw, record, out, table))
    return out


def _check_layers(header: LasHeader, raw: bytes, chunk: Chunk) -> None:
    """A chunk of formats 6+ states the bytes of each layer, and lazrs allocates them before it reads them."""
    layers = sum(LAYERS.get(kind, size) for kind, size in _items(header.records[LASZIP]))
    head = header.record_length + 4 + 4 * layers
    stated = sum(struct.unpack_from(f"<{layers}I", raw, header.record_length + 4)) if len(raw) >= head else len(raw)
    if head + stated > len(raw):
        damaged(header.path, chunk.offset, "the layers of a LASzip chunk are longer than the chunk", error=ReadError)


def _guarded(header: LasHeader, offset: int, call: Callable[[], T]) -> T:
    """Call lazrs. Its errors and its panics, which are no `Exception`, become a ReadError."""
    try:
        return call()
    except BaseException as err:
        if not isinstance(err, Exception) and type(err).__name__ != "PanicException":
            raise
        what = f"LASzip data cannot be decoded: {type(err).__name__}: {err}"
        raise ReadError(f"`{header.path}`: {what} (at byte {offset})", hint="copy the file again") from err


def _points(header: LasHeader, raw: bytes | bytearray) -> Points:
    """Decode raw records: scales are applied in float64, noise is classes 7 and 18 and points flagged withheld."""
    modern = header.modern
    fields = {"X": ("<i4", 0), "Y": ("<i4", 4), "Z": ("<i4", 8), "intensity": ("<u2", 12), "returns": ("u1", 14)}
    fields |= {"flags": ("u1", 15), "kind": ("u1", 16 if modern else 15)}
    names, formats = list(fields), [f for f, _ in fields.values()]
    offsets = [at for _, at in fields.values()]
    layout = {"names": names, "formats": formats, "offsets": offsets, "itemsize": header.record_length}
    rows = np.frombuffer(raw, dtype=np.dtype(layout))  # type: ignore[call-overload]
    number = rows["returns"] & (15 if modern else 7)
    kind = rows["kind"] if modern else rows["kind"] & 31
    withheld = rows["flags"] & (4 if modern else 128)
    x, y, z = (rows[n] * s + o for n, s, o in zip("XYZ", header.scale, header.offset, strict=True))
    key_point = (kind == 8) & (not modern)  # LAS 1.0-1.3: thinned ground
    return Points(
        x, y, z, rows["intensity"], number <= 1, (kind == 2) | key_point, (kind == 7) | (kind == 18) | (withheld > 0)
    )
