"""`mmedge train`: a run file in, a bundle out."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from mmedge.cli import options as o
from mmedge.cli.console import Console
from mmedge.errors import UsageError

if TYPE_CHECKING:
    from mmedge.edge.training.config import RunConfig

NAME = "train"


def run(
    file: Annotated[Path | None, typer.Argument(metavar="RUN.yaml", help="The run file.", show_default=False)] = None,
    print_config: Annotated[
        bool,
        typer.Option("--print-config", help="Print a run file with comments: RUN.yaml completed, or one for a scene."),
    ] = False,
    scene: Annotated[
        str | None, typer.Option("--scene", help="With --print-config: a scene to learn from.", show_default=False)
    ] = None,
    source: o.Source = None,
    bands: o.Bands = None,
    labels: o.Labels = None,
    field: o.Field = None,
    name: Annotated[str, typer.Option("--name", help="With --print-config: what to call the model.")] = "my-model",
    settings: Annotated[
        list[str] | None,
        typer.Option(
            "--set",
            metavar="KEY=VALUE",
            help="A key of the run file set anew, such as network.method=dymo; repeat for more.",
            show_default=False,
        ),
    ] = None,
    overwrite: o.Overwrite = False,
    dry_run: o.DryRun = False,
    strict: o.Strict = False,
    as_json: o.Json = False,
    quiet: o.Quiet = False,
) -> int:
    """Train a model on your own scenes and labels; the result is a bundle for `mmedge infer -m`.

    Example: mmedge train RUN.yaml

    A run file: mmedge train --print-config --source optical=s2.tif --source sar=s1.tif --labels classes.tif > RUN.yaml.
    A run that was stopped goes on where it was when the same command is given again.
    """
    from mmedge.extras import need

    for module in ("torch", "pydantic", "yaml", "safetensors", "onnx"):
        need(module)
    console = Console(quiet=quiet)
    if print_config:
        if file is None and settings:
            raise UsageError("--set changes a run file, and none is given", hint="mmedge train RUN.yaml --print-config")
        print(_completed(file, settings) if file else _template(scene, source, bands, labels, field, name))
        return 0
    if file is None:
        raise UsageError("no run file given", hint="mmedge train --print-config > RUN.yaml")
    from mmedge.edge.training.config import read_config

    config = read_config(file, settings or ())
    if dry_run:
        plan = _plan(config, overwrite=overwrite)
        console.data(plan, "\n".join(f"{k}: {v}" for k, v in plan.items()), as_json=as_json)
        return 0
    from mmedge.edge.training.train import train

    with console.progress("training", unit="steps", per_unit=1) as progress:
        record = train(config, overwrite=overwrite, warn=console.warn, say=console.note, progress=progress.update)
    if record is not None:
        console.data(record.document(), str(record.folder), as_json=as_json)
    return 1 if strict and console.warned else 0


def _completed(file: Path, settings: list[str] | None) -> str:
    """A run file with everything said that its scenes and labels say."""
    from mmedge.edge.training.config import print_config, read_config
    from mmedge.edge.training.scenes import complete

    return print_config(complete(read_config(file, settings or ())))


def _template(
    scene: str | None,
    source: list[str] | None,
    bands: list[str] | None,
    labels: Path | None,
    field: str | None,
    name: str,
) -> str:
    """A run file. With a scene and labels its sensors and classes are filled in."""
    from mmedge.edge.training.config import RunConfig, SceneConfig, print_config

    given = bool(scene or source)
    if given != (labels is not None):
        raise UsageError("a scene and its labels belong together", hint="--source optical=s2.tif --labels classes.tif")
    entry: dict[str, Any] = {"scene": "scene.tif", "labels": "classes.tif"}
    if given:
        entry = {
            "scene": scene,
            "sources": o.assignments("--source", source),
            "bands": o.assignments("--bands", bands),
            "labels": labels,
            "field": field,
        }
    config = RunConfig(name=name, scenes=(SceneConfig.model_validate(entry),))
    if given:
        from mmedge.edge.training.scenes import complete

        config = complete(config)
    return print_config(config)


def _plan(config: RunConfig, *, overwrite: bool) -> dict[str, Any]:
    """What a run would read and write; fails where scenes, labels, squares or network would not do."""
    from mmedge.edge.training.scenes import classes_of, complete, labels_of, modality_of, open_configured, split
    from mmedge.edge.training.train import check_target, network_of

    check_target(config, overwrite=overwrite)
    full = complete(config)
    network_of(full)
    reads: list[str] = []
    labels, grids = [], []
    for entry in full.scenes:
        with open_configured(entry, [modality_of(s) for s in full.sensors or ()]) as scene:
            reads += [str(file) for file in scene.files]
            labels.append(labels_of(entry, scene, classes_of(full)))
            grids.append(scene.grid)
        reads.append(str(entry.labels))
    split(labels, grids, full)
    return {
        "schema": "mmedge.plan/1",
        "reads": reads,
        "writes": [str(config.folder), f"{config.folder}.run"],
        "sensors": [s.name for s in full.sensors or ()],
        "classes": [c.name for c in full.classes or ()],
        "network": f"{full.network.method} on {full.network.encoder}",
    }
