"""`quantize`: calibrate over availabilities, insert Q/DQ, keep float what needs it, gate, and write a new bundle."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
import onnx

from mmedge.bundle import Bundle, graph_href, open_bundle, write_model_json
from mmedge.calibration.observe import observe
from mmedge.calibration.qdq import Layer, linear_layers, load_graph, quantized, save_quantized
from mmedge.calibration.report import QuantizeReport, compare, float_layers
from mmedge.calibration.scales import METHODS
from mmedge.calibration.score import fit_temperature, pixels
from mmedge.calibration.sensitivity import NOISY_DB, Sensitivity, sensitivities, too_small, worst
from mmedge.calibration.windows import (
    CalibrationError,
    LabelledWindow,
    SceneFiles,
    check_calibration,
    holed,
    read_windows,
    sample,
    stack,
)
from mmedge.edge.device import sums_int8
from mmedge.edge.macs import graph_macs
from mmedge.edge.runtime.open import open_runtime
from mmedge.edge.runtime.session import Engines, GraphKey, input_shapes, largest_batch, stored_graph
from mmedge.errors import OutputError, UsageError
from mmedge.geo_io.tiling import narrowed
from mmedge.modality import Availability

BATCH = 8
# How many of the most sensitive layers of an availability stay float, tried in this order until its validation loses at
# most MARGIN of what the gate allows: the gate's own windows are others.
STEPS = (0, 1, 3, 6, 12, 24)
MARGIN = 0.5
SENSITIVITY_WINDOWS = 8
CROPS = 4  # random windows of each scene, for each that calibration wants: not all are valid, nor of a rare class
Say = Callable[[str], None]


@dataclass(frozen=True, slots=True, kw_only=True)
class QuantizeRequest:
    """Everything that decides a quantization.

    `calibrate`: scenes whose windows give the ranges. `validate`: labelled scenes that choose how many layers stay
    float and fit the temperature. `test`: labelled scenes of the gate. Each defaults to the one before.
    `max_drop`: points of overall accuracy that int8 may lose for any availability.
    """

    model: str | Path
    output: Path
    calibrate: tuple[SceneFiles, ...]
    validate: tuple[SceneFiles, ...] = ()
    test: tuple[SceneFiles, ...] = ()
    method: str = "mse"
    windows: int = 32
    max_drop: float = 0.5
    seed: int = 0
    overwrite: bool = False


def quantize(request: QuantizeRequest, *, say: Say = lambda _: None) -> QuantizeReport:
    """Write `request.output`, a bundle with int8 graphs beside its fp32 ones, unless a gate fails.

    Raises CalibrationError for scenes that cannot be calibrated on, OutputError where the output exists.
    """
    bundle = _opened(request.model)
    _check(request)
    part = request.output.with_name(request.output.name + ".part")
    shutil.rmtree(part, ignore_errors=True)
    try:
        report = _quantize(request, bundle, part, say)
        if report.passed is not False:
            shutil.rmtree(request.output, ignore_errors=True)
            part.rename(request.output)
        return report
    finally:
        shutil.rmtree(part, ignore_errors=True)


def _opened(model: str | Path) -> Bundle:
    """A bundle in windows for crops."""
    bundle = open_bundle(model)
    return replace(bundle, tiling=narrowed(bundle.tiling))


def _check(request: QuantizeRequest) -> None:
    if request.method not in METHODS:
        raise UsageError(f"no method `{request.method}`", hint=f"--method {'|'.join(METHODS)}")
    if request.output.exists() and not request.overwrite:
        raise OutputError(f"`{request.output}` exists", hint="--overwrite, or another --output")


def _quantize(request: QuantizeRequest, bundle: Bundle, part: Path, say: Say) -> QuantizeReport:
    rng = np.random.default_rng(request.seed)
    validate = request.validate or request.calibrate
    graphs = _calibrated(request, bundle, rng, say)
    say("sensitivity of each layer")
    ranked = _ranked(graphs, largest_batch(bundle, BATCH))
    small = too_small([layer for graph in graphs.values() for layer in graph.layers])
    judges = {a: read_windows(validate, bundle, a, rng) for a in graphs_of(bundle)}
    float_accuracy = {a: _accuracy(_engines(bundle, "fp32"), windows) for a, windows in judges.items()}
    kept: dict[Availability, dict[str, str]] = {}
    search = list(judges)
    for count in (*STEPS, max(map(len, ranked.values()))):
        for a in search:
            chosen = [s for i, s in enumerate(ranked[a]) if i < count or s.sqnr_db < NOISY_DB]
            kept[a] = small | {s.layer: s.why() for s in chosen}
        _write(bundle, part, graphs, kept)
        int8 = _engines(_opened(part), "int8")
        lost = {a: float_accuracy[a] - _accuracy(int8, judges[a]) for a in search}
        for a, points in lost.items():
            say(f"{a}: {len(kept[a])} layers float, {points:.2f} points lost on the validation windows")
        search = [a for a, points in lost.items() if points > MARGIN * request.max_drop]
        if not search:
            break
    return _report(request, bundle, part, judges, kept, rng, say)


@dataclass(frozen=True, slots=True)
class _Graph:
    """A float graph, ready to be quantized: where its weights lie, its layers, and what int8 keeps of their inputs."""

    model: onnx.ModelProto
    external: dict[str, list[onnx.StringStringEntryProto]]
    layers: list[Layer]
    clips: dict[str, float]
    windows: list[LabelledWindow]


def graphs_of(bundle: Bundle) -> list[Availability]:
    """The availabilities that a bundle has graphs for, the complete one last."""
    return Availability.every(bundle.order)


def _calibrated(request: QuantizeRequest, bundle: Bundle, rng: np.random.Generator, say: Say) -> dict[GraphKey, _Graph]:
    """Every graph with the clips of its own availability."""
    found = {}
    for availability in graphs_of(bundle):
        pool = read_windows(request.calibrate, bundle, availability, rng, crops=CROPS * request.windows)
        uniform = sample([w for w in pool if w.key == GraphKey(availability, False)], request.windows, rng)
        for key in (key for key in GraphKey.every(bundle) if key.availability == availability):
            say(f"calibrating {key}")
            windows = [holed(w, rng) for w in uniform] if key.mixed else uniform
            check_calibration(windows, key, bundle)
            model, external = load_graph(stored_graph(bundle, key, "fp32"))
            layers = linear_layers(model)
            wanted = sorted({layer.input for layer in layers if layer.name not in too_small(layers)})
            histograms = observe(model, wanted, stack(windows, largest_batch(bundle, BATCH)))
            clips = {name: METHODS[request.method](h) for name, h in histograms.items()}
            found[key] = _Graph(model, external, layers, clips, windows)
    return found


def _ranked(graphs: Mapping[GraphKey, _Graph], size: int) -> dict[Availability, list[Sensitivity]]:
    """Every layer of each availability, by its noise in whichever graph of one of its sensors suffers most."""
    alone: dict[str, list[Sensitivity]] = {}
    for key, graph in graphs.items():
        if len(key.availability) > 1 or key.mixed:
            continue
        small = too_small(graph.layers)
        layers = [layer for layer in graph.layers if layer.name not in small]
        batches = stack(graph.windows[: min(SENSITIVITY_WINDOWS, size)], size)
        alone[key.availability.names[0]] = sensitivities(graph.model, layers, graph.clips, batches)
    return {a: worst(*(alone[sensor] for sensor in a)) for a in {key.availability: None for key in graphs}}


def _write(
    bundle: Bundle, part: Path, graphs: Mapping[GraphKey, _Graph], kept: Mapping[Availability, Mapping[str, str]]
) -> None:
    """The bundle with int8 graphs in which the layers `kept` for their availability are float."""
    shutil.rmtree(part, ignore_errors=True)
    shutil.copytree(bundle.folder, part, ignore=shutil.ignore_patterns("*int8*"))
    models: dict[Path, onnx.ModelProto] = {}
    external: dict[str, Any] = {}
    for key, graph in graphs.items():
        layers = [layer for layer in graph.layers if layer.name not in kept[key.availability]]
        path = part / graph_href(key.availability, precision="int8", mixed=key.mixed)
        models[path] = quantized(graph.model, layers, graph.clips)
        external |= graph.external
    save_quantized(models, external)
    _write_item(bundle, part, {})


def _write_item(bundle: Bundle, part: Path, properties: Mapping[str, Any]) -> None:
    """model.json as it was, with more properties and every file of the folder."""
    roles, fields = {}, {}
    for asset in bundle.item["assets"].values():
        suffix = PurePosixPath(asset["href"]).suffix
        roles[suffix] = asset["roles"]
        if "bands" in asset:
            fields[suffix] = {"bands": asset["bands"]}
    item = {key: value for key, value in bundle.item.items() if key != "assets"}
    write_model_json(part, {**item, "properties": {**item["properties"], **properties}}, roles, fields)


def _engines(bundle: Bundle, precision: str) -> Engines:
    backend = "openvino" if sums_int8() else "onnxruntime"
    runtime, _ = open_runtime(backend, precision=precision, threads=1)
    return Engines(bundle, runtime, batch=BATCH)


def _accuracy(engines: Engines, windows: Sequence[LabelledWindow]) -> float:
    """Overall accuracy in percent; 0 where nothing has a label."""
    return 100 * pixels(engines, windows).confusion().overall_accuracy if windows else 0.0


def _report(
    request: QuantizeRequest,
    bundle: Bundle,
    part: Path,
    judges: Mapping[Availability, list[LabelledWindow]],
    kept: Mapping[Availability, Mapping[str, str]],
    rng: np.random.Generator,
    say: Say,
) -> QuantizeReport:
    say("gates")
    fp32, int8 = _engines(bundle, "fp32"), _engines(_opened(part), "int8")
    rows, temperatures, cost = [], {}, {}
    for availability in graphs_of(bundle):
        windows = read_windows(request.test, bundle, availability, rng) if request.test else judges[availability]
        if not windows:
            raise CalibrationError(f"no window shows `{availability}`", hint="give scenes that have these sensors")
        fit_on = pixels(fp32, judges[availability]).known if judges[availability] else None
        temperature = fit_temperature(fit_on) if fit_on is not None and len(fit_on.labels) else 1.0
        row = compare(availability, fp32, int8, windows, temperature)
        rows.append(row)
        temperatures[str(availability)] = temperature
        key = GraphKey(availability, False)
        macs = graph_macs(stored_graph(bundle, key, "fp32"), input_shapes(bundle, key, 1))
        cost[str(availability)] = {"macs": macs, "fp32_ms": row.fp32_ms, "int8_ms": row.int8_ms}
    labelled = any(row.pixels for row in rows)
    passed = all(row.drop <= request.max_drop for row in rows) if labelled else None
    recipe = {"method": request.method, "windows": request.windows, "seed": request.seed, "max_drop": request.max_drop}
    report = QuantizeReport(
        output=request.output,
        rows=tuple(rows),
        float_layers=float_layers(kept),
        bundle_bytes=0,
        recipe=recipe,
        passed=passed,
    )
    properties = {
        "mmedge:quantization": {**recipe, "float_layers": report.float_layers, "rows": report.document()["rows"]},
        "mmedge:temperature": temperatures,
        "mmedge:cost": {
            "unit": f"multiply-accumulates a window of {bundle.tiling.window_px} px; "
            f"ms of CPU for a batch of {fp32.batch}, one thread, OpenVINO",
            "machine": report.machine,
            **cost,
        },
    }
    _write_item(bundle, part, properties)
    size = sum(path.stat().st_size for path in part.rglob("*") if path.is_file())
    return replace(report, bundle_bytes=size)
