"""A scene: what several sensors saw of one place, on one reference grid, read window by window."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from math import ceil
from pathlib import Path
from types import TracebackType
from typing import cast

import numpy as np

from mmedge.errors import BandError, GeoreferenceError, SceneError, UsageError
from mmedge.geo_io.acquired import Acquisition, find_acquisition, join_acquisitions, parse_acquisition
from mmedge.geo_io.agreement import disagreements
from mmedge.geo_io.bands import sensor_name
from mmedge.geo_io.crs import check_on_earth, horizontal, wkt_of
from mmedge.geo_io.delivered import inspect_files, with_masks, with_quality
from mmedge.geo_io.failure import KINDS, Screened
from mmedge.geo_io.ground import gsd_m
from mmedge.geo_io.lidar import LidarSource
from mmedge.geo_io.location import Location, locate
from mmedge.geo_io.manifest import read_manifest
from mmedge.geo_io.matching import describe, from_manifest, listed, match, modalities_of, with_names
from mmedge.geo_io.point_cloud import cloud_grid, cloud_name, cloud_path
from mmedge.geo_io.rasterfile import RasterBand, RasterFile, ground_grid
from mmedge.geo_io.rastersource import RasterSource
from mmedge.geo_io.source import Source
from mmedge.geo_io.speckle import Speckle
from mmedge.grid import Grid, Window
from mmedge.modality import Modality, Unit
from mmedge.tile import Data, Lost, Tile, Valid

# What a raster without any georeference has for a transform.
NO_TRANSFORM = (1.0, 0.0, 0.0, 0.0, 1.0, 0.0)
# Outside this range of (scene GSD / model GSD) a model sees another world than it was trained on.
GSD_RANGE = (0.75, 1.34)
# Outside this one a map would be an invention: a Landsat scene (30 m) for a 10 m model is warned about, one of
# Sentinel-3 (300 m) or an aerial picture (0.2 m) is refused.
GSD_LIMITS = (0.2, 5.0)


@dataclass(frozen=True, slots=True, kw_only=True)
class SceneOptions:
    """What a person may say about a scene that its files do not.

    `sources`: files per sensor; `bands`: names of a sensor's bands, in file order (of a point cloud: which of `lidar`'s
    bands); `crs`: where a sensor's files lie, if they do not say so, or wrongly; `fill_voids`: interpolate the ground
    of a point cloud over at most so many cells; `scale`: (scale, offset) per sensor; `unit`: `dB`, `linear` or
    `amplitude` per radar; `masks`: rasters per sensor that are not 0 where it must not be used (clouds, layover,
    shadow), on any grid; `reference`: the sensor whose grid is the reference; `item`: which one of a STAC
    ItemCollection; `allow_remote`: an item's assets may lie outside its folder; `screen`: leave out pixels that look
    like a failure of their sensor (see `failure`); `speckle`: how to filter radar; `name`: what a scene of several
    files is called.
    """

    sources: Mapping[str, Sequence[Location]] = field(default_factory=dict)
    bands: Mapping[str, Sequence[str]] = field(default_factory=dict)
    crs: Mapping[str, str] = field(default_factory=dict)
    fill_voids: int = 0
    scale: Mapping[str, tuple[float, float]] = field(default_factory=dict)
    unit: Mapping[str, str] = field(default_factory=dict)
    masks: Mapping[str, Sequence[Location]] = field(default_factory=dict)
    reference: str | None = None
    item: str | None = None
    allow_remote: bool = False
    screen: bool = False
    speckle: Speckle | None = None
    name: str | None = None


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
    found = _gather(locate(path) if path is not None else None, options)
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
    crs = _crs_given(options)
    if chosen:
        reference = _reference(chosen, found.files, by_name, options.reference)
    else:
        reference = _cloud_grid(clouds, by_name, crs)
    sources: dict[str, Source] = {}
    warnings, about = list(found.warnings), dict[str, tuple[str, ...]]()
    for name, bands in chosen.items():
        source = _raster(by_name[name], bands, found, reference, options, options.speckle)
        sources[name] = source
        about |= dict.fromkeys([*source.info.warnings, *source.check(reference)], (name,))
    for name, paths in clouds.items():
        cloud_bands, fill = by_name[name].bands, options.fill_voids
        sources[name] = LidarSource(paths, reference, bands=cloud_bands, crs=crs.get(name), fill_cells=fill)
        about |= dict.fromkeys(sources[name].info.warnings, (name,))
    if modalities is not None:
        warnings += [text for name in sources for text in _gsd_warning(by_name[name], reference)]
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


def _raster(
    modality: Modality,
    bands: list[RasterBand],
    found: _Found,
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
        acquired=found.acquired or _acquired(modality.name, bands, found.files),
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


def _cloud_grid(
    clouds: Mapping[str, Sequence[Path]], modalities: Mapping[str, Modality], crs: Mapping[str, str]
) -> Grid:
    """A grid for a scene that has nothing but point clouds: around the first sensor's, at its model's GSD."""
    name, paths = next(iter(clouds.items()))
    return cloud_grid(paths, modalities[name].gsd_m, crs=crs.get(name))


@dataclass(frozen=True, slots=True, kw_only=True)
class _Found:
    name: str
    bands: list[RasterBand]
    files: dict[str, RasterFile]
    clouds: dict[str, list[Path]]
    acquired: Acquisition | None
    warnings: tuple[str, ...]


def _gather(path: Location | None, options: SceneOptions) -> _Found:
    """Every band of every raster, with what the user said about them, and the point clouds of each sensor."""
    sources = dict(options.sources)
    if path and _cloud(path):
        sources["elevation"], path = [path], None
    manifest = (
        read_manifest(path, allow_remote=options.allow_remote, item=options.item)
        if path and path.suffix.lower() in (".json", ".geojson")
        else None
    )
    plain = [path] if path and not manifest else []
    if not (plain or manifest or sources):
        raise UsageError("no scene given", hint="mmedge infer scene.tif, or --source optical=a.tif --source sar=b.tif")
    bands: list[RasterBand] = []
    files: dict[str, RasterFile] = {}
    for file_path in plain:
        mine = inspect_files(file_path)
        files |= {str(file.path): file for file in mine}
        bands += with_names([band for file in mine for band in file.bands], None, options.bands)
    clouds: dict[str, list[Path]] = {}
    for sensor, paths in sources.items():
        clouds |= _clouds(sensor_name(sensor), paths)
        if sensor_name(sensor) in clouds:
            continue
        mine = [file for p in paths for file in inspect_files(p)]
        files |= {str(file.path): file for file in mine}
        bands += with_names([band for file in mine for band in file.bands], sensor_name(sensor), options.bands)
    if manifest:
        bands += from_manifest(manifest, files)
    name = manifest.name if manifest else options.name or _name(path or next(iter(sources.values()))[0])
    files = _placed(files, bands, _crs_given(options))
    bands, files = with_quality(bands, files)
    files = with_masks({sensor_name(key): paths for key, paths in options.masks.items()}, bands, files)
    scale = {sensor_name(key): value for key, value in options.scale.items()}
    return _Found(
        name=name,
        bands=[band.scaled(*scale[band.sensor]) if band.sensor in scale else band for band in bands],
        files=files,
        clouds=clouds,
        acquired=manifest.acquired if manifest else None,
        warnings=manifest.warnings if manifest else (),
    )


def _crs_given(options: SceneOptions) -> dict[str, str]:
    return {sensor_name(sensor): wkt_of(text) for sensor, text in options.crs.items()}


def _placed(files: dict[str, RasterFile], bands: Sequence[RasterBand], crs: Mapping[str, str]) -> dict[str, RasterFile]:
    """Files with the CRS that the user gave for their sensor; not those that nothing places on any grid."""
    given = {str(band.path): horizontal(crs[band.sensor]) for band in bands if band.sensor and band.sensor in crs}
    return {
        path: replace(file, grid=replace(file.grid, crs=given[path]))
        if path in given and not file.control and file.grid.transform != NO_TRANSFORM
        else file
        for path, file in files.items()
    }


def _name(place: Location) -> str:
    cloud = _cloud(place)
    return cloud_name(cloud) if isinstance(cloud, Path) else place.stem


def _cloud(place: Location) -> Location | None:
    """The place of a point cloud, None where it is none."""
    if isinstance(place, Path):
        return cloud_path(place)
    return place if cloud_path(Path(place.name)) else None


def _clouds(sensor: str, places: Sequence[Location]) -> dict[str, list[Path]]:
    """The point clouds among a sensor's files; all of them are, or none."""
    clouds = [cloud for place in places if (cloud := _cloud(place))]
    paths = [place for place in clouds if isinstance(place, Path)]
    if len(paths) < len(clouds):
        raise UsageError("point clouds are read from this machine's disks only", hint="download the cloud first")
    if clouds and len(clouds) < len(places):
        raise UsageError(f"`{sensor}` mixes point clouds and rasters", hint="give one or the other")
    return {sensor: paths} if paths else {}


def _reference(
    chosen: Mapping[str, list[RasterBand]],
    files: Mapping[str, RasterFile],
    modalities: Mapping[str, Modality],
    reference: str | None,
) -> Grid:
    """The grid to work on: that of the named sensor, else the one whose GSD is nearest to the model's."""
    for bands in chosen.values():
        for band in bands:
            check_georeferenced(files[str(band.path)])
    if reference is not None:
        sensor = sensor_name(reference)
        if sensor not in chosen:
            raise UsageError(f"`--reference {reference}`: the scene has {', '.join(chosen)}", hint="mmedge info SCENE")
        return ground_grid(files[str(chosen[sensor][0].path)])
    offers = [(abs(np.log(gsd_m(g) / modalities[s].gsd_m)), g) for s, g in _grids(chosen, files)]
    return min(offers, key=lambda offer: offer[0])[1]


def _grids(chosen: Mapping[str, list[RasterBand]], files: Mapping[str, RasterFile]) -> list[tuple[str, Grid]]:
    return [(sensor, ground_grid(files[str(band.path)])) for sensor, bands in chosen.items() for band in bands]


def check_georeferenced(file: RasterFile) -> None:
    """Raise GeoreferenceError for a raster that has neither a CRS nor control points, or a CRS of no use."""
    if file.control:
        return
    if not file.grid.crs:
        raise GeoreferenceError(
            f"`{file.path}` has no CRS and no ground control points: its pixels cannot be placed on the Earth",
            hint="georeference it: `gdal_translate -a_ullr ULX ULY LRX LRY -a_srs EPSG:32718 IN OUT.tif`"
            if file.grid.transform == NO_TRANSFORM
            else "if you know its CRS: `--crs SENSOR=EPSG:32718`",
        )
    check_on_earth(file.grid.crs, str(file.path))


def _gsd_warning(modality: Modality, grid: Grid) -> list[str]:
    ratio = gsd_m(grid) / modality.gsd_m
    if not GSD_LIMITS[0] <= ratio <= GSD_LIMITS[1]:
        raise GeoreferenceError(
            f"the scene has {gsd_m(grid):.3g} m pixels, the model was trained at {modality.gsd_m:g} m: it would see "
            "nothing that it knows",
            hint=f"resample it: `gdalwarp -tr {modality.gsd_m:g} {modality.gsd_m:g} -r average IN OUT.tif` in metres",
        )
    if GSD_RANGE[0] <= ratio <= GSD_RANGE[1]:
        return []
    return [
        f"the scene has {gsd_m(grid):.3g} m pixels, the model was trained at {modality.gsd_m:g} m: expect worse maps; "
        f"resample it first, e.g. `gdalwarp -tr {modality.gsd_m:g} {modality.gsd_m:g}`"
    ]


def _acquired(sensor: str, bands: Sequence[RasterBand], files: Mapping[str, RasterFile]) -> Acquisition | None:
    """When a sensor's files were acquired: one span for all of them."""
    mine = [files[path] for path in dict.fromkeys(str(band.path) for band in bands)]
    return join_acquisitions(
        _stacked(sensor, file) or file.acquired or find_acquisition(file.path.name, file.tags) for file in mine
    )


def _stacked(sensor: str, file: RasterFile) -> Acquisition | None:
    """The date that `mmedge stack` has written for a sensor; None also where others wrote something else there."""
    try:
        return parse_acquisition(file.tags.get(f"ACQUIRED_{sensor.upper()}", ""))
    except UsageError:
        return None


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
