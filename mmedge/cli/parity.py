"""`mmedge parity`: two backends or precisions on the same real windows."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from mmedge.cli import options as o
from mmedge.cli.console import Console
from mmedge.errors import UsageError

if TYPE_CHECKING:
    from mmedge.edge.parity import ParityReport

NAME = "parity"


def run(
    model: Annotated[str, typer.Argument(help="A built-in model, or a bundle folder.")],
    scenes: Annotated[
        str | None, typer.Option("--scenes", help="The scene whose windows are run.", show_default=False)
    ] = None,
    first: Annotated[
        str, typer.Option("--first", metavar="BACKEND:PRECISION", help="What the other is judged by.")
    ] = "openvino:fp32",
    second: Annotated[
        str, typer.Option("--second", metavar="BACKEND:PRECISION", help="What is judged.")
    ] = "onnxruntime:fp32",
    available: o.Available = None,
    layers: Annotated[bool, typer.Option("--layers", help="Every layer too, the worst first (in OpenVINO).")] = False,
    windows: Annotated[int, typer.Option("--windows", min=1, help="At most, for each graph.")] = 64,
    least: Annotated[
        float | None, typer.Option("--min-agreement", help="Exit 1 below this percentage of equal classes.")
    ] = None,
    as_json: o.Json = False,
) -> int:
    """Compare two backends or precisions: max and mean difference, SQNR, class agreement, for each set of sensors.

    Example: mmedge parity mamol-terra --scenes scene.tif --first openvino:fp32 --second onnxruntime:fp32
    """
    from mmedge.bundle import open_bundle
    from mmedge.edge.parity import Side, parity
    from mmedge.geo_io.location import locate
    from mmedge.geo_io.scene import open_scene
    from mmedge.modality import Availability

    if not scenes:
        raise UsageError("no scene to compare on", hint="--scenes scene.tif")
    bundle = open_bundle(model)
    names = o.commas(available)
    if unknown := set(names) - set(bundle.order):
        raise UsageError(f"`{sorted(unknown)[0]}` is no sensor of `{bundle.name}`", hint=", ".join(bundle.order))
    only = [Availability.of(names, bundle.order)] if names else None
    with open_scene(locate(scenes), bundle.modalities) as scene:
        report = parity(
            bundle, scene, Side.parse(first), Side.parse(second), availabilities=only, most=windows, layers=layers
        )
    Console().data(report.document(), text(report), as_json=as_json)
    worst = min(100 * d.agreement for d in report.graphs.values())
    return 1 if least is not None and worst < least else 0


def text(report: ParityReport) -> str:
    """The tables, for people."""
    head = f"{report.second} against {report.first}"
    width = max(map(len, [*report.graphs, *report.layers]))
    lines = [f"{head}\n{'graph':{width}s}  windows   max diff  mean diff  SQNR dB  agreement %"]
    lines += [
        f"{name:{width}s} {report.windows[name]:8d} {d.max_abs:10.2e} {d.mean_abs:10.2e} {d.sqnr_db:8.1f} "
        f"{100 * d.agreement:12.3f}"
        for name, d in report.graphs.items()
    ]
    if report.layers:
        lines.append(f"\n{'layer':{width}s}   max diff  mean diff  SQNR dB")
        lines += [
            f"{name:{width}s} {d.max_abs:10.2e} {d.mean_abs:10.2e} {d.sqnr_db:8.1f}"
            for name, d in report.layers.items()
        ]
    return "\n".join(lines)
