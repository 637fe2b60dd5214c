"""Which band of which file is which band of a model: by name, by what the user said, never by position."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from mmedge.errors import BandError, UsageError
from mmedge.geo_io.bands import band_in_file_name, band_name, sensor_name
from mmedge.geo_io.manifest import Manifest
from mmedge.geo_io.rasters.file import RasterBand, RasterFile
from mmedge.geo_io.rasters.header import inspect_raster
from mmedge.geo_io.rasters.spectral import nearest_band
from mmedge.modality import Modality, Unit

UNIT_OF: dict[str, Unit] = {"optical": "reflectance", "sar": "dB", "elevation": "m"}


def from_manifest(manifest: Manifest, files: dict[str, RasterFile]) -> list[RasterBand]:
    """Bands of a STAC item's assets, named and scaled as the item says where the files do not; adds to `files`."""
    bands = []
    for asset in manifest.assets:
        file = files.setdefault(str(asset.path), inspect_raster(asset.path))
        for band, given in zip(file.bands, asset.bands, strict=False):
            sensor, name = band.sensor or given.sensor, band.name or given.name
            if sensor and name:
                named = band.named(sensor, name)
                bands.append(named if band.tagged or given.scale is None else named.scaled(given.scale, given.offset))
    return bands


def with_names(bands: list[RasterBand], sensor: str | None, names: Mapping[str, Sequence[str]]) -> list[RasterBand]:
    """Bands with the names that the user gave, else their own, else the file name's for single-band files.

    In a file of several sensors (`sensor` None) those whose bands have no names are named sensor after sensor.
    """
    given = {sensor_name(key): value for key, value in names.items()}
    if sensor is None and given and all(band.name is None for band in bands):
        return _in_order(bands, given)
    if sensor is None:
        return [band for mine in _by_sensor(bands) for band in _in_order(mine, _only(given, mine[0].sensor))]
    if sensor in given:
        return _in_order(bands, _only(given, sensor))
    alone = {path for path in (b.path for b in bands) if sum(b.path == path for b in bands) == 1}
    return [_forced(band, sensor, alone=band.path in alone) for band in bands]


def _by_sensor(bands: Sequence[RasterBand]) -> list[list[RasterBand]]:
    return [[b for b in bands if b.sensor == sensor] for sensor in dict.fromkeys(band.sensor for band in bands)]


def _only(given: Mapping[str, Sequence[str]], sensor: str | None) -> dict[str, Sequence[str]]:
    return {sensor: given[sensor]} if sensor in given and sensor else {}


def _in_order(bands: list[RasterBand], given: Mapping[str, Sequence[str]]) -> list[RasterBand]:
    """Bands with the names that were given for all of them, sensor after sensor; as they are where none were."""
    named = [(sensor, band_name(name)) for sensor, names in given.items() for name in names]
    if named and len(named) != len(bands):
        raise UsageError(
            f"`--bands {' --bands '.join(given)}` names {len(named)} bands, the files hold {len(bands)}",
            hint="name every band of the files, in their order",
        )
    return [band.named(*name) for band, name in zip(bands, named, strict=True)] if named else bands


def _forced(band: RasterBand, sensor: str, *, alone: bool) -> RasterBand:
    own = band.name if band.sensor in (None, sensor) else None  # the colours of a radar picture are no bands
    name = own or (band_in_file_name(band.path.stem) if alone else None)
    return band.named(sensor, name or ("DEM" if alone and sensor == "elevation" else f"band {band.index}"))


def modalities_of(
    bands: Sequence[RasterBand], clouds: Iterable[str], given: Mapping[str, Sequence[str]]
) -> list[Modality]:
    """One modality for each sensor that has named bands, all of them in file order; a point cloud gives the bands that
    are `given` for its sensor, else its ground.

    The finest grid is preferred.
    """
    names: dict[str, list[str]] = {}
    for band in bands:
        if band.sensor and band.name:
            names.setdefault(band.sensor, []).append(band.name)
    names |= {sensor: list(given.get(sensor, ["DEM"])) for sensor in clouds}
    return [
        Modality(name=sensor, bands=tuple(dict.fromkeys(names[sensor])), unit=UNIT_OF.get(sensor, "raw"), gsd_m=1.0)
        for sensor in names
    ]


def match(modality: Modality, bands: Sequence[RasterBand]) -> list[RasterBand]:
    """The modality's bands, in its order; [] where the scene has nothing of this sensor. Never by position."""
    mine = [band for band in bands if band.sensor == sensor_name(modality.name)]
    if not mine:
        return []
    chosen = []
    for name in modality.bands:
        fits = [band for band in mine if band.name == band_name(name)]
        if not fits and (near := nearest_band(name, mine)):
            fits = [near]
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
            f"found {listed(mine)}",
            hint=f"name all bands of its files in their order, `--bands {modality.name}=...`, or leave the sensor out "
            "with `--available`",
        )
    return chosen


def listed(bands: Sequence[RasterBand]) -> str:
    """Bands for an error message."""
    return ", ".join(str(band) for band in bands) or "nothing"


def describe(modalities: Sequence[Modality]) -> str:
    """Modalities for an error message."""
    return "; ".join(f"{m.name} ({', '.join(m.bands)})" for m in modalities) or "any named band"
