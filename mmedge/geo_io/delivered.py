"""What a person names as data: a product's folder, one of its files, or any raster; as files with named bands."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from mmedge.errors import UsageError
from mmedge.geo_io.bands import band_name
from mmedge.geo_io.location import Location
from mmedge.geo_io.missions import landsat, sentinel1, sentinel2
from mmedge.geo_io.rasters.file import QualityLayer, RasterBand, RasterFile
from mmedge.geo_io.rasters.header import inspect_raster
from mmedge.geo_io.rasters.quality import FLAGGED, NAMED_RULES

PRODUCTS = (sentinel2.read_product, sentinel1.read_product, landsat.read_product)


def inspect_files(path: Location) -> list[RasterFile]:
    """The rasters of a Sentinel-1, Sentinel-2 or Landsat product, of one of their files, or a raster by itself.

    Raises SceneError where the path is none of these, or where a product's metadata are missing or damaged.
    """
    for read_product in PRODUCTS:
        if isinstance(path, Path) and (files := read_product(path)):
            return files
    return [inspect_raster(path)]


def with_quality(
    bands: Sequence[RasterBand], files: Mapping[str, RasterFile]
) -> tuple[list[RasterBand], dict[str, RasterFile]]:
    """Bands named SCL, QA60, QA_PIXEL or QA_RADSAT taken out of the bands, and attached to every optical file."""
    named = [band for band in bands if band.sensor == "optical" and band_name(band.name or "") in NAMED_RULES]
    kept = [band for band in bands if band not in named]
    layers = tuple(
        QualityLayer(file=files[str(band.path)], index=band.index, rule=NAMED_RULES[name], name=name)
        for band in named
        if (name := band_name(band.name or ""))
    )
    optical = {str(band.path) for band in kept if band.sensor == "optical"}
    judged = {
        path: replace(file, quality=(*file.quality, *layers)) if path in optical else file
        for path, file in files.items()
    }
    return kept, judged


def with_masks(
    masks: Mapping[str, Sequence[Location]], bands: Sequence[RasterBand], files: Mapping[str, RasterFile]
) -> dict[str, RasterFile]:
    """User masks by sensor (usual names), attached to the files of their sensor: not 0, or off the mask, is unusable.

    Raises UsageError for a sensor that the scene lacks and for a mask of several bands.
    """
    judged = dict(files)
    for sensor, paths in masks.items():
        layers = tuple(_mask(path, sensor) for path in paths)
        mine = {str(band.path) for band in bands if band.sensor == sensor}
        if not mine:
            raise UsageError(f"a mask for `{sensor}`: the scene has no such sensor", hint="mmedge info SCENE")
        judged |= {path: replace(judged[path], quality=(*judged[path].quality, *layers)) for path in mine}
    return judged


def _mask(path: Location, sensor: str) -> QualityLayer:
    file = inspect_raster(path)
    if len(file.bands) != 1:
        raise UsageError(f"`{path}` holds {len(file.bands)} bands, a mask has one", hint="gdal_translate -b 1 IN OUT")
    return QualityLayer(file=file, index=file.bands[0].index, rule=FLAGGED, name="mask", sensor=sensor)
