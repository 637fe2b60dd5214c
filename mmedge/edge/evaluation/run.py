"""An evaluation from what was asked for to its document: a model on a labelled scene, or a finished map."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from mmedge.bundle import Bundle, open_bundle
from mmedge.edge.device import threads_available
from mmedge.edge.evaluation.evaluate import Progress, cost, judge, report, unseen
from mmedge.edge.evaluation.map_score import score_map
from mmedge.edge.request import checked_precision
from mmedge.edge.runtime.open import open_runtime
from mmedge.edge.runtime.session import Engines
from mmedge.errors import UsageError
from mmedge.extras import need
from mmedge.geo_io.gather import SceneOptions
from mmedge.geo_io.labels import LabelFile, Labels, read_labels, values_of
from mmedge.geo_io.location import Location
from mmedge.geo_io.maps.outputs import TIFF_SUFFIXES
from mmedge.geo_io.rasters.header import inspect_raster
from mmedge.geo_io.scene import Scene, open_scene

PARTS = ("test", "all")
Say = Callable[[str], None]


def _silent(*_: object) -> None:
    pass


@dataclass(frozen=True, slots=True, kw_only=True)
class EvaluateRequest:
    """What is scored, and how: `thing` is a built-in model, a bundle folder or a finished map (`*.tif`).

    The rest is for models. `scene`, `options`: as in `infer`; `part`: `test` leaves out what trained or validated the
    model, `all` does not; `etas`: shares of data that lack a sensor, for mixtures; `oracle`: the method's own upper
    bound too, in PyTorch and fp32; `threads` 0: all there are. Raises UsageError for another part or share.
    """

    thing: str
    labels: LabelFile
    scene: Location | None = None
    options: SceneOptions = field(default_factory=SceneOptions)
    part: str = "test"
    etas: tuple[float, ...] = ()
    oracle: bool = False
    backend: str = "auto"
    precision: str = "fp32"
    threads: int = 0

    def __post_init__(self) -> None:
        if self.part not in PARTS:
            raise UsageError(f"no part `{self.part}`", hint="--part test, or --part all")
        if not all(0 <= eta <= 1 for eta in self.etas):
            raise UsageError(f"shares {self.etas} do not lie between 0 and 1", hint="--eta 0.3,0.7")

    @property
    def is_map(self) -> bool:
        return Path(self.thing).suffix.lower() in TIFF_SUFFIXES


def evaluate(
    request: EvaluateRequest, *, warn: Say = _silent, note: Say = _silent, progress: Progress = _silent
) -> dict[str, Any]:
    """The scores as JSON: of schema `mmedge.evaluate/1` for a model, `mmedge.map_score/1` for a map.

    Raises an MMEdgeError where model, map, scene or labels cannot be read or do not fit together.
    """
    if request.is_map:
        return score_map(Path(request.thing), request.labels, warn=warn)
    if request.oracle:
        need("torch")
    bundle = open_bundle(request.thing)
    threads = request.threads or threads_available()
    precision = checked_precision(request.precision, bundle)
    runtime, _ = open_runtime(request.backend, precision=precision, threads=threads)
    engines = Engines(bundle, runtime)
    with open_scene(request.scene, bundle.modalities, request.options) as scene:
        for text in scene.warnings:
            warn(text)
        known = _known(request, bundle, scene, note)
        judged = judge(scene, known, engines, threads=threads, progress=progress)
        bounds = _oracle(bundle, scene, known, note) if request.oracle else {}
    return {
        "schema": "mmedge.evaluate/1",
        "model": bundle.name,
        "sha256": bundle.sha256,
        "scene": scene.name,
        "part": request.part,
        "pixels": len(judged.reference),
        "classes": [c.name for c in bundle.classes],
        **report(judged, bundle, request.etas),
        "oracle_method": bounds,
        "parameters": bundle.item["properties"].get("mlm:total_parameters"),
        "device": runtime.device,
        "backend": runtime.name,
        "precision": precision,
        "threads": threads,
        "cost": dict(cost(engines)),
    }


def plan_evaluation(request: EvaluateRequest) -> tuple[str, ...]:
    """What an evaluation would read; fails where something of it cannot be opened."""
    values_of(request.labels)
    reads = (request.thing, str(request.labels.path))
    if request.is_map:
        inspect_raster(Path(request.thing))
        return reads
    bundle = open_bundle(request.thing)
    checked_precision(request.precision, bundle)
    with open_scene(request.scene, bundle.modalities, request.options) as scene:
        return (*reads, *map(str, scene.files))


def _known(request: EvaluateRequest, bundle: Bundle, scene: Scene, note: Say) -> Labels:
    """The labels to score on."""
    known = read_labels(request.labels, scene.grid, bundle.classes)
    if request.part == "all":
        return known
    kept = unseen(known, bundle, scene.grid)
    if lost := int(np.count_nonzero(kept != known)):
        note(
            f"note: {lost} labelled pixels trained or validated `{bundle.name}` and are left out; --part all takes "
            "them too"
        )
    return kept


def _oracle(bundle: Bundle, scene: Scene, known: Labels, note: Say) -> dict[str, float]:
    from mmedge.edge.training.oracle import oracle_accuracy

    bounds = oracle_accuracy(bundle, scene, known)
    if not bounds:
        note(f"note: the method of `{bundle.name}` has no oracle")
    return bounds
