"""`mmedge train`: a run file in, a bundle out that `infer` takes."""

from __future__ import annotations

import csv
import json
import logging
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.util import find_spec
from itertools import islice
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from torch import distributed

from mmedge.bundle import Bundle, Tiling, open_bundle, write_model_json
from mmedge.edge.device import threads_available
from mmedge.edge.evaluation.blocks import TEST
from mmedge.edge.evaluation.evaluate import judge, report
from mmedge.edge.export import export_graphs, load_eager
from mmedge.edge.models.mamol import MaMOL
from mmedge.edge.models.network import Network
from mmedge.edge.models.registry import adopt, build
from mmedge.edge.runtime.open import open_runtime
from mmedge.edge.runtime.session import Engines, GraphKey
from mmedge.edge.training import card
from mmedge.edge.training.config import RunConfig, print_config
from mmedge.edge.training.facts import cost_of, scaling_of
from mmedge.edge.training.fit import FitConfig, Scores, fit
from mmedge.edge.training.item import ROLES, bands_of, model_item
from mmedge.edge.training.scene_task import SceneTask
from mmedge.edge.training.scenes import SceneSet, complete, open_configured, read_scenes
from mmedge.edge.training.tiling import tiling_of
from mmedge.errors import OutputError, UsageError
from mmedge.geo_io.ground import footprint
from mmedge.geo_io.labels import Labels
from mmedge.geo_io.maps.stac import when
from mmedge.geo_io.tiling import widened
from mmedge.modality import Availability

PARITY = 1e-4  # of the largest logit: graphs against the eager network
PARITY_WINDOWS = 2
SCENES = "scenes-"  # scenes laid out on disk, for the time of a run
Say = Callable[[str], None]
Progress = Callable[[int, int], None]


@dataclass(frozen=True, slots=True, kw_only=True)
class RunOptions(FitConfig):
    """What a state on disk belongs to: the optimisation, and everything else that the run file says."""

    run: dict[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainRecord:
    """A finished run."""

    folder: Path
    bundle: Bundle
    best: Scores
    accuracy: dict[str, Any]

    def document(self) -> dict[str, Any]:
        """The run as JSON of schema `mmedge.train/1`."""
        return {
            "schema": "mmedge.train/1",
            "bundle": str(self.folder),
            "sha256": self.bundle.sha256,
            "validation": self.best,
            "accuracy": self.accuracy,
        }


def train(
    config: RunConfig, *, overwrite: bool = False, warn: Say, say: Say, progress: Progress = lambda done, total: None
) -> TrainRecord | None:
    """Train, export, check and score. State lies in `<bundle>.run`; the same command goes on where it was stopped.

    None on all processes of a distributed run but the first. Raises OutputError where the bundle exists, UsageError or
    SceneError for what the run file gets wrong.
    """
    check_target(config, overwrite=overwrite)
    target = config.folder
    logging.getLogger("torch.onnx").setLevel(logging.ERROR)  # its warnings concern packages that we do not use
    config = complete(config)
    run = target.with_name(f"{target.name}.run")
    run.mkdir(parents=True, exist_ok=True)
    if "RANK" not in os.environ:  # what a killed run left
        for stale in run.glob(f"{SCENES}*"):
            shutil.rmtree(stale)
    if config.fit.threads:
        torch.set_num_threads(config.fit.threads)
    with _processes() as (rank, device), tempfile.TemporaryDirectory(dir=run, prefix=SCENES) as cache:
        scenes = read_scenes(config, Path(cache), warn=warn)
        network = _network(config, scenes)
        derives = {m.derive for m in scenes.modalities if m.derive}
        tiling = tiling_of(network, config.window_px, config.halo_px, derives=derives)
        task = SceneTask(scenes, config, tiling, device)
        network.set_statistics(*task.statistics())
        network.to(device)
        best = fitted(network, task, config, run, say=say, progress=progress)
        if rank:
            return None
        (run / "run.yaml").write_text(print_config(config), encoding="utf-8")
        return _bundle(network.cpu(), task, config, best, warn=warn)


def check_target(config: RunConfig, *, overwrite: bool) -> None:
    """Raise where the bundle cannot be written: before any work, touching nothing."""
    target = config.folder
    if target.exists() and not overwrite:
        raise OutputError(f"output `{target}` exists already", hint="--overwrite replaces it, `name` names another")
    if target.exists() and not (target / "model.json").is_file():
        raise OutputError(f"`{target}` is no bundle, so it is not replaced", hint="change `name` or `out`")
    if config.license_file and not config.license_file.is_file():
        raise UsageError(f"no such file: `{config.license_file}`", hint="correct `license_file`")


@contextmanager
def _processes() -> Iterator[tuple[int, torch.device]]:
    """Rank and device; joins the other processes where torchrun started several."""
    local = int(os.environ.get("LOCAL_RANK", 0))
    device = torch.device("cuda", local) if torch.cuda.is_available() else torch.device("cpu")
    if "RANK" not in os.environ:
        yield 0, device
        return
    distributed.init_process_group("nccl" if device.type == "cuda" else "gloo")
    try:
        yield distributed.get_rank(), device
    finally:
        distributed.destroy_process_group()


def _network(config: RunConfig, scenes: SceneSet) -> Network:
    torch.manual_seed(config.seed)
    network = build(
        {
            "method": config.network.method,
            "encoder": config.network.encoder,
            "channels": {m.name: m.channels for m in scenes.modalities},
            "classes": len(scenes.classes),
            "options": config.network.options,
            "encoder_options": config.network.encoder_options,
        }
    )
    if config.network.encoder == "galileo":
        _adopt_shipped(network, scenes)
    return network


def _adopt_shipped(network: Network, scenes: SceneSet) -> None:
    """Galileo's frozen weights, as the default bundle carries them."""
    known = {m.name: m for m in card.TERRA.modalities}
    for mine in scenes.modalities:
        theirs = known[mine.name]
        if (mine.bands, mine.unit, mine.derive) != (theirs.bands, theirs.unit, theirs.derive):
            raise UsageError(
                f"Galileo takes {theirs.name} as {', '.join(theirs.bands)} in {theirs.unit}"
                f"{f' ({theirs.derive})' if theirs.derive else ''}, the run file says {', '.join(mine.bands)}",
                hint="change `sensors`, or take `encoder: unet`",
            )
    adopt(network, cast(MaMOL, load_eager(open_bundle().folder)))


def fitted(network: Network, task: SceneTask, config: RunConfig, run: Path, *, say: Say, progress: Progress) -> Scores:
    """Every stage of the network, trained or taken from the state on disk; then its last statistics."""
    fields = config.fit.model_dump(include=set(FitConfig.__dataclass_fields__))
    options = RunOptions(**fields, seed=config.seed, run=config.model_dump(mode="json", exclude={"out"}))
    best: Scores = {}
    for stage in range(network.stages):
        network.begin_stage(stage)
        folder = run / f"stage-{stage}"
        try:
            best = fit(
                network,
                task,
                options,
                folder=folder,
                report=say,
                progress=progress,
                logged=lambda history, folder=folder: _log(history, folder),  # type: ignore[misc]
            )
        except ValueError as err:
            if "another configuration" not in str(err):
                raise
            raise OutputError(
                f"`{run}` holds the state of a run with other settings", hint=f"rm -r {run}, or change `name`"
            ) from None
    with torch.no_grad():
        network.finish((d, v, y) for d, v, y in task.validation())
    network.eval().requires_grad_(False)
    return best


def _log(history: Sequence[Scores], folder: Path) -> None:
    """All validations as `log.csv`; for TensorBoard too where it is installed."""
    with (folder / "log.csv").open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, list(history[0]))
        writer.writeheader()
        writer.writerows(history)
    if find_spec("tensorboard"):
        from torch.utils.tensorboard import SummaryWriter

        last = history[-1]
        with SummaryWriter(folder) as board:
            for key, value in last.items():
                board.add_scalar(key, value, int(last["step"]))


def _bundle(network: Network, task: SceneTask, config: RunConfig, best: Scores, *, warn: Say) -> TrainRecord:
    """The bundle, complete and checked before it gets its name."""
    target = config.folder
    part, old = (target.with_name(f"{target.name}.{kind}") for kind in ("part", "old"))
    for folder in (part, old):
        if folder.exists():
            shutil.rmtree(folder)
    part.mkdir(parents=True)
    try:
        accuracy = _filled(part, network, task, config, best, warn=warn)
        if target.exists():
            target.replace(old)
        part.replace(target)
    finally:
        if old.exists() and not target.exists():
            old.replace(target)
        for folder in (part, old):
            shutil.rmtree(folder, ignore_errors=True)
    return TrainRecord(folder=target, bundle=open_bundle(target), best=best, accuracy=accuracy)


def _filled(
    folder: Path, network: Network, task: SceneTask, config: RunConfig, best: Scores, *, warn: Say
) -> dict[str, Any]:
    """Everything that a bundle holds, into an empty folder; what it is worth."""
    scenes, tiling = task.scenes, widened(task.tiling)
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
    _check_parity(network, task, engines.resized(window_px=task.tiling.window_px, batch=PARITY_WINDOWS))
    accuracy: dict[str, Any] = {"validation": _rounded(best)}
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
    return {k: round(v, 4) for k, v in scores.items()}
