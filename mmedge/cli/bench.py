"""`mmedge bench`: how fast a model is on this machine, and what it costs."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from mmedge.cli import options as o
from mmedge.cli.console import Console

NAME = "bench"


def run(
    model: Annotated[str, typer.Argument(help="A built-in model, or a bundle folder.")] = "mamol-terra",
    scene: Annotated[str | None, typer.Option("--scene", help="Measure a whole run on this scene too.")] = None,
    available: o.Available = None,
    backend: Annotated[str, typer.Option("--backend", envvar="MMEDGE_BACKEND", help="One, or several.")] = "auto",
    precision: Annotated[str, typer.Option("--precision", envvar="MMEDGE_PRECISION", help="One, or several.")] = "fp32",
    matrix: Annotated[bool, typer.Option("--matrix", help="Every backend with every precision.")] = False,
    scenario: Annotated[
        str, typer.Option("--scenario", help="single-stream, offline, or both.")
    ] = "single-stream,offline",
    batch: Annotated[
        str | None,
        typer.Option("--batch", help="Windows a batch; several for a curve. By default what suits a backend."),
    ] = None,
    mixed: Annotated[bool, typer.Option("--mixed", help="The graphs for mixed windows too.")] = False,
    threads: o.Threads = 0,
    warmup: Annotated[float, typer.Option("--warmup", min=0.0, help="Seconds a row, not counted.")] = 1.0,
    duration: Annotated[float, typer.Option("--duration", min=0.01, help="Seconds a row.")] = 5.0,
    count: Annotated[int | None, typer.Option("--count", min=1, help="Batches a row, instead of seconds.")] = None,
    idle: Annotated[float, typer.Option("--idle", min=0.1, help="Seconds of idle power before.")] = 2.0,
    output: Annotated[Path | None, typer.Option("-o", "--output", help="The report as JSON.")] = None,
    html: Annotated[Path | None, typer.Option("--html", help="The report as one page with plots.")] = None,
    text: Annotated[Path | None, typer.Option("--markdown", help="The report as Markdown.")] = None,
    compare: Annotated[
        tuple[Path, Path] | None, typer.Option("--compare", metavar="A.json B.json", help="Compare two reports.")
    ] = None,
    overwrite: o.Overwrite = False,
    as_json: o.Json = False,
    quiet: o.Quiet = False,
) -> int:
    """Measure latency, throughput, memory and energy of a model, for every set of sensors.

    Example: mmedge bench mamol-terra --scene scene.tif --html bench.html
    """
    from mmedge.edge.bench.table import compared, markdown

    console = Console(quiet=quiet)
    if compare is not None:
        from mmedge.edge.bench.compare import compare as compare_reports
        from mmedge.edge.bench.compare import read_report

        found = compare_reports(*map(read_report, compare))
        if not (found["same_machine"] and found["same_model"]):
            console.warn("the reports are of different machines or models: other things than the code changed")
        console.data(found, compared(found), as_json=as_json)
        return 0
    import json

    from mmedge.bundle import open_bundle
    from mmedge.edge.bench.page import page
    from mmedge.edge.bench.run import BenchOptions, bench
    from mmedge.edge.request import Request
    from mmedge.edge.runtime.open import BACKENDS
    from mmedge.files import refuse_unwritable, written_together

    outputs = [path for path in (output, html, text) if path is not None]
    refuse_unwritable(outputs, overwrite=overwrite)
    bundle = open_bundle(model)
    backends, precisions = o.commas([backend]), o.commas([precision])
    if matrix:
        backends, precisions = list(BACKENDS[1:]), ["fp32", "bf16", "int8"]
    place = o.place(scene)
    request = Request(scene=place, model=model, backend=backends[0], precision=precisions[0], threads=threads)
    options = BenchOptions(
        backends=tuple(backends),
        precisions=tuple(precisions),
        scenarios=tuple(o.commas([scenario])),
        batches=tuple(_sizes(batch)) if batch else (None,),
        available=tuple(o.commas(available)) or None,
        mixed=mixed,
        threads=threads,
        warmup_s=warmup,
        duration_s=duration,
        count=count,
        idle_s=idle,
    )
    report = bench(bundle, options, scene=request if place else None, say=console.note)
    table = markdown(report)
    contents = {output: json.dumps(report, indent=1) + "\n", html: page(report), text: table}
    with written_together(outputs) as parts:
        for path, part in zip(outputs, parts, strict=True):
            part.write_text(contents[path], encoding="utf-8")
    console.data(report, table, as_json=as_json)
    return 1 if all("error" in row for row in report["rows"]) else 0


def _sizes(text: str) -> list[int]:
    from mmedge.errors import UsageError

    try:
        sizes = [int(part) for part in o.commas([text])]
    except ValueError:
        sizes = []
    if not sizes or min(sizes) < 1:
        raise UsageError(f"`--batch {text}` is no list of sizes", hint="--batch 1,4,16")
    return sizes
