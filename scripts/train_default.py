"""Train the default model and write its bundle: `python scripts/train_default.py --data ../shared/data`.

Stages: fit (resumable, state in --runs); steady: some more steps in which agreement across holes weighs six times as
much, mixed with the first weights (a model soup, Wortsman et al., arXiv:2203.05482) so that holes change at most 1 % of
their surroundings at the least cost in accuracy; evaluate; export. The same seed gives the same weights on one machine.
With glibc, MALLOC_MMAP_THRESHOLD_=4294967296 MALLOC_TRIM_THRESHOLD_=4294967296 in the environment halves the time.
"""

from __future__ import annotations

import argparse
import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import load_file

from mmedge.bundle import open_bundle, write_model_json
from mmedge.edge.export import export_graphs
from mmedge.edge.models.galileo import Galileo
from mmedge.edge.models.mamol import SENSORS, MaMOL, MaMOLConfig
from mmedge.edge.training import card
from mmedge.edge.training.batches import TRAIN, Sampler, TrainingSet
from mmedge.edge.training.evaluate import evaluate
from mmedge.edge.training.fit import fit
from mmedge.edge.training.item import ROLES
from mmedge.edge.training.samples import with_relief
from mmedge.edge.training.terra import TerraConfig, TerraTask, domain


def new_model(data: Path, training: TrainingSet, config: MaMOLConfig, seed: int, kind: type[MaMOL] = MaMOL) -> MaMOL:
    """A model on the published weights, its training means taken from training windows."""
    galileo = Galileo()
    galileo.load_state_dict(load_file(data / "open/galileo_nano/encoder.safetensors"))
    torch.manual_seed(seed)
    model = kind.on(galileo, config)
    batch = Sampler(training).windows(np.random.default_rng(TRAIN), SENSORS, 96)
    for sensor, x in with_relief(batch.data, batch.valid).items():
        mean = torch.from_numpy(x.mean((0, 2, 3))).view(-1, 1, 1)
        model.stems[sensor].get_buffer("mean").copy_(mean)
    return model


# The steadier weights' share of the mix: the smallest of .5, .6, .7 at which holes change less than 1 % on the scenes.
STEADY = TerraConfig(steps=200, agreement=60.0, learning_rate=1e-3)
STEADY_SHARE = 0.6


def steadied(model: MaMOL, training: TrainingSet, seed: int, folder: Path) -> None:
    """Go on training for agreement, then mix: in place."""
    first = {name: t.clone() for name, t in model.state_dict().items()}
    config = replace(STEADY, seed=seed)
    fit(model, TerraTask(training, config, SENSORS), config, folder=folder, report=say)
    second = model.state_dict()
    model.load_state_dict({n: t.lerp(second[n], STEADY_SHARE) for n, t in first.items()})
    model.eval()


def say(line: str) -> None:
    print(line, flush=True)


def write_bundle(model: MaMOL, folder: Path, data: Path, training: TrainingSet, accuracy: dict[str, object]) -> None:
    """Everything that ships, into an empty folder."""
    if folder.exists():
        shutil.rmtree(folder)
    folder.mkdir(parents=True)
    export_graphs(model, folder)
    notice = (data / "open/galileo_nano/LICENSE").read_text(encoding="utf-8")
    (folder / "LICENSE").write_text(card.LICENSE + notice, encoding="utf-8")
    scenes = [data / "open/terramesh" / scene.name for scene in training.scenes]
    write_model_json(folder, card.item(model, scenes, accuracy, domain(training)), ROLES, card.FIELDS)
    open_bundle(folder)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, default=Path("../shared/data"))
    parser.add_argument("--runs", type=Path, default=Path("runs/mamol-terra"), help="state of the training run")
    parser.add_argument("--out", type=Path, default=Path("mmedge/bundles/mamol-terra"))
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--steps", type=int, default=TerraConfig().steps)
    args = parser.parse_args()

    torch.set_num_threads(1)  # measured: two threads take 3.6 x the CPU time of one where other work runs beside
    training = TrainingSet.read(args.data)
    model = new_model(args.data, training, MaMOLConfig(), args.seed)
    config = TerraConfig(seed=args.seed, steps=args.steps)
    fit(model, TerraTask(training, config, SENSORS), config, folder=args.runs / "first", report=say)
    steadied(model, training, args.seed, args.runs / "steady")
    accuracy = {
        "validation": TerraTask(training, config, SENSORS).validate(model),
        **evaluate(model, training, SENSORS),
    }
    print(json.dumps(accuracy, indent=1))
    write_bundle(model, args.out, args.data, training, accuracy)


if __name__ == "__main__":
    main()
