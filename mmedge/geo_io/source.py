"""What every reader offers: the bands of one sensor, in model units, on the scene's reference grid."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from mmedge.geo_io.acquired import Acquisition
from mmedge.geo_io.location import Location
from mmedge.grid import Grid, Window
from mmedge.tile import Data, Valid


@dataclass(frozen=True, slots=True, kw_only=True)
class SourceInfo:
    """Facts about a source, for `info`, warnings and the run record.

    `assumptions` are said in so many words (such as a missing scale tag); `acquired` None: unknown; `grids`: those of
    its files, where it has files on grids; `strip_bytes`: what the strips of its files
    take, unpacked, for a row of the reference grid.
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


class Source(Protocol):
    """Bands of one sensor on a reference grid. `read` is called from several threads at once."""

    @property
    def info(self) -> SourceInfo: ...

    def read(self, window: Window) -> tuple[Data, Valid]:
        """Pixels of a window that lies inside the reference grid.

        Returns data (bands, rows, cols) float32 in the source's unit and valid (rows, cols) bool, True = usable.
        Raises ReadError, which names the file, where pixels cannot be read.
        """
        ...

    def close(self) -> None:
        """Release every file handle, of every thread."""
        ...
