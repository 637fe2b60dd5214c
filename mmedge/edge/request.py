"""What a run is asked for, and what that comes to for a scene: `Request`, `Job`, `Plan`."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from math import ceil, floor
from pathlib import Path

from mmedge.bundle import DEFAULT, Bundle
from mmedge.edge.device import threads_available
from mmedge.edge.predict import READERS, Plan
from mmedge.edge.runtime.session import Engines
from mmedge.errors import UsageError
from mmedge.geo_io.acquired import Acquisition, join_acquisitions, parse_acquisition
from mmedge.geo_io.aoi import aoi_mask, aoi_window, read_aoi
from mmedge.geo_io.gather import SceneOptions
from mmedge.geo_io.location import Location
from mmedge.geo_io.maps.outputs import Outputs, plan_outputs, refuse_existing
from mmedge.geo_io.rasters.header import GDAL_CACHE_BYTES
from mmedge.geo_io.scene import Scene, choose_sensors, open_scene
from mmedge.geo_io.tiling import Lattice
from mmedge.grid import Grid, Window
from mmedge.tile import Valid

# Beside GDAL_CACHE_BYTES, for scenes in strips alone: 64 rows of 15 float32 bands 26,000 pixels wide.
STRIP_CACHE_BYTES = 160 << 20
# The blocks under a column of tiles, with room for those of the map, may take so much; a band has at most so many rows
# of tiles. Where they do not fit, each is unpacked again for the next column.
BLOCK_CACHE_BYTES, MAP_CACHE_BYTES, TALL = 128 << 20, 16 << 20, 4
TILE_PX = 768 * 768
PRECISIONS = ("fp32", "bf16", "fp16", "int8")


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """Everything that decides a run. `threads` 0: all that this process may use; `available` None: what is there.

    `require` names the sensors without which the scene is refused; None: all of `available`. `batch` None: what suits
    backend and scene. `max_memory`: bytes that the process may take. `tune`: sizes that were measured to be the fastest
    here, measured now if they never were.
    """

    scene: Location | None
    options: SceneOptions = field(default_factory=SceneOptions)
    available: tuple[str, ...] | None = None
    require: tuple[str, ...] | None = None
    output: Path | None = None
    bbox: tuple[float, float, float, float] | None = None
    aoi: Path | None = None
    probs: bool = False
    datetime: str | None = None
    model: str | Path = DEFAULT
    backend: str = "auto"
    strict_device: bool = False
    precision: str = "fp32"
    threads: int = 0
    batch: int | None = None
    cells: int = 8
    max_memory: int | None = None
    tune: bool = False
    overwrite: bool = False


@dataclass(frozen=True, slots=True)
class Job:
    """What a request comes to for a scene: the files to write, the window to map, which of its pixels, and when."""

    outputs: Outputs
    region: Window
    keep: Callable[[Window], Valid] | None
    acquired: Acquisition | None


def open_requested(request: Request, bundle: Bundle, warn: Callable[[str], None]) -> Scene:
    """The scene of a request with the sensors that it may use; `warn` hears what the scene warns of."""
    scene = open_scene(request.scene, bundle.modalities, request.options)
    if request.available is not None or request.require:
        scene = scene.only(choose_sensors(scene, request.available, request.require))
    for warning in scene.warnings:
        warn(warning)
    return scene


def plan_job(request: Request, scene: Scene) -> Job:
    """Outputs and region, checked before any work starts."""
    outputs = requested_outputs(request, scene)
    refuse_existing(
        outputs, overwrite=request.overwrite, inputs=[file for file in scene.files if isinstance(file, Path)]
    )
    # Terrain keeps: the date of an elevation model says nothing about the map.
    acquired = [source.info.acquired for source in scene.sources.values() if source.info.unit != "m"]
    when = parse_acquisition(request.datetime) if request.datetime else join_acquisitions(acquired)
    region = scene.grid.window if request.bbox is None else bbox_window(request.bbox, scene.grid)
    if request.aoi is None:
        return Job(outputs, region, None, when)
    shapes = read_aoi(request.aoi, scene.grid)
    region = region.intersect(aoi_window(shapes, scene.grid))
    if region.empty:
        raise UsageError("no polygon of --aoi lies within --bbox", hint="leave out one of the two")
    return Job(outputs, region, lambda window: aoi_mask(shapes, scene.grid, window), when)


def requested_outputs(request: Request, scene: Scene) -> Outputs:
    """The files that a run writes."""
    return plan_outputs(request.output or Path(f"{scene.name}_map.tif"), probs=request.probs)


def checked_precision(precision: str, bundle: Bundle) -> str:
    """A precision that was asked for; UsageError where no such one exists, or the bundle lacks its graphs."""
    if precision not in PRECISIONS:
        raise UsageError(f"no precision `{precision}`", hint=f"--precision {'|'.join(PRECISIONS)}")
    if precision == "int8" and "int8" not in bundle.precisions():
        raise UsageError(f"bundle `{bundle.name}` has no int8 graphs", hint="--precision fp32, or bf16")
    return precision


def bbox_window(bbox: tuple[float, float, float, float], grid: Grid) -> Window:
    """The pixels of a grid that a box (xmin, ymin, xmax, ymax) in its CRS touches."""
    xmin, ymin, xmax, ymax = bbox
    rows, cols = zip(*(grid.rowcol(x, y) for x in (xmin, xmax) for y in (ymin, ymax)), strict=True)
    # A bound on the edge of a pixel takes no pixel beyond it, rounding errors aside.
    first = [floor(min(values) + 1e-6) for values in (rows, cols)]
    last = [ceil(max(values) - 1e-6) for values in (rows, cols)]
    window = Window(first[0], first[1], last[0] - first[0], last[1] - first[1]).intersect(grid.window)
    if window.empty:
        raise UsageError(
            f"the bbox {bbox} does not touch the scene", hint="give it in the scene's CRS: mmedge info SCENE"
        )
    return window


def cut_up(request: Request, engines: Engines, region: Window, scene: Scene) -> Plan:
    """Tile size in windows: smaller where windows are large, where a small scene would leave a thread without work, or
    where the strips under a row of tiles would not fit in GDAL's cache and be unpacked again for each tile.
    """
    threads = request.threads or threads_available()
    lattice, cells = Lattice.of(engines.bundle.tiling, scene.grid), request.cells
    while cells > 1 and (cells * lattice.step_px) ** 2 > TILE_PX:
        cells //= 2
    while cells > 2 and lattice.count(region, cells) < 2 * threads:
        cells //= 2
    while cells > 1 and strip_cache(cells, engines, scene) > STRIP_CACHE_BYTES:
        cells //= 2
    tall = 1
    while tall < TALL and _fits(cells, tall + 1, engines, scene):
        tall += 1
    plan = Plan(threads=threads, cells=cells, tall=tall, cache_bytes=_cache_bytes(cells, tall, engines, scene))
    if cells > 1:
        return plan
    # A large window keeps a thread busy while the next is read: few have to wait in memory.
    return replace(plan, readers=min(READERS, -(-threads // 2)), ahead=1)


def _fits(cells: int, tall: int, engines: Engines, scene: Scene) -> bool:
    striped = any(source.info.strip_bytes for source in scene.sources.values())
    return not striped and block_cache(cells, tall, engines, scene) <= BLOCK_CACHE_BYTES


def _cache_bytes(cells: int, tall: int, engines: Engines, scene: Scene) -> int:
    """Bytes of GDAL's cache with which no block is unpacked again while a band of tiles is read."""
    strips = min(STRIP_CACHE_BYTES, strip_cache(cells, engines, scene))
    return strips + max(GDAL_CACHE_BYTES, min(BLOCK_CACHE_BYTES, block_cache(cells, tall, engines, scene)))


def block_cache(cells: int, tall: int, engines: Engines, scene: Scene) -> int:
    """Bytes of the blocks under a column of `tall` tiles, which the next column shares, and of the map's beside."""
    infos = [source.info for source in scene.sources.values() if not source.info.strip_bytes]
    block, tiling = max([1, *(info.block_px for info in infos)]), engines.bundle.tiling

    def touched(tiles: int) -> int:
        """Pixels of the blocks that so many tiles in a row touch, wherever they begin."""
        return ((tiles * cells * tiling.stride_px + 2 * tiling.halo_px - 2) // block + 2) * block

    return round(sum(info.pixel_bytes for info in infos) * touched(tall) * touched(1)) + MAP_CACHE_BYTES


def strip_cache(cells: int, engines: Engines, scene: Scene) -> int:
    """Bytes of the strips under a row of tiles, half of them again for the row that begins while another ends."""
    tiling = engines.bundle.tiling
    rows = cells * tiling.stride_px + 2 * tiling.halo_px
    return sum(source.info.strip_bytes for source in scene.sources.values()) * rows * 3 // 2
