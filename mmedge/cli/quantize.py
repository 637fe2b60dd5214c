"""`mmedge quantize`: int8 graphs for a bundle, calibrated over availabilities and gated."""

from __future__ import annotations

from itertools import zip_longest
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from mmedge.cli import options as o
from mmedge.cli.console import Console
from mmedge.errors import UsageError

if TYPE_CHECKING:
    from mmedge.calibration.report import QuantizeReport
    from mmedge.calibration.windows import SceneFiles

NAME = "quantize"
Pairs = list[str] | None


def run(
    model: Annotated[str, typer.Argument(help="A built-in model, or a bundle folder.")],
    scenes: Annotated[Pairs, typer.Option("--scenes", help="Scenes to calibrate on.")] = None,
    labels: Annotated[Pairs, typer.Option("--labels", help="Reference classes of --scenes, in their order.")] = None,
    validate: Annotated[
        Pairs,
        typer.Option(
            "--validate",
            metavar="SCENE=LABELS",
            help="Labelled scenes that choose which layers stay float and fit the temperature. Default: --scenes.",
        ),
    ] = None,
    test: Annotated[
        Pairs, typer.Option("--test", metavar="SCENE=LABELS", help="Labelled scenes of the gate. Default: --validate.")
    ] = None,
    output: Annotated[
        o.OptionalPath, typer.Option("-o", "--output", help="Default: <model>-int8 in this folder.", show_default=False)
    ] = None,
    method: Annotated[str, typer.Option("--method", help="Scales: minmax, percentile, entropy or mse.")] = "mse",
    windows: Annotated[int, typer.Option("--windows", min=8, help="Calibration windows an availability.")] = 32,
    max_drop: Annotated[
        float,
        typer.Option("--max-drop", min=0, help="Points of accuracy an availability may lose."),
    ] = 0.5,
    seed: Annotated[int, typer.Option("--seed", min=0, help="Of the sampling.")] = 0,
    overwrite: o.Overwrite = False,
    as_json: o.Json = False,
    quiet: o.Quiet = False,
) -> int:
    """Add int8 graphs to a bundle: one set for TensorRT, OpenVINO and ONNX Runtime.

    Example: mmedge quantize mamol-terra --scenes a.tif,b.tif --test c.tif=c_classes.tif

    Writes a new bundle and prints, for each availability, accuracy, size and time before and after. Exit code 1, and no
    bundle, where an availability loses more than --max-drop.
    """
    from mmedge.extras import need

    for module in ("onnx", "onnxruntime", "safetensors"):
        need(module, extra="quantize")
    from mmedge.calibration.quantize import QuantizeRequest, quantize

    console = Console(quiet=quiet)
    calibrate = _calibrate(o.commas(scenes), o.commas(labels))
    request = QuantizeRequest(
        model=model,
        output=output or Path(f"{Path(model).name}-int8"),
        calibrate=calibrate,
        validate=_pairs("--validate", validate),
        test=_pairs("--test", test),
        method=method,
        windows=windows,
        max_drop=max_drop,
        seed=seed,
        overwrite=overwrite,
    )
    report = quantize(request, say=console.note)
    console.data(report.document(), text(report), as_json=as_json)
    if report.passed is None:
        console.warn("no gate was checked: nothing has labels (--labels, --validate or --test)")
    if report.passed is False:
        worst = max(report.rows, key=lambda row: row.drop)
        console.warn(f"no bundle was written: int8 loses {worst.drop} points for `{worst.availability}`")
    return 1 if report.passed is False else 0


def _calibrate(scenes: list[str], labels: list[str]) -> tuple[SceneFiles, ...]:
    from mmedge.calibration.windows import SceneFiles

    if not scenes:
        raise UsageError("no scenes to calibrate on", hint="--scenes a.tif,b.tif")
    if labels and len(labels) != len(scenes):
        raise UsageError(f"{len(scenes)} scenes and {len(labels)} labels", hint="--labels in the order of --scenes")
    return tuple(SceneFiles(Path(s), Path(r) if r else None) for s, r in zip_longest(scenes, labels))


def _pairs(flag: str, values: Pairs) -> tuple[SceneFiles, ...]:
    from mmedge.calibration.windows import SceneFiles

    found = []
    for value in o.commas(values):
        scene, equals, labels = value.partition("=")
        if not equals or not labels:
            raise UsageError(f"`{flag} {value}` is not SCENE=LABELS", hint=f"{flag} scene.tif=classes.tif")
        found.append(SceneFiles(Path(scene), Path(labels)))
    return tuple(found)


def text(report: QuantizeReport) -> str:
    """The table, for people."""
    head = "availability            px   OA fp32   int8   drop  agree  ms fp32   int8  ratio   ECE  after"
    lines = [
        f"{r.availability:22s} {r.pixels:6d} {r.fp32_oa:8.2f} {r.int8_oa:6.2f} {r.drop:6.2f} {r.agreement:6.2f} "
        f"{r.fp32_ms:8.1f} {r.int8_ms:6.1f} {r.fp32_ms / r.int8_ms:6.2f} {r.ece_before:5.2f} {r.ece_after:6.2f}"
        for r in report.rows
    ]
    floats = [f"  {name}: {why}" for name, why in sorted(report.float_layers.items())]
    gate = {True: "passed", False: "failed", None: "not checked"}[report.passed]
    return "\n".join(
        [
            head,
            *lines,
            f"gate (at most {report.recipe['max_drop']} points): {gate}",
            "float layers:",
            *floats,
            f"bundle: {report.bundle_bytes / 1e6:.1f} MB",
            f"machine: {report.machine}",
            str(report.output),
        ]
    )
