"""`mmedge batch`: many scenes in, a folder of maps out."""

from __future__ import annotations

import json
import sys
from contextlib import redirect_stdout
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from mmedge.cli import options as o
from mmedge.cli.console import Console
from mmedge.errors import UsageError

if TYPE_CHECKING:
    from mmedge.edge.batch.summary import Result, Summary

NAME = "batch"
Out = Annotated[Path, typer.Option("-o", "--out", metavar="DIR", help="Folder of the maps; made if it is not there.")]
Pattern = Annotated[
    list[str] | None,
    typer.Option(
        "--pattern",
        metavar="PATTERN",
        help="Pair the files of a scene: '{id}_{sensor}.tif', or 'optical={id}/S2*.tif'; repeat for more.",
    ),
]
Require = Annotated[
    list[str] | None, typer.Option("--require", metavar="SENSORS", help="A scene without these sensors fails.")
]
Engine = Annotated[str, typer.Option("--engine", help="local, or ray: a cluster.")]
Workers = Annotated[
    int | None,
    typer.Option(
        envvar="MMEDGE_WORKERS",
        min=1,
        help="Processes, each of which opens the model. Default: 1, with Ray as many as fit.",
        show_default=False,
    ),
]
Retries = Annotated[
    int | None,
    typer.Option(min=0, help="More attempts where another may help. Default: 0, with Ray 2.", show_default=False),
]
Timeout = Annotated[
    float | None, typer.Option("--timeout", metavar="SECONDS", min=0.1, help="A scene that takes longer fails.")
]


def run(
    inputs: Annotated[
        list[str] | None,
        typer.Argument(help="Folders, globs, rasters, STAC documents, lists (*.txt).", show_default=False),
    ] = None,
    out: Out = Path("maps"),
    pattern: Pattern = None,
    available: o.Available = None,
    require: Require = None,
    bands: o.Bands = None,
    crs: o.Crs = None,
    fill_voids: o.FillVoids = 0,
    scale: o.Scale = None,
    unit: o.Unit = None,
    reference: o.Reference = None,
    allow_remote: o.AllowRemote = False,
    mask: o.Mask = None,
    screen: o.Screen = False,
    speckle: o.Speckle = None,
    bbox: o.Bbox = None,
    aoi: o.Aoi = None,
    probs: o.Probs = False,
    model: o.Model = "mamol-terra",
    backend: o.Backend = "auto",
    strict_device: o.StrictDevice = False,
    precision: o.Precision = "fp32",
    engine: Engine = "local",
    address: Annotated[
        str | None, typer.Option(metavar="HOST:PORT", help="Of a running Ray cluster, or `auto`.")
    ] = None,
    workers: Workers = None,
    threads: Annotated[int, typer.Option(min=0, help="Of each worker; 0: its share of the cores.")] = 0,
    gpus: Annotated[int, typer.Option(min=0, help="Of each worker, with Ray.")] = 0,
    retries: Retries = None,
    timeout: Timeout = None,
    fail_fast: Annotated[bool, typer.Option("--fail-fast", help="Stop at the first scene that fails.")] = False,
    shard: Annotated[str, typer.Option(metavar="I/N", help="Do the I-th of N parts of the work.")] = "1/1",
    checksum: Annotated[
        bool, typer.Option("--checksum", help="Know inputs by their sha256, not by size and modification time.")
    ] = False,
    strips_from: Annotated[
        float, typer.Option(metavar="MPX", min=0, help="Larger scenes are resumed in their middle.")
    ] = 4.0,
    max_memory: o.MaxMemory = None,
    tune: o.Tune = False,
    overwrite: o.Overwrite = False,
    dry_run: o.DryRun = False,
    strict: o.Strict = False,
    as_json: o.Json = False,
    quiet: o.Quiet = False,
    verbose: o.Verbose = False,
) -> int:
    """Map many scenes; what is up to date is skipped, what fails does not stop the others.

    Example: mmedge batch scenes/ --out maps

    The same command again goes on where it stopped, however it was stopped. Prints the map of each scene that is up to
    date now (--json: a line for each scene); exit code 1 where a scene failed.
    """
    from mmedge.bundle import open_bundle
    from mmedge.cli.table import batch_table
    from mmedge.edge.batch.orders import BatchOptions, plan_batch
    from mmedge.edge.batch.run import run_batch
    from mmedge.edge.batch.worklist import find_work
    from mmedge.edge.request import Request

    if not inputs:
        raise UsageError("no scenes given", hint="mmedge batch scenes/ --out maps")
    console = Console(quiet=quiet, verbose=verbose)
    template = Request(
        scene=None,
        options=o.scene_options(
            bands=bands,
            crs=crs,
            fill_voids=fill_voids,
            scale=scale,
            unit=unit,
            reference=reference,
            allow_remote=allow_remote,
            mask=mask,
            screen=screen,
            speckle=speckle,
        ),
        available=tuple(o.commas(available)) or None,
        require=tuple(o.commas(require)),
        bbox=o.bounds(bbox),
        aoi=aoi,
        probs=probs,
        model=model,
        backend=backend,
        strict_device=strict_device,
        precision=precision,
        threads=threads,
        max_memory=o.size(max_memory),
        tune=tune,
        overwrite=overwrite,
    )
    if engine not in ("local", "ray"):
        raise UsageError(f"no engine `{engine}`", hint="--engine local, or --engine ray")
    if engine == "local" and (address or gpus):
        raise UsageError("`--address` and `--gpus` are of a Ray cluster", hint="--engine ray")
    options = BatchOptions(
        engine="ray" if engine == "ray" else "local",
        address=address,
        gpus=gpus,
        workers=workers,
        retries=(2 if engine == "ray" else 0) if retries is None else retries,
        timeout_s=timeout,
        fail_fast=fail_fast,
        checksums=checksum,
        shard=_shard(shard),
        strips_from_px=int(strips_from * 1e6),
    )
    found = find_work(inputs, patterns=pattern or (), sensors=open_bundle(model).order)
    if found.ignored:
        console.note(f"note: {len(found.ignored)} files fit no pattern, such as {found.ignored[0].name}")
    if dry_run:
        return _say_plan(plan_batch(found.works, out, template, options), console, as_json=as_json)
    stdout = sys.stdout  # for maps alone: Ray, too, prints there
    with (
        redirect_stdout(sys.stderr),
        batch_table(console, sum(work.id in options.shard for work in found.works)) as table,
    ):

        def report(result: Result) -> None:
            table.finished(result)
            if as_json:
                print(json.dumps(result.document(), ensure_ascii=False), file=stdout, flush=True)
            elif result.status != "failed":
                print(result.map, file=stdout, flush=True)

        summary = run_batch(found.works, out, template, options, report=report, tick=table.tick)
    return _say(summary, console, as_json=as_json, strict=strict)


def _shard(text: str) -> Any:
    from mmedge.edge.batch.worklist import Shard

    try:
        index, count = (int(number) for number in text.split("/"))
    except ValueError:
        index, count = 0, 0
    if not 1 <= index <= count:
        raise UsageError(f"`--shard {text}` is not I/N with 1 <= I <= N", hint="--shard 1/4")
    return Shard(index, count)


def _say_plan(plan: list[dict[str, Any]], console: Console, *, as_json: bool) -> int:
    for scene in plan:
        why = scene.get("why") or scene.get("reason") or "up to date"
        told = {"schema": "mmedge.batch.plan/1", **scene}
        print(json.dumps(told, ensure_ascii=False) if as_json else f"{scene['would']:5} {scene['id']}: {why}")
    return 1 if any(scene["would"] == "fail" for scene in plan) else 0


def _say(summary: Summary, console: Console, *, as_json: bool, strict: bool) -> int:
    console.note(summary.text())
    if as_json:
        print(json.dumps(summary.document(), ensure_ascii=False), flush=True)
    return 1 if summary.failed or (strict and summary.warnings) else 0
