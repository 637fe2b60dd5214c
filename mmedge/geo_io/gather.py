"""What a scene is made of: the files that a person named, and what that person says about them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from mmedge.errors import UsageError
from mmedge.geo_io.acquired import Acquisition, find_acquisition, join_acquisitions, parse_acquisition
from mmedge.geo_io.bands import sensor_name
from mmedge.geo_io.crs import horizontal, wkt_of
from mmedge.geo_io.delivered import inspect_files, with_masks, with_quality
from mmedge.geo_io.location import Location
from mmedge.geo_io.manifest import read_manifest
from mmedge.geo_io.pointclouds.point_cloud import cloud_name, cloud_path
from mmedge.geo_io.rasters.file import NO_TRANSFORM, RasterBand, RasterFile
from mmedge.geo_io.rasters.matching import from_manifest, with_names
from mmedge.geo_io.speckle import Speckle


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


@dataclass(frozen=True, slots=True, kw_only=True)
class Found:
    """What a scene is made of: bands, the rasters that hold them by path, point clouds by sensor."""

    name: str
    bands: list[RasterBand]
    files: dict[str, RasterFile]
    clouds: dict[str, list[Path]]
    acquired: Acquisition | None
    warnings: tuple[str, ...]


def gather(path: Location | None, options: SceneOptions) -> Found:
    """Every band of every raster, with what the user said about them, and the point clouds of each sensor."""
    sources = dict(options.sources)
    if path and _cloud(path):
        sources["elevation"], path = [path], None
    manifest = (
        read_manifest(path, allow_remote=options.allow_remote, item=options.item)
        if path and path.suffix.lower() in (".json", ".geojson")
        else None
    )
    if options.item and not manifest:
        raise UsageError(f"`--item {options.item}`: the scene is no STAC ItemCollection", hint="leave out --item")
    plain = [path] if path and not manifest else []
    if not (plain or manifest or sources):
        raise UsageError("no scene given", hint="mmedge infer scene.tif, or --source optical=a.tif --source sar=b.tif")
    clouds: dict[str, list[Path]] = {}
    rasters: list[tuple[str | None, Sequence[Location]]] = [(None, plain)] if plain else []
    for sensor, paths in sources.items():
        found = _clouds(sensor_name(sensor), paths)
        clouds |= found
        rasters += [] if found else [(sensor_name(sensor), paths)]
    bands: list[RasterBand] = []
    files: dict[str, RasterFile] = {}
    for given, paths in rasters:
        mine = [file for place in paths for file in inspect_files(place)]
        files |= {str(file.path): file for file in mine}
        bands += with_names([band for file in mine for band in file.bands], given, options.bands)
    if manifest:
        bands += from_manifest(manifest, files)
    name = manifest.name if manifest else options.name or _name(path or next(iter(sources.values()))[0])
    files = _placed(files, bands, crs_given(options))
    bands, files = with_quality(bands, files)
    files = with_masks({sensor_name(key): paths for key, paths in options.masks.items()}, bands, files)
    scale = {sensor_name(key): value for key, value in options.scale.items()}
    return Found(
        name=name,
        bands=[band.scaled(*scale[band.sensor]) if band.sensor in scale else band for band in bands],
        files=files,
        clouds=clouds,
        acquired=manifest.acquired if manifest else None,
        warnings=manifest.warnings if manifest else (),
    )


def crs_given(options: SceneOptions) -> dict[str, str]:
    """Sensor -> WKT, as far as the user said where its files lie."""
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


def acquired_of(sensor: str, bands: Sequence[RasterBand], files: Mapping[str, RasterFile]) -> Acquisition | None:
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
