"""A scene in, a map out: open, check, predict, write, record."""

from __future__ import annotations

import time
import warnings
from collections import Counter
from collections.abc import Callable, Generator, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass, field
from math import ceil, floor
from pathlib import Path
from typing import Any

import rasterio

from mmedge.bundle import DEFAULT, Bundle, checksum, open_bundle
from mmedge.edge.device import threads_available
from mmedge.edge.domain import strange_shares, warnings_of
from mmedge.edge.predict import AHEAD, MapTile, Plan, predict
from mmedge.edge.record import RunRecord
from mmedge.edge.runtime.open import open_runtime
from mmedge.edge.runtime.session import Engines
from mmedge.edge.stream import timed
from mmedge.edge.strips import Strips
from mmedge.errors import SceneError, UsageError
from mmedge.geo_io.acquired import Acquisition, join_acquisitions, parse_acquisition
from mmedge.geo_io.aoi import aoi_mask, aoi_window, read_aoi
from mmedge.geo_io.location import Location, locate
from mmedge.geo_io.mapwriter import MapCounts, MapWriter
from mmedge.geo_io.outputs import Outputs, part_of, plan_outputs, refuse_existing
from mmedge.geo_io.publication import finish_killed
from mmedge.geo_io.quicklook import write_quicklook
from mmedge.geo_io.raster import GDAL_CACHE_BYTES
from mmedge.geo_io.scene import Scene, SceneOptions, choose_sensors, open_scene
from mmedge.geo_io.stac import InputFile, Provenance, map_item, write_item
from mmedge.geo_io.tiling import Lattice
from mmedge.grid import Grid, Window
from mmedge.modality import Availability
from mmedge.tile import Valid

# Beside GDAL_CACHE_BYTES, for scenes in strips alone: 64 rows of 15 float32 bands 26,000 pixels wide.
STRIP_CACHE_BYTES = 160 << 20
TILE_PX = 1024 * 1024
PRECISIONS = ("fp32", "bf16", "fp16", "int8")
Warn = Callable[[str], None]
Progress = Callable[[int, int], None]
Commit = Callable[[RunRecord], None]


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """Everything that decides a run. `threads` 0: all that this process may use; `available` None: what is there.

    `require` names the sensors without which the scene is refused; None: all of `available`.
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
    batch: int = 8
    cells: int = 8
    overwrite: bool = False


@dataclass(frozen=True, slots=True)
class _Job:
    """What a request comes to for a scene: the files to write, the window to map, which of its pixels, and when."""

    outputs: Outputs
    region: Window
    keep: Callable[[Window], Valid] | None
    acquired: Acquisition | None


def _silent(*_: object) -> None:
    return None


def infer(scene: str | Location | None, output: str | Path | None = None, **wishes: Any) -> RunRecord:
    """Map a scene from Python: `infer("scene.tif", available=("sar", "optical"))`.

    `wishes` are the fields of `Request`. Warnings go to `warnings.warn`. See `run`.
    """
    path, target = locate(scene) if scene is not None else None, Path(output) if output is not None else None
    return run(Request(scene=path, output=target, **wishes), warn=lambda text: warnings.warn(text, stacklevel=3))


def open_engines(request: Request, bundle: Bundle, *, warn: Warn = _silent, detail: Warn = _silent) -> Engines:
    """The model of a request, ready for any number of its scenes. Says which backend `auto` took and why."""
    threads = request.threads or threads_available()
    runtime, choice = open_runtime(
        request.backend,
        precision=_precision(request, bundle),
        threads=threads,
        strict_device=request.strict_device,
    )
    if request.backend == "auto":
        say = warn if choice.fallback else detail
        say(f"backend {choice.backend}: {choice.why}")
    return Engines(bundle, runtime, batch=request.batch)


def run(
    request: Request,
    *,
    engines: Engines | None = None,
    strips: Strips | None = None,
    commit: Commit = _silent,
    warn: Warn = _silent,
    detail: Warn = _silent,
    progress: Progress = _silent,
) -> RunRecord:
    """Map a scene: writes the files of `plan_outputs`, all or none, and returns what was done.

    `engines` are those of an earlier run, to be used again; `strips` keeps finished rows for a later run. `commit` is
    called when every file is complete as its part: what it raises stops the publication.
    Raises an MMEdgeError with a hint for every mistake of input or usage, before any file is written.
    """
    start = time.perf_counter()
    bundle = engines.bundle if engines else open_bundle(request.model)
    with rasterio.Env(GDAL_CACHEMAX=GDAL_CACHE_BYTES), _open(request, bundle, warn) as scene:
        finish_killed(_outputs(request, scene))
        job = _plan(request, scene)
        engines = engines or open_engines(request, bundle, warn=warn, detail=detail)
        engines = engines.fitted(scene.grid)
        with ThreadPoolExecutor(1, thread_name_prefix="hash") as pool:
            hashes = pool.submit(_inputs, scene)
            strange = pool.submit(strange_shares, scene, bundle, job.region)
            plan = _cut(request, engines, job.region, scene)
            with rasterio.Env(
                GDAL_CACHEMAX=GDAL_CACHE_BYTES + min(STRIP_CACHE_BYTES, _strip_cache(plan.cells, engines, scene))
            ):
                tiles = _tiles(request, scene, job, plan, engines, strips)
                return _map(
                    request,
                    scene,
                    job,
                    engines,
                    tiles,
                    hashes,
                    strange,
                    commit=commit,
                    warn=warn,
                    progress=progress,
                    start=start,
                )


def plan_run(request: Request, *, bundle: Bundle | None = None, warn: Warn = _silent) -> dict[str, Any]:
    """What `infer` would read, write and use; touches nothing and fails as the real run would."""
    bundle = bundle or open_bundle(request.model)
    _precision(request, bundle)
    with _open(request, bundle, warn) as scene:
        job = _plan(request, scene)
        return {
            "schema": "mmedge.plan/1",
            "reads": [str(file) for file in scene.files],
            "writes": [str(path) for path in job.outputs.paths],
            "sensors": list(scene.sensors),
            "model": bundle.name,
            "rows": job.region.height,
            "cols": job.region.width,
        }


def _open(request: Request, bundle: Bundle, warn: Warn) -> Scene:
    scene = open_scene(request.scene, bundle.modalities, request.options)
    if request.available is not None or request.require:
        scene = scene.only(choose_sensors(scene, request.available, request.require))
    for warning in scene.warnings:
        warn(warning)
    return scene


def _plan(request: Request, scene: Scene) -> _Job:
    """Outputs and region, checked before any work starts."""
    outputs = _outputs(request, scene)
    refuse_existing(
        outputs, overwrite=request.overwrite, inputs=[file for file in scene.files if isinstance(file, Path)]
    )
    # Terrain keeps: the date of an elevation model says nothing about the map.
    acquired = [source.info.acquired for source in scene.sources.values() if source.info.unit != "m"]
    when = parse_acquisition(request.datetime) if request.datetime else join_acquisitions(acquired)
    region = scene.grid.window if request.bbox is None else bbox_window(request.bbox, scene.grid)
    if request.aoi is None:
        return _Job(outputs, region, None, when)
    shapes = read_aoi(request.aoi, scene.grid)
    region = region.intersect(aoi_window(shapes, scene.grid))
    return _Job(outputs, region, lambda window: aoi_mask(shapes, scene.grid, window), when)


def _outputs(request: Request, scene: Scene) -> Outputs:
    return plan_outputs(request.output or Path(f"{scene.name}_map.tif"), probs=request.probs)


def _precision(request: Request, bundle: Bundle) -> str:
    if request.precision not in PRECISIONS:
        raise UsageError(f"no precision `{request.precision}`", hint=f"--precision {'|'.join(PRECISIONS)}")
    if request.precision == "int8" and "int8" not in bundle.precisions():
        raise UsageError(f"bundle `{bundle.name}` has no int8 graphs", hint="--precision fp32, or bf16")
    return request.precision


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


def _inputs(scene: Scene) -> tuple[InputFile, ...]:
    """Name and sha256 of every input file; no sha256 of a remote one, of which only parts are downloaded."""
    return tuple(
        InputFile(name=file.name, sha256=checksum(file).removeprefix("1220"))
        if isinstance(file, Path)
        else InputFile(name=file.name, sha256=None, href=file.address)
        for file in scene.files
    )


def _tiles(
    request: Request, scene: Scene, job: _Job, plan: Plan, engines: Engines, strips: Strips | None
) -> Generator[MapTile, None, None]:
    """The tiles of the map, row by row: those that `strips` has kept, and the rest."""

    def rest(region: Window) -> Iterator[MapTile]:
        return predict(scene, engines, region, plan, keep=job.keep, probs=request.probs)

    yield from strips.resume(job.region, rest) if strips else rest(job.region)


def _map(
    request: Request,
    scene: Scene,
    job: _Job,
    engines: Engines,
    tiles: Generator[MapTile, None, None],
    hashes: Future[tuple[InputFile, ...]],
    strange: Future[dict[str, float]],
    *,
    commit: Commit,
    warn: Warn,
    progress: Progress,
    start: float,
) -> RunRecord:
    bundle, region = engines.bundle, job.region
    seconds = {"read": 0.0, "compute": 0.0, "write": 0.0, "wait": 0.0}
    grid = scene.grid.crop(region)
    writer = MapWriter(
        grid, job.outputs, legend=bundle.classes, order=bundle.order, nodata=bundle.nodata, overwrite=request.overwrite
    )
    with writer, closing(tiles):  # reading ends before the scene is closed, also where writing fails
        done, lost = 0, {name: Counter[str]() for name in scene.sources}
        for tile, waited in timed(tiles):
            began = time.perf_counter()
            where = Window(tile.window.row - region.row, tile.window.col - region.col, *tile.window.shape)
            writer.write(where, tile.classes, tile.confidence, tile.sensors, tile.probs)
            seconds["read"] += tile.seconds[0]
            seconds["compute"] += tile.seconds[1]
            seconds["write"] += time.perf_counter() - began
            seconds["wait"] += waited
            done += tile.classes.size
            for name, causes in tile.lost.items():
                lost[name].update(causes)
            progress(done, region.height * region.width)
        began = time.perf_counter()
        shares = {name: {cause: round(n / done, 6) for cause, n in sorted(c.items())} for name, c in lost.items()}
        provenance = _provenance(request, scene, engines, hashes.result(), shares)
        writer.tag(provenance.tags())
        counts = writer.finish()
        _check_mapped(counts, scene)
        record = RunRecord(
            outputs=job.outputs,
            bundle=bundle,
            scene_name=scene.name,
            sensors=scene.sensors,
            counts=counts,
            provenance=provenance,
            device=engines.runtime.device,
            threads=request.threads or threads_available(),
            strange=strange.result(),
            seconds=seconds,
        )
        _dress(record, grid, job)
        commit(record)
        seconds["write"] += time.perf_counter() - began
    seconds["total"] = time.perf_counter() - start
    for sensor in record.unused():
        warn(f"`{sensor}` is in the scene but valid nowhere: the map was made without it")
    for text in warnings_of(record.strange, bundle.name):
        warn(text)
    return record


def _provenance(
    request: Request,
    scene: Scene,
    engines: Engines,
    inputs: tuple[InputFile, ...],
    lost: Mapping[str, Mapping[str, float]],
) -> Provenance:
    return Provenance(
        bundle=engines.bundle.name,
        bundle_sha256=engines.bundle.sha256,
        backend=engines.runtime.name,
        precision=request.precision,
        available=Availability.of(scene.sensors, engines.bundle.order),
        inputs=inputs,
        assumptions=scene.assumptions,
        acquired={name: str(s.info.acquired) for name, s in scene.sources.items() if s.info.acquired},
        lost=lost,
    )


def _cut(request: Request, engines: Engines, region: Window, scene: Scene) -> Plan:
    """Tile size in windows: smaller where windows are large, where a small scene would leave a thread without work, or
    where the strips under a row of tiles would not fit in GDAL's cache and be unpacked again for each tile.
    """
    threads = request.threads or threads_available()
    lattice, cells = Lattice.of(engines.bundle.tiling, scene.grid), request.cells
    while cells > 1 and (cells * lattice.step_px) ** 2 > TILE_PX:
        cells //= 2
    while cells > 2 and lattice.count(region, cells) < 2 * threads:
        cells //= 2
    while cells > 1 and _strip_cache(cells, engines, scene) > STRIP_CACHE_BYTES:
        cells //= 2
    # A large window keeps a thread busy while the next is read: fewer of them have to wait in memory.
    return Plan(threads=threads, cells=cells, ahead=1 if cells == 1 else AHEAD)


def _strip_cache(cells: int, engines: Engines, scene: Scene) -> int:
    """Bytes of the strips under a row of tiles, half of them again for the row that begins while another ends."""
    tiling = engines.bundle.tiling
    rows = cells * tiling.stride_px + 2 * tiling.halo_px
    return sum(source.info.strip_bytes for source in scene.sources.values()) * rows * 3 // 2


def _check_mapped(counts: MapCounts, scene: Scene) -> None:
    if counts.mapped == 0:
        raise SceneError(
            f"no pixel of `{scene.name}` is valid in any of {', '.join(scene.sensors)}: there is nothing to map",
            hint=f"mmedge info {scene.files[0] if scene.files else 'SCENE'}",
        )


def _dress(record: RunRecord, grid: Grid, job: _Job) -> None:
    """The quicklook and the STAC item, beside the map."""
    outputs, bundle = job.outputs, record.bundle
    if outputs.quicklook is not None:
        write_quicklook(
            part_of(outputs.map),
            part_of(outputs.quicklook),
            legend=bundle.classes,
            counts=record.counts,
            title=record.scene_name,
            subtitle=f"{bundle.name}, made from {', '.join(record.used())}",
        )
    if outputs.item is not None:
        item = map_item(
            grid=grid,
            outputs=outputs,
            counts=record.counts,
            legend=bundle.classes,
            nodata=bundle.nodata,
            provenance=record.provenance,
            acquired=job.acquired,
        )
        write_item(item, part_of(outputs.item))
