"""Train a model and write its bundle: `python scripts/train_default.py mamol-terra --data ../shared/data`.

mamol-terra: MaMOL on the frozen Galileo-nano. Fit (resumable, state in --runs); then some more steps in which agreement
across holes weighs six times as much, mixed with the first weights (a model soup, Wortsman et al., arXiv:2203.05482) so
that holes change at most 1 % of their surroundings at the least cost in accuracy.
mamol-conv: MaMOL on a small U-Net that is first trained on complete data, then frozen.
mamol-near: mamol-terra with attention over near tokens alone. It is not shipped (docs/decisions/0004): give --out.

The same seed gives the same weights on one machine. With glibc, MALLOC_MMAP_THRESHOLD_=4294967296
MALLOC_TRIM_THRESHOLD_=4294967296 in the environment halves the time.
"""

from __future__ import annotations

import argparse
import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import load_file

from mmedge.bundle import Tiling, open_bundle, write_model_json
from mmedge.edge.export import export_graphs
from mmedge.edge.item import ROLES
from mmedge.edge.models.galileo import Galileo
from mmedge.edge.models.mamol import CHANNELS, SENSORS, MaMOL, MaMOLConfig
from mmedge.edge.models.network import Network
from mmedge.edge.models.registry import build
from mmedge.edge.training import card
from mmedge.edge.training.batches import TRAIN, Sampler, TrainingSet
from mmedge.edge.training.evaluate import evaluate
from mmedge.edge.training.fit import Scores, fit
from mmedge.edge.training.samples import CLASS_VALUES, Arrays, with_relief
from mmedge.edge.training.score import TILING, WINDOW_PX
from mmedge.edge.training.terra import TerraConfig, TerraTask, domain
from mmedge.edge.training.tiling import tiling_of
from mmedge.geo_io.tiling import widened
from mmedge.modality import Derive

# The steadier weights' share of the mix: the smallest of .5, .6, .7 at which holes change less than 1 % on the scenes.
STEADY = TerraConfig(steps=200, agreement=60.0, learning_rate=1e-3)
STEADY_SHARE = 0.6
# Attention looks at the token alone, then at its neighbours: a class depends on a few tokens around it and hardly on
# where the window lies (docs/decisions/0004).
NEAR = MaMOLConfig(reaches=(0, 0, 1, 1))
BACKBONE = TerraConfig(steps=200, check_every=50, complete=True)
ADAPTERS = TerraConfig(steps=250, check_every=50)
CONV = {
    "method": "mamol",
    "encoder": "unet",
    "encoder_options": {"style": "relu", "widths": (16, 32, 64, 64)},
    "options": {"adapted": "coarsest"},
}


def training_windows(training: TrainingSet, derive: Derive) -> Arrays:
    """Some windows of every training block, as networks see them."""
    batch = Sampler(training).windows(np.random.default_rng(TRAIN), SENSORS, 96)
    return with_relief(batch.data, batch.valid, derive)


def new_model(data: Path, training: TrainingSet, config: MaMOLConfig, seed: int, kind: type[MaMOL] = MaMOL) -> MaMOL:
    """A model on the published weights, its training means taken from training windows."""
    galileo = Galileo()
    galileo.load_state_dict(load_file(data / "open/galileo_nano/encoder.safetensors"))
    torch.manual_seed(seed)
    model = kind.on(galileo, config)
    for sensor, x in training_windows(training, model.derive).items():
        mean = torch.from_numpy(x.mean((0, 2, 3))).view(-1, 1, 1)
        model.stems[sensor].get_buffer("mean").copy_(mean)
    return model


def fit_terra(model: Network, training: TrainingSet, seed: int, runs: Path) -> None:
    """Both stages and their mix. Validated in windows as wide as those of training."""
    config = TerraConfig(seed=seed)
    fit(model, TerraTask(training, config, SENSORS, tiling=TILING), config, folder=runs / "first", report=say)
    first = {name: t.clone() for name, t in model.state_dict().items()}
    config = replace(STEADY, seed=seed)
    fit(model, TerraTask(training, config, SENSORS, tiling=TILING), config, folder=runs / "steady", report=say)
    second = model.state_dict()
    model.load_state_dict({n: t.lerp(second[n], STEADY_SHARE) for n, t in first.items()})


def train_terra(data: Path, training: TrainingSet, seed: int, runs: Path) -> tuple[Network, Tiling]:
    model = new_model(data, training, MaMOLConfig(), seed)
    fit_terra(model, training, seed, runs)
    return model, TILING


def train_near(data: Path, training: TrainingSet, seed: int, runs: Path) -> tuple[Network, Tiling]:
    model = new_model(data, training, NEAR, seed)
    fit_terra(model, training, seed, runs)
    return model, card.NEAR_TILING


def new_conv(training: TrainingSet, seed: int, **recipe: Any) -> Network:
    torch.manual_seed(seed)
    model = build({**CONV, "channels": dict(CHANNELS), "classes": len(CLASS_VALUES), **recipe})
    windows = training_windows(training, model.derive)
    mean, deviation = (
        {m: torch.from_numpy(f(x, axis=(0, 2, 3))) for m, x in windows.items()} for f in (np.mean, np.std)
    )
    model.set_statistics(mean, deviation)
    return model


def fit_conv(model: Network, training: TrainingSet, seed: int, runs: Path) -> Scores:
    """Both stages; what the last one scored on validation."""
    scores: Scores = {}
    for stage, config in enumerate((BACKBONE, ADAPTERS)):
        model.begin_stage(stage)
        config = replace(config, seed=seed)
        scores = fit(model, TerraTask(training, config, SENSORS), config, folder=runs / f"stage-{stage}", report=say)
    return scores


def train_conv(data: Path, training: TrainingSet, seed: int, runs: Path) -> tuple[Network, Tiling]:
    model = new_conv(training, seed)
    fit_conv(model, training, seed, runs)
    return model, widened(tiling_of(model, WINDOW_PX, 0, derives=("terrain",)))


MODELS = {
    "mamol-terra": (train_terra, card.TERRA),
    "mamol-conv": (train_conv, card.CONV),
    "mamol-near": (train_near, card.NEAR),
}


def say(line: str) -> None:
    print(line, flush=True)


def write_bundle(
    model: Network, tiling: Tiling, kind: card.Card, args: argparse.Namespace, training: TrainingSet, accuracy: Any
) -> None:
    """Everything that ships, into an empty folder."""
    folder: Path = args.out or Path("mmedge/bundles") / kind.name
    if folder.exists():
        shutil.rmtree(folder)
    folder.mkdir(parents=True)
    export_graphs(model, folder, tiling)
    notice = (args.data / "open/galileo_nano/LICENSE").read_text(encoding="utf-8") if kind.pretrained else ""
    (folder / "LICENSE").write_text(kind.licence + notice, encoding="utf-8")
    scenes = [args.data / "open/terramesh" / scene.name for scene in training.scenes]
    known = domain(training, kind.derive)
    item = card.item(kind, model, tiling, scenes, accuracy=accuracy, domain=known)
    write_model_json(folder, item, ROLES, kind.fields)
    open_bundle(folder)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", choices=MODELS)
    parser.add_argument("--data", type=Path, default=Path("../shared/data"))
    parser.add_argument("--runs", type=Path, help="state of the training run; runs/MODEL")
    parser.add_argument("--out", type=Path, help="the bundle; mmedge/bundles/MODEL")
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()

    torch.set_num_threads(1)  # measured: two threads take 3.6 x the CPU time of one where other work runs beside
    training = TrainingSet.read(args.data)
    train, kind = MODELS[args.model]
    model, tiling = train(args.data, training, args.seed, args.runs or Path("runs") / args.model)
    model.eval()
    accuracy = {
        "validation": TerraTask(training, TerraConfig(), SENSORS).validate(model),
        **evaluate(model, training, SENSORS, None if tiling.kind == "convolutional" else tiling),
    }
    print(json.dumps(accuracy, indent=1))
    write_bundle(model, tiling, kind, args, training, accuracy)


if __name__ == "__main__":
    main()
