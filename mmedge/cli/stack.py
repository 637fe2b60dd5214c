"""`mmedge stack`: files of several sensors -> one scene.tif."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from mmedge.cli import options as o
from mmedge.cli.console import Console

NAME = "stack"


def run(
    source: o.Source = None,
    output: Annotated[Path, typer.Option("-o", "--output", help="The scene to write.")] = Path("scene.tif"),
    bands: o.Bands = None,
    crs: o.Crs = None,
    fill_voids: o.FillVoids = 0,
    scale: o.Scale = None,
    unit: o.Unit = None,
    reference: o.Reference = None,
    mask: o.Mask = None,
    screen: o.Screen = False,
    speckle: o.Speckle = None,
    overwrite: o.Overwrite = False,
    dry_run: o.DryRun = False,
    strict: o.Strict = False,
    as_json: o.Json = False,
    quiet: o.Quiet = False,
) -> int:
    """Put files of several sensors, on whatever grids, into one scene.

    Example: mmedge stack --source optical=s2.tif --source sar=s1.tif --source elevation=dem.tif -o scene.tif
    """
    from mmedge.geo_io.scene import open_scene
    from mmedge.geo_io.stack import stack

    console = Console(quiet=quiet)
    options = o.scene_options(
        source=source,
        bands=bands,
        crs=crs,
        fill_voids=fill_voids,
        scale=scale,
        unit=unit,
        reference=reference,
        mask=mask,
        screen=screen,
        speckle=speckle,
    )
    with open_scene(None, None, options) as scene:
        for warning in scene.warnings:
            console.warn(warning)
        for note in scene.assumptions:
            console.note(f"note: {note}")
        if not dry_run:
            stack(scene, output, overwrite=overwrite)
        document = {
            "schema": "mmedge.stack/1",
            "output": str(output),
            "written": not dry_run,
            "bands": [f"{sensor}:{band}" for sensor, s in scene.sources.items() for band in s.info.bands],
        }
    console.data(document, str(output), as_json=as_json)
    return 1 if strict and console.warned else 0
