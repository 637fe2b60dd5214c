"""The octree of a COPC file (cloud optimised point cloud, COPC 1.0): its nodes as chunks with their map rectangles."""

from __future__ import annotations

import math
import struct
from collections import deque
from dataclasses import dataclass
from typing import BinaryIO

import numpy as np
import numpy.typing as npt

from mmedge.geo_io.pointclouds.las_chunks import Chunk, check_chunk, check_laszip
from mmedge.geo_io.pointclouds.las_header import COPC_INFO, LasHeader, damaged

MAX_PAGE = 64 << 20  # bytes of one hierarchy page: 2 million entries
MAX_NODES = 2_000_000
MAX_LEVEL = 40
ENTRY = np.dtype([("key", "<i4", 4), ("offset", "<u8"), ("size", "<i4"), ("points", "<i4")])


@dataclass(frozen=True, slots=True)
class Octree:
    """Nodes in order of their level. `boxes` is (n, 4) float64: xmin, ymin, xmax, ymax in the file's CRS."""

    chunks: list[Chunk]
    boxes: npt.NDArray[np.float64]


def is_copc(header: LasHeader) -> bool:
    return COPC_INFO in header.records and header.compressed and header.modern


def read_octree(header: LasHeader) -> Octree:
    """Read the whole hierarchy, pages included. Raises SceneError where it does not fit the file."""
    check_laszip(header)
    info = header.records[COPC_INFO]
    if len(info) < 56:
        damaged(header.path, header.point_offset, "the COPC info record is too short")
    x, y, _, half, _, root, size = struct.unpack_from("<5d2Q", info)
    if not all(map(math.isfinite, (x, y, half))) or half <= 0:
        damaged(header.path, header.point_offset, f"the COPC cube has centre {x}, {y} and half size {half}")
    with open(header.path, "rb") as file:
        entries = _entries(header, file, root, size)
    nodes = entries[np.argsort(entries["key"][:, 0], kind="stable")]
    chunks = [Chunk(int(n["offset"]), int(n["size"]), int(n["points"])) for n in nodes]
    for chunk in chunks:
        check_chunk(header, chunk, header.file_size)
    if (total := sum(chunk.points for chunk in chunks)) != header.points:
        damaged(header.path, root, f"the COPC octree holds {total} points, the header claims {header.points}")
    side = 2 * half / 2.0 ** nodes["key"][:, 0]
    west, south = x - half + nodes["key"][:, 1] * side, y - half + nodes["key"][:, 2] * side
    return Octree(chunks, np.stack([west, south, west + side, south + side], axis=1))


def _entries(header: LasHeader, file: BinaryIO, root: int, size: int) -> npt.NDArray[np.void]:
    """Entries that hold points, of all pages. A page that is named twice would be a loop."""
    pages, seen, kept, total = deque([(root, size)]), {root}, [], 0
    while pages:
        page = _page(header, file, *pages.popleft())
        total += len(page)
        if total > MAX_NODES:
            damaged(header.path, root, f"the COPC hierarchy has more than {MAX_NODES} entries")
        for entry in page[page["points"] == -1]:
            if (at := int(entry["offset"])) in seen:
                damaged(header.path, at, "a COPC hierarchy page is named twice")
            seen.add(at)
            pages.append((at, int(entry["size"])))
        kept.append(page[page["points"] > 0])
    return np.concatenate(kept)


def _page(header: LasHeader, file: BinaryIO, at: int, size: int) -> npt.NDArray[np.void]:
    if not 0 < size <= MAX_PAGE or size % ENTRY.itemsize or at + size > header.file_size:
        damaged(header.path, at, f"a COPC hierarchy page of {size} bytes does not fit the file")
    file.seek(at)
    raw = file.read(size)
    if len(raw) < size:
        damaged(header.path, at + len(raw), "the file ends inside its COPC hierarchy")
    page: npt.NDArray[np.void] = np.frombuffer(raw, ENTRY)
    level, xyz = page["key"][:, 0], page["key"][:, 1:].astype(np.int64)
    if (
        (level < 0).any()
        or (level > MAX_LEVEL).any()
        or (xyz < 0).any()
        or (xyz >= 1 << level[:, None].astype(np.int64)).any()
    ):
        damaged(header.path, at, "a COPC hierarchy page has impossible node keys")
    if (page["points"] < -1).any():
        damaged(header.path, at, "a COPC hierarchy page has a negative point count")
    return page
