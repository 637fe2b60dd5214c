"""A sensor's bands from one or more raster files, in model units on the reference grid."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from math import ceil
from pathlib import Path
from typing import Protocol, get_args

import numpy as np

from mmedge.errors import UsageError
from mmedge.geo_io.acquired import Acquisition
from mmedge.geo_io.bands import sensor_name
from mmedge.geo_io.ground import gsd_m
from mmedge.geo_io.location import Location
from mmedge.geo_io.optical import check_reflectance, may_hold_offset, reflectance
from mmedge.geo_io.rasters.align import ResampledReader, ShiftedReader, pixel_shift
from mmedge.geo_io.rasters.file import Convert, QualityLayer, RasterBand, RasterFile, ground_grid
from mmedge.geo_io.rasters.gcp import control_grid
from mmedge.geo_io.rasters.quality import Rule
from mmedge.geo_io.rasters.reader import RasterReader
from mmedge.geo_io.sar import Backscatter, check_backscatter, check_calibrated, to_db
from mmedge.geo_io.source import SourceInfo, WindowReader
from mmedge.geo_io.speckle import FilteredReader, Speckle
from mmedge.grid import Grid, Window
from mmedge.modality import Modality, Unit
from mmedge.tile import Data, Lost, Valid

# Places along each side that are looked at before a source is believed, as shares of it, and how wide each is.
# JPEG 2000 is decoded in tiles of 1024 pixels, 0.3 s each on two busy cores: 25 places in 10 bands would take 80 s.
PLACES, FEW_PLACES, PROBE_PX = (0.0, 0.25, 0.5, 0.75, 1.0), (0.25, 0.75), 32


# Sentinel-2's finest pixels have 10 m: finer ones than half of that are no scene of its that lost its offset's tag.
FINEST_OFFSET_M = 5.0


class _AlignedReader(Protocol):
    def read(self, window: Window, channels: int) -> tuple[Data, Valid]: ...


class RasterSource:
    """Fulfils `Source`. `bands` come in the modality's order; files on other grids are resampled on the fly.

    Digital numbers become model units before they are resampled: what is averaged is power, not amplitude.
    """

    def __init__(
        self,
        modality: Modality,
        bands: list[RasterBand],
        files: Mapping[str, RasterFile],
        reference: Grid,
        *,
        backscatter: str = "dB",
        speckle: Speckle | None = None,
        acquired: Acquisition | None = None,
    ) -> None:
        self._modality = modality
        self._backscatter = _backscatter(backscatter, modality)
        speckle = speckle if modality.unit == "dB" else None
        scaled = [reflectance(band) if modality.unit == "reflectance" else None for band in bands]
        bands = [s.band if s else band for s, band in zip(scaled, bands, strict=True)]
        self._may_hold_offset = modality.unit == "reflectance" and all(may_hold_offset(band) for band in bands)
        used = [files[path] for path in _paths(bands)]
        self._places = FEW_PLACES if any(file.driver == "JP2OpenJPEG" for file in used) else PLACES
        converts = [_convert(file, bands, modality, self._backscatter) for file in used]
        self._measured = all(convert is None for convert in converts)  # what the files hold is what is checked
        groups = [_group(f, bands, reference, modality.unit, c, speckle) for f, c in zip(used, converts, strict=True)]
        masks = [_mask(file, layers, reference) for file, layers in _layers(used, modality)]
        self._groups = [(where, aligned) for where, _, aligned in groups]
        self._masks = [(name, channels, aligned) for name, channels, _, aligned in masks]
        self._readers = [*(reader for _, reader, _ in groups), *(reader for *_, reader, _ in masks)]
        assumptions = {s.assumption for s in scaled if s and s.assumption}
        assumptions |= {text for band in bands for text in band.assumptions}
        self.info = SourceInfo(
            files=tuple(dict.fromkeys(path for file in used for path in _inputs(file, modality))),
            bands=tuple(str(band.name) for band in bands),
            unit=modality.unit,
            gsd_m=min(gsd_m(ground_grid(file)) for file in used),
            acquired=acquired,
            assumptions=tuple(sorted(assumptions | _placed(used) | _filtered(bands, speckle))),
            grids=tuple(dict.fromkeys(ground_grid(file) for file in used)),
            strip_bytes=sum(_strip_bytes(file, bands, reference) for file in used),
            block_px=max(ceil(file.block_px / _density(file, reference)) for file in used),
            pixel_bytes=sum(_unpacked(file.pixel_bytes, file, bands) * _density(file, reference) ** 2 for file in used),
        )

    def read(self, window: Window) -> tuple[Data, Valid]:
        data, valid, _ = self.look(window)
        return data, valid

    def look(self, window: Window) -> tuple[Data, Valid, Lost]:
        data, seen = self._bands(window)
        lost = {"nodata": ~seen}
        for name, channels, aligned in self._masks:
            unusable = ~aligned.read(window, channels)[1]
            lost[name] = lost[name] | unusable if name in lost else unusable
        return data, ~np.logical_or.reduce(list(lost.values())), lost

    def _bands(self, window: Window) -> tuple[Data, Valid]:
        (where, aligned), *more = self._groups
        if not more and where == sorted(where):  # one file holds them all: nothing to put together
            return aligned.read(window, len(where))
        data = np.empty((len(self._modality.bands), *window.shape), np.float32)
        seen = np.ones(window.shape, bool)
        for where, aligned in self._groups:
            values, usable = aligned.read(window, len(where))
            data[where] = values
            seen &= usable
        return data, seen

    def check(self, reference: Grid) -> list[str]:
        """Warnings about the units of the data, from a sample; raises UnitError where they are plainly wrong."""
        if self._modality.unit == "reflectance":
            offset = self._may_hold_offset and self.info.gsd_m >= FINEST_OFFSET_M
            return check_reflectance(self._sample(reference), self._modality.name, offset=offset)
        if self._modality.unit == "dB" and self._measured:
            return check_backscatter(self._sample(reference), self._modality.name)
        if self._modality.unit == "dB":
            check_calibrated(self._sample(reference), self._modality.name)
        return []

    def close(self) -> None:
        for reader in self._readers:
            reader.close()

    def _sample(self, reference: Grid) -> Data:
        """Valid pixels (bands, pixels) of a regular scatter of small windows, or of all of a small scene."""
        if reference.rows * reference.cols <= (len(self._places) * PROBE_PX) ** 2:
            data, valid = self.read(reference.window)
            return data[:, valid]
        found = []
        for row in {round(s * max(0, reference.rows - PROBE_PX)) for s in self._places}:
            for col in {round(s * max(0, reference.cols - PROBE_PX)) for s in self._places}:
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


def _convert(file: RasterFile, bands: list[RasterBand], modality: Modality, given: Backscatter) -> Convert | None:
    """How a file's values become the modality's unit: a product's own calibration, else what the user says of them."""
    if modality.unit != "dB":
        return None
    if file.convert:
        return file.convert
    mine = [band for band in bands if band.path == file.path]
    kind: Backscatter = "amplitude" if any(band.is_complex for band in mine) else given
    return None if kind == "dB" else lambda data, valid, _: to_db(data, valid, kind)


def _group(
    file: RasterFile,
    bands: list[RasterBand],
    reference: Grid,
    unit: Unit,
    convert: Convert | None,
    speckle: Speckle | None,
) -> tuple[list[int], WindowReader, _AlignedReader]:
    """One file's part of a source: which of its channels, the reader to close, the reader on the reference grid."""
    where = [i for i, band in enumerate(bands) if band.path == file.path]
    mine = tuple(bands[i] for i in where)
    reader: WindowReader = RasterReader(file.path, mine, convert, shared=_shared(file))
    if speckle:
        looks = speckle.looks_of(is_complex=any(band.is_complex for band in mine))
        reader = FilteredReader(reader, file.grid.shape, speckle, looks=looks)
    categorical = unit == "raw" and any(bands[i].categorical for i in where)
    return where, reader, _aligned(reader, file, reference, unit, categorical=categorical)


def _shared(file: RasterFile) -> bool:
    """Whether reading threads take turns with a file. Not where a block takes long: over a network, in JPEG 2000."""
    return bool(file.strip_bytes) or (isinstance(file.path, Path) and file.driver in ("GTiff", "COG"))


def _strip_bytes(file: RasterFile, bands: list[RasterBand], reference: Grid) -> int:
    """What the strips of a file take, unpacked, for one row of the reference grid."""
    return round(_unpacked(file.strip_bytes, file, bands) * _density(file, reference)) if file.strip_bytes else 0


def _unpacked(sizes: tuple[int, ...], file: RasterFile, bands: list[RasterBand]) -> int:
    """The sum of `sizes`, which are those of each band or one for all of them, over the bands that are used."""
    used = {0 if len(sizes) == 1 else band.index - 1 for band in bands if band.path == file.path}
    return sum(sizes[i] for i in used)


def _density(file: RasterFile, reference: Grid) -> float:
    """Pixels of a file along one of the reference grid."""
    return gsd_m(reference) / gsd_m(ground_grid(file))


def _aligned(
    reader: WindowReader, file: RasterFile, reference: Grid, unit: Unit, *, categorical: bool = False
) -> _AlignedReader:
    if file.control:
        return ResampledReader(reader, control_grid(file.control), reference, unit, categorical=categorical)
    shift = pixel_shift(file.grid, reference)
    if shift is not None:
        return ShiftedReader(reader, file.grid, shift)
    return ResampledReader(reader, file.grid, reference, unit, categorical=categorical)


def _layers(used: list[RasterFile], modality: Modality) -> list[tuple[RasterFile, list[QualityLayer]]]:
    """The quality layers of a source, file by file, each once however many bands it belongs to."""
    found: dict[str, tuple[RasterFile, list[QualityLayer]]] = {}
    for layer in (layer for file in used for layer in file.quality if layer.sensor == sensor_name(modality.name)):
        layers = found.setdefault(str(layer.file.path), (layer.file, []))[1]
        if layer not in layers:
            layers.append(layer)
    return list(found.values())


def _mask(
    file: RasterFile, layers: list[QualityLayer], reference: Grid
) -> tuple[str, int, RasterReader, _AlignedReader]:
    """A file of quality layers: their name and number, the reader to close, and a reader whose validity is theirs."""
    raw = {band.index: band.scaled(1.0, 0.0) for band in file.bands}
    reader = RasterReader(file.path, tuple(raw[layer.index] for layer in layers), _judge([x.rule for x in layers]))
    name = "+".join(dict.fromkeys(layer.name for layer in layers))
    return name, len(layers), reader, _aligned(reader, file, reference, "raw")


def _judge(rules: list[Rule]) -> Callable[[Data, Valid, Window], tuple[Data, Valid]]:
    def judge(data: Data, _: Valid, __: Window) -> tuple[Data, Valid]:
        whole = np.where(np.isfinite(data), data, -1).astype(np.int32)  # -1: every bit is set
        usable = [rule.usable(values) for rule, values in zip(rules, whole, strict=True)]
        return data, np.logical_and.reduce(usable)

    return judge


def _inputs(file: RasterFile, modality: Modality) -> list[Location]:
    layers = [layer.file.path for layer in file.quality if layer.sensor == sensor_name(modality.name)]
    return [file.path, *layers, *file.sidecars]


def _filtered(bands: list[RasterBand], speckle: Speckle | None) -> set[str]:
    return {
        f"speckle filtered: {speckle}, {speckle.looks_of(is_complex=band.is_complex):g} looks"
        for band in bands
        if speckle
    }


def _placed(used: list[RasterFile]) -> set[str]:
    return {
        f"`{file.path.name}` is placed by its {file.control}, without terrain correction"
        for file in used
        if file.control
    }
