"""A scene: what several sensors saw of one place, on one reference grid, read window by window."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import ceil
from types import TracebackType
from typing import cast

import numpy as np

from mmedge.errors import BandError, SceneError, UsageError
from mmedge.geo_io.agreement import disagreements
from mmedge.geo_io.bands import sensor_name
from mmedge.geo_io.failure import KINDS, Screened
from mmedge.geo_io.gather import Found, SceneOptions, acquired_of, crs_given, gather
from mmedge.geo_io.ground import gsd_m
from mmedge.geo_io.lidar import LidarSource
from mmedge.geo_io.location import Location, locate
from mmedge.geo_io.rasters.file import RasterBand
from mmedge.geo_io.rasters.matching import describe, listed, match, modalities_of
from mmedge.geo_io.rasters.source import RasterSource
from mmedge.geo_io.reference import grid_of_clouds, gsd_warning, reference_grid
from mmedge.geo_io.source import Source
from mmedge.geo_io.speckle import Speckle
from mmedge.grid import Grid, Window
from mmedge.modality import Modality, Unit
from mmedge.tile import Data, Lost, Tile, Valid


class Scene:
    """An open scene. A context manager; `read` may be called from several threads.

    `about` names the sensors of a warning: it goes when one of them does.
    """

    def __init__(
        self,
        *,
        name: str,
        grid: Grid,
        sources: Mapping[str, Source],
        warnings: Sequence[str] = (),
        about: Mapping[str, tuple[str, ...]] | None = None,
    ) -> None:
        self.name, self.grid, self.sources, self.warnings = name, grid, dict(sources), tuple(warnings)
        self._about = dict(about or {})

    @property
    def sensors(self) -> tuple[str, ...]:
        return tuple(self.sources)

    @property
    def files(self) -> tuple[Location, ...]:
        """Every file that is read, once."""
        return tuple(dict.fromkeys(file for source in self.sources.values() for file in source.info.files))

    @property
    def assumptions(self) -> tuple[str, ...]:
        return tuple(text for source in self.sources.values() for text in source.info.assumptions)

    def read(self, window: Window) -> Tile:
        """Data and validity of every sensor. What lies outside the grid is invalid, and nothing took it."""
        tile = Tile(window, {}, {}, {})
        for name, source in self.sources.items():
            tile.data[name], tile.valid[name], tile.lost[name] = self._look(source, window)
        return tile

    def _look(self, source: Source, window: Window) -> tuple[Data, Valid, Lost]:
        inside = window.intersect(self.grid.window)
        if inside == window:
            return source.look(window)
        data, valid = np.zeros((len(source.info.bands), *window.shape), np.float32), np.zeros(window.shape, bool)
        if inside.empty:
            return data, valid, {}
        rows, cols = inside.within(window)
        data[:, rows, cols], valid[rows, cols], found = source.look(inside)
        lost = {cause: np.zeros(window.shape, bool) for cause in found}
        for cause, mask in found.items():
            lost[cause][rows, cols] = mask
        return data, valid, lost

    def only(self, sensors: Sequence[str]) -> Scene:
        """The same scene, narrowed to some of its sensors."""
        kept = {name: source for name, source in self.sources.items() if name in sensors}
        said = [text for text in self.warnings if set(self._about.get(text, ())) <= kept.keys()]
        return Scene(name=self.name, grid=self.grid, sources=kept, warnings=said, about=self._about)

    def close(self) -> None:
        for source in self.sources.values():
            source.close()

    def __enter__(self) -> Scene:
        return self

    def __exit__(self, kind: type[BaseException] | None, err: BaseException | None, tb: TracebackType | None) -> None:
        self.close()


def open_scene(
    path: str | Location | None, modalities: Sequence[Modality] | None = None, options: SceneOptions | None = None
) -> Scene:
    """Open a multi-band GeoTIFF, a STAC Item, or (path None) one file per sensor from `options.sources`.

    A place is a path or an http, https or s3 URL; nothing else is ever fetched (see `manifest`).

    `modalities` are what a model wants; without them every sensor and band that has a name is taken. Sensors that the
    scene lacks are left out. Raises SceneError, BandError, GeoreferenceError or UnitError, each with a hint.
    """
    options = options or SceneOptions()
    found = gather(locate(path) if path is not None else None, options)
    names = {sensor_name(key): value for key, value in options.bands.items()}
    wanted = list(modalities) if modalities is not None else modalities_of(found.bands, found.clouds, names)
    chosen = {m.name: bands for m in wanted if m.name not in found.clouds and (bands := match(m, found.bands))}
    clouds = {m.name: found.clouds[m.name] for m in wanted if m.name in found.clouds}
    if not chosen and not clouds:
        file = next(iter(found.files), "a.tif")
        raise BandError(
            f"`{found.name}` holds none of {describe(wanted)}; found: {listed(found.bands)}"
            if wanted
            else f"nothing says which sensor's bands `{found.name}` holds; found: {listed(found.bands)}",
            hint=f"`--source optical={file}` (or sar, elevation); where that is not enough, `--bands optical=B02,...`",
        )
    by_name = {m.name: m for m in wanted}
    _check_units(options, by_name)
    crs = crs_given(options)
    if chosen:
        reference = reference_grid(chosen, found.files, by_name, options.reference)
    else:
        reference = grid_of_clouds(clouds, by_name, crs)
    sources: dict[str, Source] = {}
    warnings, about = [*found.warnings, *_unused(options, found, wanted)], dict[str, tuple[str, ...]]()
    for name, bands in chosen.items():
        source = _raster(by_name[name], bands, found, reference, options, options.speckle)
        sources[name] = source
        about |= dict.fromkeys([*source.info.warnings, *source.check(reference)], (name,))
    for name, paths in clouds.items():
        cloud_bands, fill = by_name[name].bands, options.fill_voids
        sources[name] = LidarSource(paths, reference, bands=cloud_bands, crs=crs.get(name), fill_cells=fill)
        about |= dict.fromkeys(sources[name].info.warnings, (name,))
    if modalities is not None:
        warnings += [text for name in sources for text in gsd_warning(by_name[name], reference)]
    about |= disagreements(sources, reference)
    if options.screen:
        raw = {  # failures are looked for in what the sensor gave, not in what a filter has smeared
            name: _raster(by_name[name], bands, found, reference, options, None)
            for name, bands in chosen.items()
            if options.speckle and by_name[name].unit == "dB"
        }
        reach = options.speckle.size // 2 if options.speckle else 0
        sources = {name: _screened(source, reference, raw.get(name), reach) for name, source in sources.items()}
    sources = {m.name: sources[m.name] for m in wanted if m.name in sources}
    said = list(dict.fromkeys([*warnings, *about]))
    return Scene(name=found.name, grid=reference, sources=sources, warnings=said, about=about)


def _check_units(options: SceneOptions, modalities: Mapping[str, Modality]) -> None:
    for name in options.unit:
        if name in modalities and modalities[name].unit != "dB":
            raise UsageError(f"`--unit {name}`: only radar is stored in dB, linear or amplitude", hint="--unit sar=dB")


def _unused(options: SceneOptions, found: Found, wanted: Sequence[Modality]) -> list[str]:
    """What to tell about sensors that the user has named, and nobody uses."""
    there = {band.sensor for band in found.bands if band.sensor} | found.clouds.keys()
    used = {m.name for m in wanted}
    said = []
    for flag in ("sources", "bands", "scale", "unit", "crs"):
        for name in map(sensor_name, getattr(options, flag)):
            if name not in there:
                said.append(f"`--{flag} {name}`: the scene has no such sensor, it has {', '.join(sorted(there))}")
            elif name not in used and flag == "sources":
                said.append(f"`--source {name}` is not used: the model takes {', '.join(sorted(used))}")
    return said


def _raster(
    modality: Modality,
    bands: list[RasterBand],
    found: Found,
    reference: Grid,
    options: SceneOptions,
    speckle: Speckle | None,
) -> RasterSource:
    return RasterSource(
        modality,
        bands,
        found.files,
        reference,
        backscatter=options.unit.get(modality.name, "dB"),
        speckle=speckle,
        acquired=found.acquired or acquired_of(modality.name, bands, found.files),
    )


def _screened(source: Source, grid: Grid, raw: Source | None, reach_px: int) -> Source:
    """A source without the pixels that look like a failure of its sensor, where failures of its kind are known.

    `raw` is the same before a filter that reaches `reach_px` pixels of the file far.
    """
    kind = KINDS.get(cast(Unit, source.info.unit))
    if kind is None:
        return source
    ratio = source.info.gsd_m / gsd_m(grid)
    reach = ceil(reach_px * ratio - 1e-3) + (abs(ratio - 1) > 1e-3) if raw else 0  # resampling reaches one further
    return Screened(source, grid.shape, kind=kind, raw=raw, reach_px=reach)


def choose_sensors(
    scene: Scene, available: Sequence[str] | None, require: Sequence[str] | None = None
) -> tuple[str, ...]:
    """The scene's sensors, narrowed to `available` (names or aliases; None: all).

    Raises SceneError for a sensor of `require` (None: of `available`) that the scene has no source for, and where none
    is left.
    """
    flag, strict = ("--available", available or ()) if require is None else ("--require", require)
    for given in strict:
        if sensor_name(given) not in scene.sources:
            raise SceneError(
                f"`{flag} {given}`: the scene has no such sensor, it has {', '.join(scene.sensors)}",
                hint=f"mmedge info {scene.files[0]}",
            )
    names = scene.sensors if available is None else [sensor_name(name) for name in available]
    chosen = tuple(name for name in scene.sensors if name in names)
    if not chosen:
        raise SceneError(
            f"the scene has {', '.join(scene.sensors)}, none of `--available {','.join(names)}`",
            hint=f"mmedge info {scene.files[0]}",
        )
    return chosen
