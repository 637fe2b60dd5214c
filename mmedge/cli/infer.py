"""`mmedge infer`: a scene in, a map out."""

from __future__ import annotations

from typing import Annotated

import typer

from mmedge.cli import options as o
from mmedge.cli.console import Console

NAME = "infer"


def run(
    scene: o.Scene = None,
    available: o.Available = None,
    output: o.Output = None,
    source: o.Source = None,
    bands: o.Bands = None,
    crs: o.Crs = None,
    fill_voids: o.FillVoids = 0,
    scale: o.Scale = None,
    unit: o.Unit = None,
    reference: o.Reference = None,
    item: o.Item = None,
    allow_remote: o.AllowRemote = False,
    mask: o.Mask = None,
    screen: o.Screen = False,
    speckle: o.Speckle = None,
    bbox: o.Bbox = None,
    aoi: o.Aoi = None,
    probs: o.Probs = False,
    when: Annotated[str | None, typer.Option("--datetime", help="When the scene was acquired (ISO 8601).")] = None,
    model: o.Model = "mamol-terra",
    backend: o.Backend = "auto",
    strict_device: o.StrictDevice = False,
    precision: o.Precision = "fp32",
    threads: o.Threads = 0,
    batch: Annotated[
        int | None, typer.Option(min=1, help="Windows a batch; by default what suits the backend and the scene.")
    ] = None,
    cells: Annotated[
        int, typer.Option("--tile", min=1, help="Windows along a tile's side; the map does not depend on it.")
    ] = 8,
    max_memory: o.MaxMemory = None,
    tune: o.Tune = False,
    overwrite: o.Overwrite = False,
    dry_run: o.DryRun = False,
    strict: o.Strict = False,
    as_json: o.Json = False,
    quiet: o.Quiet = False,
    verbose: o.Verbose = False,
) -> int:
    """Map a scene with the sensors that it has.

    Example: mmedge infer scene.tif --available sar,optical

    Writes <scene>_map.tif (classes), _confidence.tif, _sensors.tif (which sensors each pixel was made from), .json (a
    STAC item) and .png (a picture).
    """
    from mmedge.edge.infer import plan_run
    from mmedge.edge.infer import run as map_scene
    from mmedge.edge.request import Request

    console = Console(quiet=quiet, verbose=verbose)
    request = Request(
        scene=o.place(scene),
        options=o.scene_options(
            source=source,
            bands=bands,
            crs=crs,
            fill_voids=fill_voids,
            scale=scale,
            unit=unit,
            reference=reference,
            item=item,
            allow_remote=allow_remote,
            mask=mask,
            screen=screen,
            speckle=speckle,
        ),
        available=tuple(o.commas(available)) or None,
        output=output,
        bbox=o.bounds(bbox),
        aoi=aoi,
        probs=probs,
        datetime=when,
        model=model,
        backend=backend,
        strict_device=strict_device,
        precision=precision,
        threads=threads,
        max_memory=o.size(max_memory),
        tune=tune,
        batch=batch,
        cells=cells,
        overwrite=overwrite,
    )
    if dry_run:
        plan = plan_run(request, warn=console.warn)
        console.data(plan, "\n".join(f"{k}: {v}" for k, v in plan.items()), as_json=as_json)
        return 0
    with console.progress("mapping") as progress:
        record = map_scene(request, warn=console.warn, detail=console.detail, progress=progress.update)
    for note in record.provenance.assumptions:
        console.note(f"note: {note}")
    console.note(f"{record.summary()}; {record.stages()}")
    console.detail(record.timing())
    console.data(record.document(), str(record.outputs.map), as_json=as_json)
    return 1 if strict and console.warned else 0
