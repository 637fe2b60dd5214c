"""What every reader offers: the bands of one sensor, in model units, on the scene's reference grid."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from mmedge.geo_io.acquired import Acquisition
from mmedge.geo_io.location import Location
from mmedge.grid import Grid, Window
from mmedge.tile import Data, Lost, Valid


@dataclass(frozen=True, slots=True, kw_only=True)
class SourceInfo:
    """Facts about a source, for `info`, warnings and the run record.

    `assumptions` are said in so many words (such as a missing scale tag); `acquired` None: unknown; `grids`: those of
    its files, where it has files on grids; `strip_bytes`: what the strips of its files
    take, unpacked, for a row of the reference grid; `block_px` and `pixel_bytes`: the side of the largest block and
    what unpacked blocks take for a pixel of that grid; `units`: of each band, where they differ.
    """

    files: tuple[Location, ...]
    bands: tuple[str, ...]
    unit: str
    gsd_m: float
    acquired: Acquisition | None = None
    assumptions: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()
    grids: tuple[Grid, ...] = ()
    strip_bytes: int = 0
    block_px: int = 0
    pixel_bytes: float = 0.0
    units: tuple[str, ...] = ()


class WindowReader(Protocol):
    """Reads windows of a grid: of a file's own, or of a reference. `read` is called from several threads at once."""

    def read(self, window: Window) -> tuple[Data, Valid]:
        """Pixels of a window that lies inside the grid.

        Returns data (bands, rows, cols) float32 and valid (rows, cols) bool, True = usable.
        Raises ReadError, which names the file, where pixels cannot be read.
        """
        ...

    def close(self) -> None:
        """Release every file handle, of every thread."""
        ...


class Source(WindowReader, Protocol):
    """Bands of one sensor on the reference grid, in the unit of `info`."""

    @property
    def info(self) -> SourceInfo: ...

    def look(self, window: Window) -> tuple[Data, Valid, Lost]:
        """What `read` gives, and what took the pixels that are not valid: masks (rows, cols) bool by cause."""
        ...
