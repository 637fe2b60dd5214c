"""The grid that a scene is worked on: which sensor's, and whether a model knows pixels of that size."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from mmedge.errors import GeoreferenceError, UsageError
from mmedge.geo_io.bands import sensor_name
from mmedge.geo_io.crs import check_on_earth
from mmedge.geo_io.ground import gsd_m
from mmedge.geo_io.pointclouds.point_cloud import cloud_grid
from mmedge.geo_io.rasters.file import NO_TRANSFORM, RasterBand, RasterFile, ground_grid
from mmedge.grid import Grid
from mmedge.modality import Modality

# Outside this range of (scene GSD / model GSD) a model sees another world than it was trained on.
GSD_RANGE = (0.75, 1.34)
# Outside this one a map would be an invention: a Landsat scene (30 m) for a 10 m model is warned about, one of
# Sentinel-3 (300 m) or an aerial picture (0.2 m) is refused.
GSD_LIMITS = (0.2, 5.0)


def reference_grid(
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
    """Raise GeoreferenceError for a raster that neither control points nor CRS and geotransform place on the Earth."""
    if file.control:
        return
    unplaced = file.grid.transform == NO_TRANSFORM
    if unplaced or not file.grid.crs:
        raise GeoreferenceError(
            f"`{file.path}` has no {'geotransform' if file.grid.crs else 'CRS'} and no ground control points: its "
            "pixels cannot be placed on the Earth",
            hint="georeference it: `gdal_translate -a_ullr ULX ULY LRX LRY -a_srs EPSG:32718 IN OUT.tif`"
            if unplaced
            else "if you know its CRS: `--crs SENSOR=EPSG:32718`",
        )
    check_on_earth(file.grid.crs, str(file.path))


def gsd_warning(modality: Modality, grid: Grid) -> list[str]:
    """What to tell about pixels of another size than the model's; GeoreferenceError where it would know nothing."""
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


def grid_of_clouds(
    clouds: Mapping[str, Sequence[Path]], modalities: Mapping[str, Modality], crs: Mapping[str, str]
) -> Grid:
    """A grid for a scene that has nothing but point clouds: around the first sensor's, at its model's GSD."""
    name, paths = next(iter(clouds.items()))
    return cloud_grid(paths, modalities[name].gsd_m, crs=crs.get(name))
