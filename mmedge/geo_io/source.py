"""What every reader offers: the bands of one sensor, in model units, on the scene's reference grid."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from mmedge.geo_io.acquired import Acquisition
from mmedge.grid import Window
from mmedge.tile import Data, Valid


@dataclass(frozen=True, slots=True, kw_only=True)
class SourceInfo:
    """Facts about a source, for `info`, warnings and the run record.

    `assumptions` are said in so many words (such as a missing scale tag); `acquired` None: unknown.
    """

    files: tuple[Path, ...]
    bands: tuple[str, ...]
    unit: str
    gsd_m: float
    acquired: Acquisition | None = None
    assumptions: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()


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
