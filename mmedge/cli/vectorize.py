"""`mmedge vectorize`: a map -> polygons of its classes."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from mmedge.cli import options as o
from mmedge.cli.console import Console

NAME = "vectorize"


def run(
    path: Annotated[Path, typer.Argument(metavar="MAP", help="A map, as `mmedge infer` makes it.", show_default=False)],
    output: Annotated[
        o.OptionalPath,
        typer.Option("-o", "--output", help="Default: <map>.gpkg in this folder.", show_default=False),
    ] = None,
    min_area: Annotated[
        float, typer.Option(metavar="HA", min=0, help="Smaller patches go to their largest neighbour.")
    ] = 0.0,
    simplify: Annotated[
        float, typer.Option(metavar="M", min=0, help="Tolerance of simplified edges; neighbours keep sharing them.")
    ] = 0.0,
    overwrite: o.Overwrite = False,
    dry_run: o.DryRun = False,
    as_json: o.Json = False,
    quiet: o.Quiet = False,
) -> int:
    """Turn a map into polygons of its classes.

    Example: mmedge vectorize scene_map.tif --min-area 0.5 --simplify 15
    """
    from mmedge.extras import need
    from mmedge.geo_io.maps.vectors import plan_polygons, read_map, vectorize

    for module in ("pyogrio", "shapely"):
        need(module)
    console = Console(quiet=quiet)
    target = plan_polygons(path, output, overwrite=overwrite)
    document: dict[str, Any] = {"schema": "mmedge.vectorize/1", "reads": str(path), "output": str(target)}
    if dry_run:
        read_map(path)
    else:
        count = vectorize(path, target, min_area_ha=min_area, simplify_m=simplify, overwrite=overwrite)
        document["polygons"] = count
        console.note(f"{count} polygons")
    console.data(document, str(target), as_json=as_json)
    return 0
