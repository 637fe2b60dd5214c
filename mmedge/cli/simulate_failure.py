"""`mmedge simulate-failure`: a scene with a sensor failure of known position."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, cast

import typer

from mmedge.cli import options as o
from mmedge.cli.console import Console

if TYPE_CHECKING:
    from mmedge.geo_io.failures.causes import Cause

NAME = "simulate-failure"


def run(
    scene: Annotated[Path, typer.Argument(help="A GeoTIFF with `sensor:band` names.", show_default=False)],
    sensor: Annotated[str, typer.Option("--sensor", help="Whose bands fail.", show_default=False)],
    cause: Annotated[
        str, typer.Option("--cause", help="cloud, dead_line, slc_off, missing_swath, ...", show_default=False)
    ],
    output: Annotated[Path, typer.Option("-o", "--output", help="The scene to write.")] = Path("failed.tif"),
    fraction: Annotated[float, typer.Option(help="Share of the pixels that fail, about.")] = 0.1,
    seed: Annotated[int, typer.Option(help="The same seed gives the same failure.")] = 0,
    declared: Annotated[
        bool | None,
        typer.Option(
            "--declared/--hidden", help="Failed pixels become nodata, or look like data. Default: as the cause does."
        ),
    ] = None,
    overwrite: o.Overwrite = False,
    as_json: o.Json = False,
) -> int:
    """Copy a scene and let one of its sensors fail, for tests and robustness curves.

    Example: mmedge simulate-failure scene.tif --sensor optical --cause cloud --fraction 0.3 -o cloudy.tif
    """
    from mmedge.geo_io.bands import sensor_name
    from mmedge.geo_io.failures.simulate_scene import simulate_failure

    record = simulate_failure(
        scene,
        output,
        sensor=sensor_name(sensor),
        cause=cast("Cause", cause),
        fraction=fraction,
        seed=seed,
        declared=declared,
        overwrite=overwrite,
    )
    Console().data(record, str(output), as_json=as_json)
    return 0
