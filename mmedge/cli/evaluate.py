"""`mmedge evaluate`: what a bundle or a finished map is worth."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from mmedge.cli import options as o
from mmedge.cli.console import Console
from mmedge.errors import UsageError

NAME = "evaluate"


def run(
    thing: Annotated[
        str, typer.Argument(metavar="MODEL|MAP", help="A bundle, a built-in model, or a finished map.tif.")
    ],
    labels: o.Labels = None,
    field: o.Field = None,
    scene: Annotated[
        str | None, typer.Option("--scene", help="The scene to map, as for infer.", show_default=False)
    ] = None,
    source: o.Source = None,
    bands: o.Bands = None,
    scale: o.Scale = None,
    unit: o.Unit = None,
    reference: o.Reference = None,
    mask: o.Mask = None,
    part: Annotated[
        str, typer.Option("--part", help="test: no pixel that trained or validated the model; all: those too.")
    ] = "test",
    eta: Annotated[
        list[str] | None, typer.Option("--eta", help="Shares of data that lack a sensor, for mixtures: 0.3,0.7.")
    ] = None,
    oracle: Annotated[
        bool, typer.Option("--oracle", help="The method's own upper bound too (MARS, DyMo); needs torch.")
    ] = False,
    output: Annotated[
        Path | None,
        typer.Option("-o", "--output", help="Default: <name>_evaluation.json, .md and .png here.", show_default=False),
    ] = None,
    threads: o.Threads = 0,
    backend: o.Backend = "auto",
    precision: o.Precision = "fp32",
    overwrite: o.Overwrite = False,
    dry_run: o.DryRun = False,
    strict: o.Strict = False,
    as_json: o.Json = False,
    quiet: o.Quiet = False,
) -> int:
    """Score a model on a labelled scene with every set of its sensors, or a finished map against reference data.

    Example: mmedge evaluate my-model --scene scene.tif --labels classes.tif
    Example: mmedge evaluate scene_map.tif --labels points.gpkg --field class

    Writes <name>_evaluation.json, .md and .png (confusion matrices; needs matplotlib).
    """
    from mmedge.edge.evaluation.report import markdown, report_files, write_report
    from mmedge.edge.evaluation.run import EvaluateRequest, evaluate, plan_evaluation
    from mmedge.files import refuse_unwritable
    from mmedge.geo_io.labels import LabelFile

    console = Console(quiet=quiet)
    if labels is None:
        raise UsageError("no reference given", hint="--labels classes.tif, or --labels points.gpkg --field class")
    request = EvaluateRequest(
        thing=thing,
        labels=LabelFile(path=labels, field=field),
        scene=o.place(scene),
        options=o.scene_options(source=source, bands=bands, scale=scale, unit=unit, reference=reference, mask=mask),
        part=part,
        etas=_shares(o.commas(eta)),
        oracle=oracle,
        backend=backend,
        precision=precision,
        threads=threads,
    )
    name = Path(thing).stem if request.is_map else Path(thing).name
    files = report_files(output or Path(f"{name}_evaluation.json"))
    refuse_unwritable(list(files.values()), overwrite=overwrite)
    if dry_run:
        reads, writes = plan_evaluation(request), [str(path) for path in files.values()]
        plan = {"schema": "mmedge.plan/1", "reads": list(reads), "writes": writes}
        console.data(plan, "\n".join(f"{k}: {v}" for k, v in plan.items()), as_json=as_json)
        return 0
    with console.progress("evaluating", unit="sets of sensors", per_unit=1) as progress:
        document = evaluate(request, warn=console.warn, note=console.note, progress=progress.update)
    write_report(files, document, note=console.note)
    console.data(document, markdown(document), as_json=as_json)
    return 1 if strict and console.warned else 0


def _shares(values: list[str]) -> tuple[float, ...]:
    try:
        return tuple(map(float, values))
    except ValueError:
        raise UsageError(f"`--eta {','.join(values)}` is no list of numbers", hint="--eta 0.3,0.7") from None
