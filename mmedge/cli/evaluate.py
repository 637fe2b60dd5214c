"""`mmedge evaluate`: what a bundle or a finished map is worth."""

from __future__ import annotations

import json
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from mmedge.cli import options as o
from mmedge.cli.console import Console
from mmedge.errors import UsageError

if TYPE_CHECKING:
    from mmedge.bundle import Bundle
    from mmedge.geo_io.gather import SceneOptions
    from mmedge.geo_io.labels import LabelFile, Labels
    from mmedge.geo_io.location import Location
    from mmedge.geo_io.scene import Scene

NAME = "evaluate"
PARTS = ("test", "all")


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
    from mmedge.geo_io.labels import LabelFile

    console = Console(quiet=quiet)
    if labels is None:
        raise UsageError("no reference given", hint="--labels classes.tif, or --labels points.gpkg --field class")
    if part not in PARTS:
        raise UsageError(f"no part `{part}`", hint="--part test, or --part all")
    etas = _shares(o.commas(eta))
    is_map = Path(thing).suffix.lower() in (".tif", ".tiff")
    target = output or Path(f"{Path(thing).stem if is_map else Path(thing).name}_evaluation.json")
    paths = _outputs(target, overwrite=overwrite)
    reference_file = LabelFile(path=labels, field=field)
    options = o.scene_options(source=source, bands=bands, scale=scale, unit=unit, reference=reference, mask=mask)
    if dry_run:
        plan = _plan(thing, None if is_map else o.place(scene), options, reference_file, paths)
        console.data(plan, "\n".join(f"{k}: {v}" for k, v in plan.items()), as_json=as_json)
        return 0
    if is_map:
        from mmedge.edge.evaluation.map_score import score_map

        document = score_map(Path(thing), reference_file, warn=console.warn)
        pictures = {"all": document["confusion"]}
    else:
        document = _bundle(
            thing, o.place(scene), options, reference_file, part, etas, threads, backend, oracle, console
        )
        pictures = document["confusion"]
    _write(paths, document, pictures, console)
    from mmedge.edge.evaluation.report import markdown

    console.data(document, markdown(document), as_json=as_json)
    return 1 if strict and console.warned else 0


def _shares(values: list[str]) -> list[float]:
    try:
        found = [float(v) for v in values]
    except ValueError:
        found = [-1.0]
    if any(not 0 <= v <= 1 for v in found):
        raise UsageError(f"`--eta {','.join(values)}`: shares lie between 0 and 1", hint="--eta 0.3,0.7")
    return found


def _outputs(target: Path, *, overwrite: bool) -> dict[str, Path]:
    """JSON, Markdown and picture; refused before any work where one of them cannot be written."""
    from mmedge.files import refuse_unwritable

    paths = {kind: target.with_suffix(f".{kind}") for kind in ("md", "png", "json")}
    refuse_unwritable(list(paths.values()), overwrite=overwrite)
    return paths


def _plan(
    thing: str, scene: Location | None, options: SceneOptions, labels: LabelFile, paths: dict[str, Path]
) -> dict[str, Any]:
    """What a run would read and write; fails where something cannot be opened."""
    from mmedge.bundle import open_bundle
    from mmedge.geo_io.labels import values_of
    from mmedge.geo_io.rasters.header import inspect_raster
    from mmedge.geo_io.scene import open_scene

    values_of(labels)
    reads = [thing, str(labels.path)]
    if thing.lower().endswith((".tif", ".tiff")):
        inspect_raster(Path(thing))
    else:
        with open_scene(scene, open_bundle(thing).modalities, options) as opened:
            reads += [str(file) for file in opened.files]
    return {"schema": "mmedge.plan/1", "reads": reads, "writes": [str(path) for path in paths.values()]}


def _bundle(
    model: str,
    scene: Location | None,
    options: SceneOptions,
    labels: LabelFile,
    part: str,
    etas: list[float],
    threads: int,
    backend: str,
    oracle: bool,
    console: Console,
) -> dict[str, Any]:
    """Scores of a bundle, as JSON of schema `mmedge.evaluate/1`."""
    from mmedge.bundle import open_bundle
    from mmedge.edge.device import threads_available
    from mmedge.edge.evaluation.evaluate import cost, judge, report, unseen
    from mmedge.edge.runtime.open import open_runtime
    from mmedge.edge.runtime.session import Engines
    from mmedge.extras import need
    from mmedge.geo_io.labels import read_labels
    from mmedge.geo_io.scene import open_scene

    if oracle:
        need("torch")
    bundle = open_bundle(model)
    threads = threads or threads_available()
    runtime, _ = open_runtime(backend, precision="fp32", threads=threads)
    engines = Engines(bundle, runtime)
    with open_scene(scene, bundle.modalities, options) as opened:
        for text in opened.warnings:
            console.warn(text)
        known = read_labels(labels, opened.grid, bundle.classes)
        if part == "test":
            kept = unseen(known, bundle, opened.grid)
            if (kept != known).any():
                console.note(
                    f"note: {int((kept != known).sum())} labelled pixels trained or validated `{bundle.name}` and are "
                    "left out; --part all takes them too"
                )
            known = kept
        with console.progress("evaluating", unit="sets of sensors", per_unit=1) as progress:
            judged = judge(opened, known, engines, threads=threads, progress=progress.update)
        name = opened.name
        bounds = _oracle(bundle, opened, known, console) if oracle else {}
    return {
        "schema": "mmedge.evaluate/1",
        "model": bundle.name,
        "sha256": bundle.sha256,
        "scene": name,
        "part": part,
        "pixels": len(judged.reference),
        "classes": [c.name for c in bundle.classes],
        **report(judged, bundle, etas),
        "oracle_method": bounds,
        "parameters": bundle.item["properties"].get("mlm:total_parameters"),
        "device": runtime.device,
        "backend": runtime.name,
        "threads": threads,
        "cost": dict(cost(engines)),
    }


def _oracle(bundle: Bundle, scene: Scene, known: Labels, console: Console) -> dict[str, float]:
    from mmedge.edge.training.oracle import oracle_accuracy

    bounds = oracle_accuracy(bundle, scene, known)
    if not bounds:
        console.note(f"note: the method of `{bundle.name}` has no oracle")
    return bounds


def _write(paths: dict[str, Path], document: dict[str, Any], pictures: dict[str, Any], console: Console) -> None:
    """All files or none, the JSON last."""
    from mmedge.edge.evaluation.report import draw_confusions, markdown
    from mmedge.files import written_together

    if not find_spec("matplotlib"):
        console.note("note: no pictures without matplotlib: pip install 'mmedge[report]'")
        paths = {kind: path for kind, path in paths.items() if kind != "png"}
    with written_together(list(paths.values())) as found:
        parts = dict(zip(paths, found, strict=True))
        parts["json"].write_text(json.dumps(document, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
        parts["md"].write_text(markdown(document), encoding="utf-8")
        if "png" in parts:
            draw_confusions(parts["png"], pictures, document["classes"])
