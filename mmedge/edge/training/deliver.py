"""What training delivers: a bundle, complete, checked and scored before it gets its name."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import torch

from mmedge.bundle import Bundle, Tiling, open_bundle, write_model_json
from mmedge.edge.device import threads_available
from mmedge.edge.evaluation.blocks import TEST
from mmedge.edge.evaluation.evaluate import judge, report
from mmedge.edge.export import export_graphs
from mmedge.edge.item import ROLES, bands_of
from mmedge.edge.models.network import Network
from mmedge.edge.runtime.open import open_runtime
from mmedge.edge.runtime.session import Engines, GraphKey
from mmedge.edge.training.config import RunConfig
from mmedge.edge.training.facts import cost_of, scaling_of
from mmedge.edge.training.fit import Scores
from mmedge.edge.training.item import model_item
from mmedge.edge.training.scene_task import SceneTask
from mmedge.edge.training.scenes import SceneSet, open_configured
from mmedge.geo_io.ground import footprint
from mmedge.geo_io.labels import Labels
from mmedge.geo_io.maps.stac import when
from mmedge.geo_io.tiling import widened
from mmedge.modality import Availability

PARITY = 1e-4  # of the largest logit: graphs against the eager network
PARITY_WINDOWS = 2
Say = Callable[[str], None]


def deliver(
    network: Network, task: SceneTask, config: RunConfig, best: Scores, *, warn: Say, say: Say
) -> dict[str, Any]:
    """Write the bundle of a trained network, and return what it is worth: its scores.

    It takes the place of one of its name when all of it is there. Raises RuntimeError where a graph differs from the
    network.
    """
    target = config.folder
    part, old = (target.with_name(f"{target.name}.{kind}") for kind in ("part", "old"))
    for folder in (part, old):
        if folder.exists():
            shutil.rmtree(folder)
    part.mkdir(parents=True)
    try:
        accuracy = _filled(part, network, task, config, best, warn=warn, say=say)
        if target.exists():
            target.replace(old)
        part.replace(target)
    finally:
        if old.exists() and not target.exists():
            old.replace(target)
        for folder in (part, old):
            shutil.rmtree(folder, ignore_errors=True)
    return accuracy


def _filled(
    folder: Path, network: Network, task: SceneTask, config: RunConfig, best: Scores, *, warn: Say, say: Say
) -> dict[str, Any]:
    """Everything that a bundle holds, into an empty folder; what it is worth."""
    scenes, tiling = task.scenes, widened(task.tiling)
    say(f"exporting {2 * (2 ** len(network.sensors) - 1)} graphs")
    export_graphs(network, folder, tiling)
    if config.license_file:
        shutil.copyfile(config.license_file, folder / "LICENSE")
    else:
        (folder / "LICENSE").write_text(f"Weights of {config.name}: {config.license}\n", encoding="utf-8")
    item = _item(network, task, config, tiling)
    fields = {".safetensors": {"bands": bands_of(scenes.modalities)}}  # STAC: an item has bands where an asset has some
    write_model_json(folder, item, ROLES, fields)
    bundle = open_bundle(folder)
    engines = _engines(bundle)
    say("comparing the graphs with the network")
    _check_parity(network, task, engines.resized(window_px=task.tiling.window_px, batch=PARITY_WINDOWS))
    accuracy: dict[str, Any] = {"validation": _rounded(best)}
    say("scoring on the test squares")
    tested = _tested(engines, scenes, config)
    if tested is None:
        warn("no labelled pixel is left for a test: the bundle's scores are those of validation")
    else:
        accuracy["test"] = tested["availability"]
        accuracy |= {f"test_{key}": tested[key] for key in ("mean", "worst")}
    if "recovered" in network.outputs and not bundle.recovers:
        warn(f"maps of {len(bundle.order)} sensors have no room to say which of them were recovered: four at most")
    item["properties"]["mmedge:accuracy"] = accuracy
    write_model_json(folder, item, ROLES, fields)
    return accuracy


def _engines(bundle: Bundle) -> Engines:
    runtime, _ = open_runtime("openvino", precision="fp32", threads=threads_available())
    return Engines(bundle, runtime)


def _item(network: Network, task: SceneTask, config: RunConfig, tiling: Tiling) -> dict[str, Any]:
    scenes = task.scenes
    boxes = [[round(v, 6) for v in footprint(b.grid)[1]] for b in scenes.blocks]
    training = [
        {"name": s.name, "files": list(files), **blocks.document()}
        for s, files, blocks in zip(scenes.scenes, scenes.files, scenes.blocks, strict=True)
    ]
    scenes_said = "one scene" if len(training) == 1 else f"{len(training)} scenes"
    return model_item(
        config.name,
        scenes.modalities,
        scenes.classes,
        tiling,
        boxes=boxes,
        scaling=scaling_of(network),
        properties={
            "title": config.name,
            "description": config.description or f"Trained by mmedge on {scenes_said}.",
            "license": config.license,
            **when(scenes.acquired),
            "mlm:architecture": str(network.recipe["method"]),
            "mlm:total_parameters": sum(p.numel() for p in network.parameters()),
            "mlm:pretrained": network.recipe["encoder"] == "galileo",
            "mlm:pretrained_source": "Galileo-nano (nasaharvest/galileo, MIT), frozen"
            if network.recipe["encoder"] == "galileo"
            else None,
            "mlm:hyperparameters": json.loads(json.dumps(network.recipe)),
            "mmedge:training": {"scenes": training, "seed": config.seed, "fit": config.fit.model_dump(mode="json")},
            "mmedge:domain": task.domain(),
            "mmedge:cost": cost_of(network, tiling),
            **({"mmedge:recovered": True} if "recovered" in network.outputs else {}),
        },
    )


def _check_parity(network: Network, task: SceneTask, engines: Engines) -> None:
    """Raise RuntimeError where a graph and the eager network differ on real windows."""
    for data, valid, _ in islice(task.validation(), 1):
        some = {m: x[:PARITY_WINDOWS].cpu() for m, x in data.items()}
        masks = {m: v[:PARITY_WINDOWS].cpu() for m, v in valid.items()}
    for availability in Availability.every(network.sensors):
        for mixed in (False, True):
            there = {m: masks[m] if mixed else torch.ones_like(masks[m]) for m in availability}
            with torch.no_grad():
                eager = network({m: some[m] for m in availability}, there, uniform=not mixed).numpy()
            feeds = {m: _padded(some[m].numpy()) for m in availability}
            feeds |= {f"{m}_valid": _padded(there[m].numpy()) for m in availability}
            graph = engines.session(GraphKey(availability, mixed)).run(feeds)[: len(eager)]
            apart = float(np.abs(graph - eager).max())
            if not apart <= PARITY * max(1.0, float(np.abs(eager).max())):
                raise RuntimeError(f"graph {availability} (mixed: {mixed}) differs from the network by {apart:.2g}")


def _padded(x: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    return np.concatenate([x, np.zeros((PARITY_WINDOWS - len(x), *x.shape[1:]), x.dtype)])


def _tested(engines: Engines, scenes: SceneSet, config: RunConfig) -> dict[str, Any] | None:
    """Scores on the test squares, through the exported graphs; None where there is no label in them."""
    total = None
    for entry, scene, blocks in zip(config.scenes, scenes.scenes, scenes.blocks, strict=True):
        labels: Labels = np.where(blocks.pixels() == TEST, scene.labels, -1).astype(np.int16)
        if (labels >= 0).any():
            with open_configured(entry, scenes.modalities) as opened:
                part = judge(opened, labels, engines, threads=threads_available())
            total = part if total is None else total + part
    return None if total is None else report(total, engines.bundle)


def _rounded(scores: Scores) -> Scores:
    return {k: round(v, 4) for k, v in scores.items() if k != "loss"}
