"""A scene: what several sensors saw of one place, on one reference grid, read window by window."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType

import numpy as np
from rasterio.crs import CRS

from mmedge.errors import BandError, GeoreferenceError, SceneError, UsageError
from mmedge.geo_io.acquired import Acquisition, find_acquisition, join_acquisitions, parse_acquisition
from mmedge.geo_io.bands import band_in_file_name, band_name, sensor_name
from mmedge.geo_io.ground import gsd_m
from mmedge.geo_io.manifest import Manifest, read_manifest
from mmedge.geo_io.raster import RasterBand, RasterFile, inspect_raster
from mmedge.geo_io.rastersource import RasterSource
from mmedge.geo_io.source import Source
from mmedge.grid import Grid, Window
from mmedge.modality import Modality, Unit
from mmedge.tile import Tile

UNIT_OF: dict[str, Unit] = {"optical": "reflectance", "sar": "dB", "elevation": "m"}
# Outside this range of (scene GSD / model GSD) a model sees another world than it was trained on.
GSD_RANGE = (0.75, 1.34)


@dataclass(frozen=True, slots=True, kw_only=True)
class SceneOptions:
    """What a person may say about a scene that its files do not.

    `sources`: files per sensor; `bands`: names of a sensor's bands, in file order; `scale`: (scale, offset) per
    sensor; `unit`: `dB`, `linear` or `amplitude` per radar; `reference`: the sensor whose grid is the reference;
    `item`: which item of a STAC ItemCollection; `name`: what to call a scene that is made of several files.
    """

    sources: Mapping[str, Sequence[Path]] = field(default_factory=dict)
    bands: Mapping[str, Sequence[str]] = field(default_factory=dict)
    scale: Mapping[str, tuple[float, float]] = field(default_factory=dict)
    unit: Mapping[str, str] = field(default_factory=dict)
    reference: str | None = None
    item: str | None = None
    name: str | None = None


class Scene:
    """An open scene. A context manager; `read` may be called from several threads."""

    def __init__(self, *, name: str, grid: Grid, sources: Mapping[str, Source], warnings: Sequence[str] = ()) -> None:
        self.name, self.grid, self.sources, self.warnings = name, grid, dict(sources), tuple(warnings)

    @property
    def sensors(self) -> tuple[str, ...]:
        return tuple(self.sources)

    @property
    def files(self) -> tuple[Path, ...]:
        """Every file that is read, once."""
        return tuple(dict.fromkeys(file for source in self.sources.values() for file in source.info.files))

    @property
    def assumptions(self) -> tuple[str, ...]:
        return tuple(text for source in self.sources.values() for text in source.info.assumptions)

    def read(self, window: Window) -> Tile:
        """Data and validity of every sensor. What lies outside the grid is invalid."""
        inside = window.intersect(self.grid.window)
        data, valid = {}, {}
        for name, source in self.sources.items():
            channels = len(source.info.bands)
            if inside == window:
                data[name], valid[name] = source.read(window)
                continue
            data[name], valid[name] = np.zeros((channels, *window.shape), np.float32), np.zeros(window.shape, bool)
            if not inside.empty:
                rows, cols = inside.within(window)
                data[name][:, rows, cols], valid[name][rows, cols] = source.read(inside)
        return Tile(window, data, valid)

    def only(self, sensors: Sequence[str]) -> Scene:
        """The same scene, narrowed to some of its sensors."""
        kept = {name: source for name, source in self.sources.items() if name in sensors}
        return Scene(name=self.name, grid=self.grid, sources=kept, warnings=self.warnings)

    def close(self) -> None:
        for source in self.sources.values():
            source.close()

    def __enter__(self) -> Scene:
        return self

    def __exit__(self, kind: type[BaseException] | None, err: BaseException | None, tb: TracebackType | None) -> None:
        self.close()


def open_scene(
    path: Path | None, modalities: Sequence[Modality] | None = None, options: SceneOptions | None = None
) -> Scene:
    """Open a multi-band GeoTIFF, a STAC Item, or (path None) one file per sensor from `options.sources`.

    `modalities` are what a model wants; without them every sensor and band that has a name is taken. Sensors that the
    scene lacks are left out. Raises SceneError, BandError, GeoreferenceError or UnitError, each with a hint.
    """
    options = options or SceneOptions()
    found = _gather(path, options)
    wanted = list(modalities) if modalities is not None else _modalities_of(found.bands)
    chosen = {m.name: bands for m in wanted if (bands := _match(m, found.bands))}
    if not chosen:
        raise BandError(
            f"`{found.name}` holds none of {_said(wanted)}; found: {_found(found.bands)}",
            hint="name the bands: `--bands optical=B02,B03,...`, or give files with `--source optical=a.tif`",
        )
    by_name = {m.name: m for m in wanted}
    reference = _reference(chosen, found.files, by_name, options.reference)
    sources, warnings = {}, list(found.warnings)
    for name, bands in chosen.items():
        backscatter = options.unit.get(name, "dB")
        date = found.acquired or _acquired(name, bands, found.files)
        source = RasterSource(by_name[name], bands, found.files, reference, backscatter=backscatter, acquired=date)
        sources[name] = source
        warnings += source.check(reference)
        if modalities is not None:
            warnings += _gsd_warning(by_name[name], reference)
    return Scene(name=found.name, grid=reference, sources=sources, warnings=list(dict.fromkeys(warnings)))


@dataclass(frozen=True, slots=True, kw_only=True)
class _Found:
    name: str
    bands: list[RasterBand]
    files: dict[str, RasterFile]
    acquired: Acquisition | None
    warnings: tuple[str, ...]


def _gather(path: Path | None, options: SceneOptions) -> _Found:
    """Every band of every file, with what the user said about them."""
    manifest = read_manifest(path, options.item) if path and path.suffix.lower() in (".json", ".geojson") else None
    plain = [path] if path and not manifest else []
    if not (plain or manifest or options.sources):
        raise UsageError("no scene given", hint="mmedge infer scene.tif, or --source optical=a.tif --source sar=b.tif")
    bands: list[RasterBand] = []
    files: dict[str, RasterFile] = {}
    for file_path in plain:
        file = files[str(file_path)] = inspect_raster(file_path)
        bands += _named(list(file.bands), None, options)
    for sensor, paths in options.sources.items():
        mine = [files.setdefault(str(p), inspect_raster(p)) for p in paths]
        bands += _named([band for file in mine for band in file.bands], sensor_name(sensor), options)
    if manifest:
        bands += _from_manifest(manifest, files)
    name = manifest.name if manifest else options.name or (path or bands[0].path).stem
    return _Found(
        name=name,
        bands=[_scaled(band, options) for band in bands],
        files=files,
        acquired=parse_acquisition(manifest.acquired) if manifest and manifest.acquired else None,
        warnings=manifest.warnings if manifest else (),
    )


def _from_manifest(manifest: Manifest, files: dict[str, RasterFile]) -> list[RasterBand]:
    bands = []
    for asset in manifest.assets:
        file = files.setdefault(str(asset.path), inspect_raster(asset.path))
        for band, given in zip(file.bands, asset.bands, strict=False):
            sensor, name = band.sensor or given.sensor, band.name or given.name
            if sensor and name:
                named = band.named(sensor, name)
                bands.append(named if band.tagged or given.scale is None else named.scaled(given.scale, given.offset))
    return bands


def _named(bands: list[RasterBand], sensor: str | None, options: SceneOptions) -> list[RasterBand]:
    """Bands with the names that the user gave, else their own, else the file name's for single-band files."""
    given = {sensor_name(key): names for key, names in options.bands.items()}
    if sensor is None and len(given) == 1 and all(band.name is None for band in bands):
        sensor = next(iter(given))
    if sensor in given:
        if len(given[sensor]) != len(bands):
            raise UsageError(
                f"`--bands {sensor}` names {len(given[sensor])} bands, the files hold {len(bands)}",
                hint="name every band of the files, in their order",
            )
        return [band.named(sensor, band_name(name)) for band, name in zip(bands, given[sensor], strict=True)]
    if sensor is None:
        return bands
    alone = {path for path in (b.path for b in bands) if sum(b.path == path for b in bands) == 1}
    return [_forced(band, sensor, alone=band.path in alone) for band in bands]


def _forced(band: RasterBand, sensor: str, *, alone: bool) -> RasterBand:
    name = band.name or (band_in_file_name(band.path.stem) if alone else None)
    return band.named(sensor, name or ("DEM" if alone and sensor == "elevation" else f"band {band.index}"))


def _scaled(band: RasterBand, options: SceneOptions) -> RasterBand:
    given = {sensor_name(key): value for key, value in options.scale.items()}
    return band.scaled(*given[band.sensor]) if band.sensor in given else band


def _modalities_of(bands: Sequence[RasterBand]) -> list[Modality]:
    """One modality for each sensor that has named bands, all of them in file order; the finest grid is preferred."""
    names: dict[str, list[str]] = {}
    for band in bands:
        if band.sensor and band.name:
            names.setdefault(band.sensor, []).append(band.name)
    return [
        Modality(name=sensor, bands=tuple(dict.fromkeys(names[sensor])), unit=UNIT_OF.get(sensor, "raw"), gsd_m=1.0)
        for sensor in names
    ]


def _match(modality: Modality, bands: Sequence[RasterBand]) -> list[RasterBand]:
    """The modality's bands, in its order; [] where the scene has nothing of this sensor. Never by position."""
    mine = [band for band in bands if band.sensor == sensor_name(modality.name)]
    if not mine:
        return []
    chosen = []
    for name in modality.bands:
        fits = [band for band in mine if band.name == band_name(name)]
        if len(fits) > 1:
            raise BandError(
                f"band `{modality.name}:{name}` is there {len(fits)} times: {', '.join(str(b.path) for b in fits)}",
                hint="leave one of the files out",
            )
        chosen += fits
    if len(chosen) < len(modality.bands):
        missing = [name for name in modality.bands if name not in {band.name for band in chosen}]
        raise BandError(
            f"`{modality.name}` lacks {', '.join(missing)}: the model wants {', '.join(modality.bands)}, "
            f"found {_found(mine)}",
            hint=f"name the bands, `--bands {modality.name}={','.join(modality.bands)}`, or leave the sensor out with "
            "`--available`",
        )
    return chosen


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
        return files[str(chosen[sensor][0].path)].grid
    offers = [(abs(np.log(gsd_m(g) / modalities[s].gsd_m)), g) for s, g in _grids(chosen, files)]
    return min(offers, key=lambda offer: offer[0])[1]


def _grids(chosen: Mapping[str, list[RasterBand]], files: Mapping[str, RasterFile]) -> list[tuple[str, Grid]]:
    return [(sensor, files[str(band.path)].grid) for sensor, bands in chosen.items() for band in bands]


def check_georeferenced(file: RasterFile) -> None:
    """Raise GeoreferenceError for a raster that has no CRS, or one of another planet."""
    if not file.grid.crs:
        raise GeoreferenceError(
            f"`{file.path}` has no CRS: its pixels cannot be placed on the Earth",
            hint=f"if you know it: `rio edit-info --crs EPSG:32718 {file.path}`",
        )
    if not (CRS.from_wkt(file.grid.crs).is_projected or CRS.from_wkt(file.grid.crs).is_geographic):
        raise GeoreferenceError(f"`{file.path}` has a CRS that is neither projected nor geographic", hint="gdalwarp")


def _gsd_warning(modality: Modality, grid: Grid) -> list[str]:
    ratio = gsd_m(grid) / modality.gsd_m
    if GSD_RANGE[0] <= ratio <= GSD_RANGE[1]:
        return []
    return [
        f"the scene has {gsd_m(grid):.3g} m pixels, the model was trained at {modality.gsd_m:g} m: expect worse maps; "
        f"resample it first, e.g. `gdalwarp -tr {modality.gsd_m:g} {modality.gsd_m:g}`"
    ]


def _acquired(sensor: str, bands: Sequence[RasterBand], files: Mapping[str, RasterFile]) -> Acquisition | None:
    """When a sensor's files were acquired: one span for all of them."""
    mine = [files[path] for path in dict.fromkeys(str(band.path) for band in bands)]
    stacked = f"ACQUIRED_{sensor.upper()}"  # written by `mmedge stack`
    return join_acquisitions(
        parse_acquisition(file.tags[stacked]) if stacked in file.tags else find_acquisition(file.path.name, file.tags)
        for file in mine
    )


def _found(bands: Sequence[RasterBand]) -> str:
    return ", ".join(str(band) for band in bands) or "nothing"


def _said(modalities: Sequence[Modality]) -> str:
    return "; ".join(f"{m.name} ({', '.join(m.bands)})" for m in modalities) or "any named band"


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
