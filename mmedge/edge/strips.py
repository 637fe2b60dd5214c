"""Finished rows of a large map in a raw file, so that a run which was killed goes on where it stopped.

Tiles are appended as they come, each with its window. At the end of a band of tiles the file is fsynced, and only then
is the strip announced, with its checksum: what a journal knows of is on the disk. Whatever lies behind it is cut off.
"""

from __future__ import annotations

import hashlib
import json
import os
import struct
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import numpy as np
import numpy.typing as npt

from mmedge.edge.predict import MapTile
from mmedge.errors import OutputError
from mmedge.grid import Window

U8 = npt.NDArray[np.uint8]
HEADER = struct.Struct("<6I")  # row, col, height, width, bands of probabilities, bytes of what was lost as JSON
BLOCK = 1 << 20


@dataclass(frozen=True, slots=True)
class Strip:
    """A finished band of tiles: the row of the region that follows it, where it ends in the file, its hex sha256."""

    bottom: int
    end: int
    sha256: str


class Strips:
    """The strips of one map in `path`. `kept` are those that a journal knows of; `announce` is told of every new one.

    A region of fewer than `least_px` pixels is not worth it: nothing is written.
    """

    def __init__(
        self, path: Path, *, kept: Sequence[Strip], announce: Callable[[Strip], None], least_px: int = 0
    ) -> None:
        self._path, self._kept, self._announce, self._least_px = path, kept, announce, least_px

    def resume(self, region: Window, rest: Callable[[Window], Iterator[MapTile]]) -> Iterator[MapTile]:
        """The tiles of a region: those of the kept strips, then those of `rest` for the rows below, kept as they come.

        Raises OutputError where the file cannot be written.
        """
        if region.height * region.width < self._least_px:
            yield from rest(region)
            return
        with self._open() as file:
            good = self._verified(file)
            file.seek(0)
            while file.tell() < (good[-1].end if good else 0):
                yield _read(file)
            file.truncate()
            row, bottom = (good[-1].bottom if good else region.row), region.row + region.height
            if row < bottom:
                below = Window(row, region.col, bottom - row, region.width)
                yield from self._kept_as_they_come(file, below, rest(below))

    def _open(self) -> BinaryIO:
        try:
            self._path.touch()
            return self._path.open("r+b")
        except OSError as err:
            raise _refused(self._path, err) from err

    def _verified(self, file: BinaryIO) -> list[Strip]:
        """The strips, from the first one on, whose bytes are what they were."""
        good: list[Strip] = []
        for strip in self._kept:
            if _digest(file, strip.end - file.tell()) != strip.sha256:
                break
            good.append(strip)
        return good

    def _kept_as_they_come(self, file: BinaryIO, region: Window, tiles: Iterator[MapTile]) -> Iterator[MapTile]:
        digest, top, bottom, done = hashlib.sha256(), region.row, region.row, 0
        for tile in tiles:
            self._append(file, _parts(tile), digest)
            bottom, done = max(bottom, tile.window.row + tile.window.height), done + tile.classes.size
            if done == (bottom - top) * region.width:  # nothing is missing above `bottom`
                self._sync(file)
                self._announce(Strip(bottom, file.tell(), digest.hexdigest()))
                digest, top, done = hashlib.sha256(), bottom, 0
            yield tile

    def _append(self, file: BinaryIO, parts: Sequence[bytes], digest: hashlib._Hash) -> None:
        try:
            for part in parts:
                file.write(part)
                digest.update(part)
        except OSError as err:
            raise _refused(self._path, err) from err

    def _sync(self, file: BinaryIO) -> None:
        try:
            file.flush()
            os.fsync(file.fileno())
        except OSError as err:
            raise _refused(self._path, err) from err


def _refused(path: Path, err: OSError) -> OutputError:
    return OutputError(f"cannot write `{path}`: {err.strerror}", hint="free disk space")


def _digest(file: BinaryIO, length: int) -> str:
    digest = hashlib.sha256()
    while length > 0 and (block := file.read(min(BLOCK, length))):
        digest.update(block)
        length -= len(block)
    return digest.hexdigest()


def _parts(tile: MapTile) -> list[bytes]:
    window = tile.window
    bands = 0 if tile.probs is None else len(tile.probs)
    lost = json.dumps(tile.lost).encode()
    header = HEADER.pack(window.row, window.col, window.height, window.width, bands, len(lost))
    layers = (tile.classes, tile.confidence, tile.sensors, tile.probs)
    return [header, lost, *(np.ascontiguousarray(layer).tobytes() for layer in layers if layer is not None)]


def _read(file: BinaryIO) -> MapTile:
    row, col, height, width, bands, length = HEADER.unpack(file.read(HEADER.size))
    lost = json.loads(file.read(length))

    def layer(*shape: int) -> U8:
        return np.frombuffer(file.read(int(np.prod(shape))), np.uint8).reshape(shape)

    return MapTile(
        window=Window(row, col, height, width),
        classes=layer(height, width),
        confidence=layer(height, width),
        sensors=layer(height, width),
        probs=layer(bands, height, width) if bands else None,
        lost=lost,
        seconds=(0.0, 0.0),
    )
