"""`mmedge bundle create`: any ONNX network as a bundle."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from mmedge.cli import options as o
from mmedge.cli.console import Console

NAME = "bundle"

group = typer.Typer(
    help="""Make model bundles.

    Example: mmedge bundle create unet.onnx -o unet --bands optical=B02,B03,B04,B08 --classes water,trees,crops --gsd 10
    """,
    rich_markup_mode=None,
)


@group.callback()
def _group() -> None:
    pass


@group.command("create")
def create(
    network: Annotated[Path, typer.Argument(metavar="MODEL.onnx", help="A segmentation or classification network.")],
    output: Annotated[Path, typer.Option("-o", "--output", help="The bundle's folder.")],
    describe: Annotated[
        Path | None, typer.Option("--describe", help="A YAML or JSON file that says the same as the flags.")
    ] = None,
    bands: Annotated[
        list[str] | None,
        typer.Option("--bands", metavar="SENSOR=B1,B2,...", help="Bands of an input, in its order; one flag an input."),
    ] = None,
    unit: Annotated[
        list[str] | None,
        typer.Option("--input-unit", metavar="SENSOR=UNIT", help="reflectance, dB, m or raw (the file's numbers)."),
    ] = None,
    mean: Annotated[
        list[str] | None,
        typer.Option("--mean", metavar="SENSOR=M1,M2,...", help="The network sees (x - mean) / std."),
    ] = None,
    std: Annotated[
        list[str] | None,
        typer.Option("--std", metavar="SENSOR=S1,S2,...", help="As --mean: one value, or one a band."),
    ] = None,
    fill: Annotated[
        list[str] | None,
        typer.Option("--fill", metavar="SENSOR=F1,F2,...", help="What invalid pixels become. Default: the mean."),
    ] = None,
    classes: Annotated[
        list[str] | None,
        typer.Option("--classes", metavar="NAME,...", help="In the order of the outputs; VALUE:NAME:COLOUR says more."),
    ] = None,
    gsd: Annotated[float | None, typer.Option("--gsd", help="Metres a pixel.", show_default=False)] = None,
    window: Annotated[
        int | None, typer.Option("--window", min=8, help="Pixels a window. Default: the network's own, or fitting.")
    ] = None,
    step: Annotated[
        int | None, typer.Option("--step", min=1, help="Distance of windows that cannot be tiled exactly.")
    ] = None,
    name: Annotated[str | None, typer.Option("--name", help="Default: the file's name.", show_default=False)] = None,
    license_: Annotated[str | None, typer.Option("--license", help="SPDX name of the weights' licence.")] = None,
    overwrite: o.Overwrite = False,
    strict: o.Strict = False,
    as_json: o.Json = False,
    quiet: o.Quiet = False,
) -> int:
    """Wrap a third party's ONNX network into a bundle; its receptive field and stride are measured.

    Example: mmedge bundle create unet.onnx -o unet --bands optical=B02,B03,B04,B08 --classes water,trees,crops --gsd 10

    A file of --describe, in YAML: `inputs: {optical: {bands: [B02, B03, B04, B08], mean: 0.1, std: 0.05}}`, `classes:
    [water, trees, {value: 3, name: crops, color: 33a02c}]`, `gsd_m: 10`.
    """
    from mmedge.extras import need

    for module in ("onnx", "safetensors"):
        need(module, extra="export")
    from mmedge.edge.thirdparty.create import create_bundle
    from mmedge.edge.thirdparty.description import merged, read_description

    console = Console(quiet=quiet)
    inputs: dict[str, dict[str, Any]] = {}
    fields = (("bands", bands), ("input-unit", unit), ("mean", mean), ("std", std), ("fill", fill))
    for field, given in fields:
        for sensor, values in o.assignments(f"--{field}", given).items():
            key, value = ("unit", values[0]) if field == "input-unit" else (field, values)
            inputs.setdefault(sensor, {})[key] = value
    flags = {
        "name": name,
        "license": license_,
        "gsd_m": gsd,
        "inputs": inputs,
        "classes": [_class(text) for text in o.commas(classes)],
        "window_px": window,
        "step_px": step,
    }
    made = create_bundle(
        network, output, merged(read_description(describe) if describe else {}, flags), overwrite=overwrite
    )
    for warning in made.warnings:
        console.warn(warning)
    document = made.document()
    console.note("\n".join(f"{key}: {value}" for key, value in document.items() if key not in ("schema", "bundle")))
    console.data(document, str(output), as_json=as_json)
    return 1 if strict and console.warned else 0


def _class(text: str) -> dict[str, Any]:
    """`trees`, `2:trees` or `2:trees:33a02c`."""
    parts = text.split(":")
    if len(parts) == 1:
        return {"name": text}
    return {"value": parts[0], "name": parts[1], "color": parts[2] if len(parts) > 2 else None}
