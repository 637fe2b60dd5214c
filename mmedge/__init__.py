"""mmedge: georeferenced maps from multi-sensor scenes, some of whose sensors failed.

    import mmedge
    mmedge.infer("scene.tif", available=("sar", "optical"))

Names are resolved when they are first used, so that `import mmedge` loads nothing heavy.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mmedge.bundle import Bundle, open_bundle
    from mmedge.edge.arrays import MapArrays, map_arrays, map_xarray
    from mmedge.edge.batch.orders import BatchOptions
    from mmedge.edge.batch.run import batch
    from mmedge.edge.infer import infer
    from mmedge.edge.record import RunRecord
    from mmedge.errors import MMEdgeError
    from mmedge.geo_io.arrays import SensorArray
    from mmedge.geo_io.gather import SceneOptions
    from mmedge.geo_io.maps.vectors import vectorize
    from mmedge.geo_io.scene import Scene, open_scene
    from mmedge.grid import Grid, Window
    from mmedge.modality import Availability, Modality
    from mmedge.tile import Tile

__version__ = "0.1.0"

_HOME = {
    "Availability": "mmedge.modality",
    "BatchOptions": "mmedge.edge.batch.orders",
    "Bundle": "mmedge.bundle",
    "Grid": "mmedge.grid",
    "MMEdgeError": "mmedge.errors",
    "MapArrays": "mmedge.edge.arrays",
    "Modality": "mmedge.modality",
    "RunRecord": "mmedge.edge.record",
    "Scene": "mmedge.geo_io.scene",
    "SceneOptions": "mmedge.geo_io.gather",
    "SensorArray": "mmedge.geo_io.arrays",
    "Tile": "mmedge.tile",
    "Window": "mmedge.grid",
    "batch": "mmedge.edge.batch.run",
    "infer": "mmedge.edge.infer",
    "map_arrays": "mmedge.edge.arrays",
    "map_xarray": "mmedge.edge.arrays",
    "open_bundle": "mmedge.bundle",
    "open_scene": "mmedge.geo_io.scene",
    "vectorize": "mmedge.geo_io.maps.vectors",
}
__all__ = [
    "Availability",
    "BatchOptions",
    "Bundle",
    "Grid",
    "MMEdgeError",
    "MapArrays",
    "Modality",
    "RunRecord",
    "Scene",
    "SceneOptions",
    "SensorArray",
    "Tile",
    "Window",
    "batch",
    "infer",
    "map_arrays",
    "map_xarray",
    "open_bundle",
    "open_scene",
    "vectorize",
]


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module 'mmedge' has no attribute {name!r}")
    return getattr(import_module(_HOME[name]), name)


def __dir__() -> list[str]:
    return sorted([*globals(), *_HOME])
