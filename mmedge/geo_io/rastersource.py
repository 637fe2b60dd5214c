"""A sensor's bands from one or more raster files, in model units on the reference grid."""

from __future__ import annotations

from typing import Protocol, get_args

import numpy as np

from mmedge.errors import UsageError
from mmedge.geo_io.acquired import Acquisition
from mmedge.geo_io.align import ResampledReader, ShiftedReader, pixel_shift
from mmedge.geo_io.ground import gsd_m
from mmedge.geo_io.optical import check_reflectance, reflectance
from mmedge.geo_io.raster import RasterBand, RasterFile, RasterReader
from mmedge.geo_io.sar import Backscatter, check_backscatter, to_db
from mmedge.geo_io.source import SourceInfo
from mmedge.grid import Grid, Window
from mmedge.modality import Modality
from mmedge.tile import Data, Valid

# How many places are looked at before a source is believed, and how wide each is.
PROBES, PROBE_PX = 25, 32


class _AlignedReader(Protocol):
    def read(self, window: Window, channels: int) -> tuple[Data, Valid]: ...


class RasterSource:
    """Fulfils `Source`. `bands` come in the modality's order; files on other grids are resampled on the fly."""

    def __init__(
        self,
        modality: Modality,
        bands: list[RasterBand],
        files: dict[str, RasterFile],
        reference: Grid,
        *,
        backscatter: str = "dB",
        acquired: Acquisition | None = None,
    ) -> None:
        self._modality = modality
        self._backscatter = _backscatter(backscatter, modality)
        scaled = [reflectance(band) if modality.unit == "reflectance" else None for band in bands]
        bands = [s.band if s else band for s, band in zip(scaled, bands, strict=True)]
        self._groups = [_group(path, bands, files[path], reference, modality) for path in _paths(bands)]
        assumptions = {s.assumption for s in scaled if s and s.assumption}
        self._readers = [reader for _, reader, _ in self._groups]
        self.info = SourceInfo(
            files=tuple(files[path].path for path in _paths(bands)),
            bands=tuple(str(band.name) for band in bands),
            unit=modality.unit,
            gsd_m=min(gsd_m(files[path].grid) for path in _paths(bands)),
            acquired=acquired,
            assumptions=tuple(sorted(assumptions)),
        )

    def read(self, window: Window) -> tuple[Data, Valid]:
        data = np.empty((len(self._modality.bands), *window.shape), np.float32)
        valid = np.ones(window.shape, bool)
        for where, _, aligned in self._groups:
            values, usable = aligned.read(window, len(where))
            data[where] = values
            valid &= usable
        if self._modality.unit == "dB":
            return to_db(data, valid, self._backscatter)
        return data, valid

    def check(self, reference: Grid) -> list[str]:
        """Warnings about the units of the data, from a sample; raises UnitError where they are plainly wrong."""
        if self._modality.unit == "reflectance":
            return check_reflectance(self._sample(reference), self._modality.name)
        if self._modality.unit == "dB" and self._backscatter == "dB":
            return check_backscatter(self._sample(reference), self._modality.name)
        return []

    def close(self) -> None:
        for reader in self._readers:
            reader.close()

    def _sample(self, reference: Grid) -> Data:
        """Valid pixels (bands, pixels) of a regular scatter of small windows."""
        steps = np.linspace(0, 1, round(PROBES**0.5))
        found = []
        for row in {round(s * max(0, reference.rows - PROBE_PX)) for s in steps}:
            for col in {round(s * max(0, reference.cols - PROBE_PX)) for s in steps}:
                data, valid = self.read(Window(row, col, PROBE_PX, PROBE_PX).intersect(reference.window))
                found.append(data[:, valid])
        return np.concatenate(found, axis=1)


def _backscatter(given: str, modality: Modality) -> Backscatter:
    for known in get_args(Backscatter):
        if given.lower() == known.lower():
            return known  # type: ignore[no-any-return]
    raise UsageError(
        f"unknown unit `{given}` for `{modality.name}`", hint=f"--unit {modality.name}=dB|linear|amplitude"
    )


def _paths(bands: list[RasterBand]) -> list[str]:
    return list(dict.fromkeys(str(band.path) for band in bands))


def _group(
    path: str, bands: list[RasterBand], file: RasterFile, reference: Grid, modality: Modality
) -> tuple[list[int], RasterReader, _AlignedReader]:
    """One file's part of a source: which of its channels, the reader to close, the reader on the reference grid."""
    where = [i for i, band in enumerate(bands) if str(band.path) == path]
    reader = RasterReader(file.path, tuple(bands[i] for i in where))
    shift = pixel_shift(file.grid, reference)
    if shift is not None:
        return where, reader, ShiftedReader(reader, file.grid, shift)
    return where, reader, ResampledReader(reader, file.grid, reference, modality.unit)
