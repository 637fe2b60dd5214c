"""A scene in, a map out: open, check, predict, write, record."""

from __future__ import annotations

import time
import warnings
from collections import Counter
from collections.abc import Callable, Generator, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import rasterio

from mmedge.bundle import Bundle, open_bundle
from mmedge.edge.budget import within
from mmedge.edge.device import threads_available
from mmedge.edge.domain import strange_shares, warnings_of
from mmedge.edge.memory import give_back
from mmedge.edge.predict import MapTile, Plan, predict
from mmedge.edge.provenance import input_files, provenance_of
from mmedge.edge.record import RunRecord
from mmedge.edge.request import (
    Job,
    Request,
    checked_precision,
    cut_up,
    open_requested,
    plan_job,
    requested_outputs,
)
from mmedge.edge.runtime.open import open_runtime
from mmedge.edge.runtime.session import Engines
from mmedge.edge.stream import timed
from mmedge.edge.strips import Strips
from mmedge.edge.tune import tuned
from mmedge.errors import SceneError
from mmedge.files import part_of
from mmedge.geo_io.location import Location, locate
from mmedge.geo_io.maps.mapwriter import MapCounts, MapWriter
from mmedge.geo_io.maps.publication import finish_killed
from mmedge.geo_io.maps.quicklook import write_quicklook
from mmedge.geo_io.maps.stac import InputFile, map_item, write_item
from mmedge.geo_io.rasters.header import GDAL_CACHE_BYTES
from mmedge.geo_io.scene import Scene
from mmedge.grid import Grid, Window

Warn = Callable[[str], None]
Progress = Callable[[int, int], None]
Commit = Callable[[RunRecord], None]


@dataclass(frozen=True, slots=True)
class _Asides:
    """What is found out about a scene while it is mapped: its files, and how much of it is strange to the model."""

    inputs: Future[tuple[InputFile, ...]]
    strange: Future[dict[str, float]]


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
        precision=checked_precision(request.precision, bundle),
        threads=threads,
        strict_device=request.strict_device,
        frugal=request.max_memory is not None,
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
    give_back()
    bundle = engines.bundle if engines else open_bundle(request.model)
    with rasterio.Env(GDAL_CACHEMAX=GDAL_CACHE_BYTES), open_requested(request, bundle, warn) as scene:
        finish_killed(requested_outputs(request, scene))
        job = plan_job(request, scene)
        engines = engines or open_engines(request, bundle, warn=warn, detail=detail)
        engines = engines.fitted(scene.grid)
        with ThreadPoolExecutor(1, thread_name_prefix="hash") as pool:
            asides = _Asides(pool.submit(input_files, scene), pool.submit(strange_shares, scene, bundle, job.region))
            engines, plan = _sized(request, engines, job.region, scene)
            if strips is not None:  # a kill costs a row of tiles, not a band of them
                plan = replace(plan, tall=1)
            tiles = _tiles(request, scene, job, plan, engines, strips)
            return _map(
                request,
                scene,
                job,
                plan,
                engines,
                tiles,
                asides,
                commit=commit,
                warn=warn,
                progress=progress,
                start=start,
            )


def _sized(request: Request, engines: Engines, region: Window, scene: Scene) -> tuple[Engines, Plan]:
    """The engines and how the run is cut up: as asked, as tuned, and within the memory that it may take."""
    if request.batch is None:
        engines = engines.batched(region, scene.grid)
    if request.tune:
        request, engines = tuned(request, engines, region, scene)
    if request.max_memory is not None:
        return within(request.max_memory, request, engines, region, scene)
    return engines, cut_up(request, engines, region, scene)


def plan_run(request: Request, *, bundle: Bundle | None = None, warn: Warn = _silent) -> dict[str, Any]:
    """What `infer` would read, write and use; touches nothing and fails as the real run would."""
    bundle = bundle or open_bundle(request.model)
    checked_precision(request.precision, bundle)
    with open_requested(request, bundle, warn) as scene:
        job = plan_job(request, scene)
        return {
            "schema": "mmedge.plan/1",
            "reads": [str(file) for file in scene.files],
            "writes": [str(path) for path in job.outputs.paths],
            "sensors": list(scene.sensors),
            "model": bundle.name,
            "rows": job.region.height,
            "cols": job.region.width,
        }


def _tiles(
    request: Request, scene: Scene, job: Job, plan: Plan, engines: Engines, strips: Strips | None
) -> Generator[MapTile, None, None]:
    """The tiles of the map, band by band: those that `strips` has kept, and the rest."""

    def rest(region: Window) -> Iterator[MapTile]:
        return predict(scene, engines, region, plan, keep=job.keep, probs=request.probs)

    yield from strips.resume(job.region, rest) if strips else rest(job.region)


def _map(
    request: Request,
    scene: Scene,
    job: Job,
    plan: Plan,
    engines: Engines,
    tiles: Generator[MapTile, None, None],
    asides: _Asides,
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
        grid,
        job.outputs,
        legend=bundle.classes,
        order=bundle.traces,
        nodata=bundle.nodata,
        overwrite=request.overwrite,
        cache_bytes=plan.cache_bytes,
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
        provenance = provenance_of(request, scene, engines, asides.inputs.result(), shares)
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
            threads=plan.threads,
            readers=plan.readers,
            strange=asides.strange.result(),
            seconds=seconds,
        )
        _dress(record, grid, job)
        seconds["total"] = time.perf_counter() - start  # all but the publication: what a batch writes down
        commit(record)
        seconds["write"] += time.perf_counter() - began
    seconds["total"] = time.perf_counter() - start
    for sensor in record.unused():
        warn(f"`{sensor}` is in the scene but valid nowhere: the map was made without it")
    for text in warnings_of(record.strange, bundle.name):
        warn(text)
    return record


def _check_mapped(counts: MapCounts, scene: Scene) -> None:
    if counts.mapped == 0:
        raise SceneError(
            f"no pixel of `{scene.name}` is valid in any of {', '.join(scene.sensors)}: there is nothing to map",
            hint=f"mmedge info {scene.files[0] if scene.files else 'SCENE'}",
        )


def _dress(record: RunRecord, grid: Grid, job: Job) -> None:
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
