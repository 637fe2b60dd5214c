"""The orders of a batch: what all of its scenes have in common, and what that comes to for one of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

from mmedge.bundle import Bundle, open_bundle
from mmedge.edge.batch.folder import peek
from mmedge.edge.batch.fresh import judge, wish
from mmedge.edge.batch.journal import Journal
from mmedge.edge.batch.worklist import Shard, Work, without_maps
from mmedge.edge.device import threads_available
from mmedge.edge.infer import plan_run
from mmedge.edge.request import Request
from mmedge.errors import MMEdgeError, UsageError
from mmedge.extras import need
from mmedge.geo_io.bands import sensor_name
from mmedge.geo_io.location import Location
from mmedge.geo_io.maps.outputs import plan_outputs, refuse_existing

# About 10 s of work on two cores, and 12 MB of strips.
STRIPS_FROM_PX = 4_000_000


@dataclass(frozen=True, slots=True, kw_only=True)
class BatchOptions:
    """How a batch runs; none of it can change a map.

    `checksums`: inputs are known by their sha256, not by size and modification time; `strips_from_px`: scenes of at
    least so many pixels are resumed in their middle. `engine`: `local` processes, or actors of `ray`, on the cluster at
    `address` or one that is started here, with `gpus` for each worker. `workers` None: one, or all that fit there.
    """

    engine: Literal["local", "ray"] = "local"
    address: str | None = None
    gpus: int = 0
    workers: int | None = None
    retries: int = 0
    timeout_s: float | None = None
    fail_fast: bool = False
    checksums: bool = False
    shard: Shard = field(default_factory=Shard)
    strips_from_px: int = STRIPS_FROM_PX


def check_template(template: Request, bundle: Bundle) -> Request:
    """What concerns every scene, checked once: UsageError for a sensor that the model does not know."""
    for flag, names in (("--available", template.available), ("--require", template.require)):
        for name in names or ():
            if sensor_name(name) not in bundle.order:
                raise UsageError(
                    f"`{flag} {name}`: `{bundle.name}` knows {', '.join(bundle.order)}",
                    hint=f"mmedge info {bundle.folder}",
                )
    require = tuple(sensor_name(name) for name in template.require or ())
    barred = [n for n in require if template.available and n not in map(sensor_name, template.available)]
    if barred:
        raise UsageError(f"`--require {barred[0]}` is not in `--available`", hint="leave one of the two out")
    if template.aoi is not None and not template.aoi.is_file():
        raise UsageError(f"no such file: `{template.aoi}`", hint="--aoi FILE takes GeoJSON, GeoPackage or Shapefile")
    return replace(template, require=require)


def share_threads(template: Request, options: BatchOptions) -> Request:
    """The cores that there are, shared between the workers; a cluster's are shared by Ray."""
    if options.engine == "ray":
        need("ray")
        return template
    workers = 1 if options.workers is None else options.workers
    if workers < 1:
        raise UsageError(f"`--workers {workers}`: at least one is needed", hint="--workers 1")
    return replace(template, threads=template.threads or max(1, threads_available() // workers))


def request_for(work: Work, out: Path, template: Request) -> Request:
    """The request of one scene."""
    scene = {"sources": work.sources, "name": work.id} if work.sources else {"item": work.item}
    options = replace(template.options, masks=_masks(work, template.options.masks), **scene)
    return replace(template, scene=work.scene, output=out / f"{work.id}_map.tif", options=options)


def _masks(work: Work, masks: Mapping[str, Sequence[Location]]) -> dict[str, list[Location]]:
    """The masks of the sensors that a scene has; `{id}` in a path is the scene's."""
    mine = {sensor: paths for sensor, paths in masks.items() if not work.sources or sensor in work.sources}
    return {
        sensor: [Path(str(p).replace("{id}", work.id)) if isinstance(p, Path) else p for p in paths]
        for sensor, paths in mine.items()
    }


def plan_batch(works: Sequence[Work], out: Path, template: Request, options: BatchOptions) -> list[dict[str, Any]]:
    """What `run_batch` would do with each scene; touches nothing."""
    bundle = open_bundle(template.model)
    template = check_template(template, bundle)
    mine = [work for work in without_maps(works, out) if work.id in options.shard]
    with peek(out, options.shard) as journal:
        return [_plan(work, out, template, bundle, options, journal) for work in mine]


def _plan(
    work: Work, out: Path, template: Request, bundle: Bundle, options: BatchOptions, journal: Journal | None
) -> dict[str, Any]:
    request = request_for(work, out, template)
    outputs = plan_outputs(request.output or out, probs=request.probs)
    entry = journal.entry(work.id) if journal else None
    try:
        verdict = judge(entry, wish(request, bundle), work.files(request.options), outputs, checksums=options.checksums)
        if verdict.why is None and not template.overwrite:
            return {"id": work.id, "would": "skip", "map": str(outputs.map)}
        ours = entry is not None and bool(entry.outputs)
        folder = out if out.is_dir() else Path()
        probe = replace(request, overwrite=True, output=folder / outputs.map.name)
        plan = plan_run(probe, bundle=bundle)
        if out.is_dir():
            refuse_existing(outputs, overwrite=ours or template.overwrite)
    except MMEdgeError as err:
        return {"id": work.id, "would": "fail", "reason": str(err), "hint": err.hint}
    told = {"reads": plan["reads"], "writes": [str(path) for path in outputs.paths], "sensors": plan["sensors"]}
    return {"id": work.id, "would": "map", "why": verdict.why or "--overwrite", **told}
