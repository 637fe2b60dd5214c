"""From arrays to arrays: the same map as `infer`, nothing written."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from rasterio.transform import Affine

from mmedge.bundle import DEFAULT, Bundle, LandClass, open_bundle
from mmedge.edge.device import threads_available
from mmedge.edge.domain import strange_shares, warnings_of
from mmedge.edge.predict import predict
from mmedge.edge.request import Request, cut_up
from mmedge.edge.runtime.open import open_runtime
from mmedge.edge.runtime.session import Engines
from mmedge.extras import need
from mmedge.geo_io.arrays import SensorArray, arrays_from_xarray, scene_from_arrays
from mmedge.geo_io.scene import Scene, choose_sensors
from mmedge.grid import Grid

U8 = npt.NDArray[np.uint8]


@dataclass(frozen=True, slots=True, kw_only=True)
class MapArrays:
    """A map in memory, (rows, cols) uint8 each, as in `MapTile`. `warnings` are what `infer` would have said."""

    classes: U8
    confidence: U8
    sensors: U8
    grid: Grid
    legend: tuple[LandClass, ...]
    nodata: int
    order: tuple[str, ...]
    warnings: tuple[str, ...]

    def to_xarray(self) -> Any:
        """An xarray Dataset with y, x and spatial_ref, as rioxarray reads it. Needs the extra `xarray`."""
        xr = need("xarray")
        a, _, c, _, e, f = self.grid.transform
        coords = {
            "y": f + e * (np.arange(self.grid.rows) + 0.5),
            "x": c + a * (np.arange(self.grid.cols) + 0.5),
            "spatial_ref": ((), 0, {"crs_wkt": self.grid.crs}),
        }
        layers = {"classes": self.classes, "confidence": self.confidence, "sensors": self.sensors}
        found = xr.Dataset({name: (("y", "x"), values) for name, values in layers.items()}, coords)
        found["classes"].attrs = {
            "flag_values": [c.value for c in self.legend],
            "flag_meanings": " ".join(c.name.replace(" ", "_") for c in self.legend),
            "_FillValue": self.nodata,
        }
        return found


def map_arrays(
    arrays: Mapping[str, SensorArray],
    *,
    transform: Affine,
    crs: Any,
    available: Iterable[str] | None = None,
    model: str | Path = DEFAULT,
    precision: str = "fp32",
    backend: str = "auto",
    threads: int = 0,
) -> MapArrays:
    """Map what several sensors saw, given as arrays on one grid. Raises as `infer` does."""
    bundle = open_bundle(model)
    scene = scene_from_arrays(arrays, bundle.modalities, transform=transform, crs=crs)
    return _map(scene, bundle, available, precision, backend, threads)


def map_xarray(thing: Any, **wishes: Any) -> MapArrays:
    """Map an xarray Dataset whose variables are bands (B02, VV, DEM...), or one DataArray (band, y, x) a sensor."""
    arrays, transform, crs = arrays_from_xarray(thing)
    return map_arrays(arrays, transform=transform, crs=crs, **wishes)


def _map(
    scene: Scene, bundle: Bundle, available: Iterable[str] | None, precision: str, backend: str, threads: int
) -> MapArrays:
    threads = threads or threads_available()
    if available is not None:
        scene = scene.only(choose_sensors(scene, tuple(available)))
    runtime, _ = open_runtime(backend, precision=precision, threads=threads)
    engines = Engines(bundle, runtime).fitted(scene.grid).batched(scene.grid.window, scene.grid)
    layers = [np.full(scene.grid.shape, fill, np.uint8) for fill in (bundle.nodata, 255, 0)]
    plan = cut_up(Request(scene=None, threads=threads), engines, scene.grid.window, scene)
    for tile in predict(scene, engines, scene.grid.window, plan):
        where = tile.window.within(scene.grid.window)
        for layer, part in zip(layers, (tile.classes, tile.confidence, tile.sensors), strict=True):
            layer[where] = part
    return MapArrays(
        classes=layers[0],
        confidence=layers[1],
        sensors=layers[2],
        grid=scene.grid,
        legend=bundle.classes,
        nodata=bundle.nodata,
        order=bundle.traces,
        warnings=(*scene.warnings, *warnings_of(strange_shares(scene, bundle), bundle.name)),
    )
