"""`mmedge train`: a run file in, a bundle out that `infer` takes."""

from __future__ import annotations

import csv
import logging
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any, cast

import torch
from torch import distributed

from mmedge.bundle import Bundle, open_bundle
from mmedge.edge.export import load_eager
from mmedge.edge.models.mamol import MaMOL
from mmedge.edge.models.network import Network
from mmedge.edge.models.registry import adopt, build
from mmedge.edge.training import card
from mmedge.edge.training.config import RunConfig, print_config
from mmedge.edge.training.deliver import deliver
from mmedge.edge.training.fit import FitConfig, Scores, fit
from mmedge.edge.training.scene_task import SceneTask
from mmedge.edge.training.scenes import complete, modality_of, read_scenes
from mmedge.edge.training.tiling import tiling_of
from mmedge.errors import OutputError, UsageError
from mmedge.modality import Modality

SCENES = "scenes-"  # scenes laid out on disk, for the time of a run
Say = Callable[[str], None]
Progress = Callable[[int, int], None]


@dataclass(frozen=True, slots=True, kw_only=True)
class RunOptions(FitConfig):
    """What a state on disk belongs to: the optimisation, everything else that the run file says, and the data."""

    run: dict[str, Any]
    data: str


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
        network = network_of(config)
        derives = {m.derive for m in scenes.modalities if m.derive}
        tiling = tiling_of(network, config.window_px, config.halo_px, derives=derives)
        task = SceneTask(scenes, config, tiling, device)
        network.set_statistics(*task.statistics())
        network.to(device)
        best = fitted(network, task, config, run, say=say, progress=progress)
        if rank:
            return None
        (run / "run.yaml").write_text(print_config(config), encoding="utf-8")
        accuracy = deliver(network.cpu(), task, config, best, warn=warn, say=say)
        return TrainRecord(folder=target, bundle=open_bundle(target), best=best, accuracy=accuracy)


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


def network_of(config: RunConfig) -> Network:
    """The untrained network of a complete configuration; UsageError where there is no such one."""
    modalities = [modality_of(s) for s in config.sensors or ()]
    torch.manual_seed(config.seed)
    network = build(
        {
            "method": config.network.method,
            "encoder": config.network.encoder,
            "channels": {m.name: m.channels for m in modalities},
            "classes": len(config.classes or ()),
            "options": config.network.options,
            "encoder_options": config.network.encoder_options,
        }
    )
    if config.network.encoder == "galileo":
        _adopt_shipped(network, modalities)
    return network


def _adopt_shipped(network: Network, modalities: Sequence[Modality]) -> None:
    """Galileo's frozen weights, as the default bundle carries them."""
    known = {m.name: m for m in card.TERRA.modalities}
    for mine in modalities:
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
    said = config.model_dump(mode="json", exclude={"out"})
    options = RunOptions(**fields, seed=config.seed, run=said, data=task.scenes.digest())
    best: Scores = {}
    for stage in range(network.stages):
        network.begin_stage(stage)
        task.begin_stage(network, stage)
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
                f"`{run}` holds the state of a run with other settings or data", hint=f"rm -r {run}, or change `name`"
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
