"""Fill the results table of the default model, row by row: `python scripts/score_default.py --data ../shared/data`.

Rows are majority class, gradient-boosted trees, modality dropout of equal size, MaMOL, and MaMOL on a U-Net (`conv`,
the recipe of mamol-conv); in scene (train and test blocks are disjoint) and leave one scene out (trained on two scenes,
scored on all of the third); three seeds. Each row is appended to --out as soon as it is done, and a row that is there
is not run again. Networks train `--steps` steps on one thread (the U-Net its own number) and keep the checkpoint that
is best on the validation blocks.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from rows import Row, append_row, read_rows
from train_default import ADAPTERS, BACKBONE, fit_conv, new_conv, new_model, say

from mmedge.edge.evaluation.metrics import Confusion
from mmedge.edge.models.baselines import ModalityDropout
from mmedge.edge.models.mamol import SENSORS, MaMOL, MaMOLConfig
from mmedge.edge.models.network import Network
from mmedge.edge.training.batches import TEST, TRAIN, TrainingSet
from mmedge.edge.training.evaluate import summary
from mmedge.edge.training.fit import Scores, fit
from mmedge.edge.training.missingness import patterns
from mmedge.edge.training.samples import CLASS_VALUES, LabelledScene
from mmedge.edge.training.score import score_scene, score_world
from mmedge.edge.training.split import part_of_pixels
from mmedge.edge.training.terra import TerraConfig, TerraTask
from mmedge.edge.training.trees import score_trees

SEEDS = (0, 1, 2)
NETWORKS = {"mamol": MaMOL, "dropout": ModalityDropout}
CONV = "conv"
Part = tuple[LabelledScene, "np.ndarray[tuple[int, ...], np.dtype[np.bool_]]"]


def parts(data: TrainingSet, left_out: str | None) -> tuple[TrainingSet, list[Part], list[Part]]:
    """What trains, and the pixels of training and of test."""
    if left_out is None:
        every = [(s, part_of_pixels(s.name)) for s in data.scenes]
        return data, [(s, p == TRAIN) for s, p in every], [(s, p == TEST) for s, p in every]
    rest = TrainingSet(tuple(s for s in data.scenes if s.name != left_out), data.world, data.holes)
    other = next(s for s in data.scenes if s.name == left_out)
    train = [(s, part_of_pixels(s.name) == TRAIN) for s in rest.scenes]
    return rest, train, [(other, np.ones(other.labels.shape, bool))]


def scored(confusions: dict[str, list[Confusion]], test: list[Part]) -> Row:
    """Summaries of all test scenes together and of each, by availability."""
    total = {name: summary(sum(cs[1:], cs[0])) for name, cs in confusions.items()}
    each = {s.name: {name: summary(cs[i]) for name, cs in confusions.items()} for i, (s, _) in enumerate(test)}
    return {"test": total, "test_by_scene": each}


def majority(train: list[Part], test: list[Part]) -> Row:
    counts = sum(np.bincount(s.labels[m & (s.labels >= 0)], minlength=len(CLASS_VALUES)) for s, m in train)
    found = [
        Confusion.of(s.labels[m], np.full(int(m.sum()), int(np.argmax(counts))), len(CLASS_VALUES)) for s, m in test
    ]
    return scored({"+".join(p): found for p in patterns(SENSORS)}, test)


def trees(train: list[Part], test: list[Part], seed: int) -> Row:
    return scored({"+".join(p): score_trees(train, test, p, seed) for p in patterns(SENSORS)}, test)


def trained(
    kind: str, data: TrainingSet, args: argparse.Namespace, seed: int, folder: Path
) -> tuple[Network, Scores, int]:
    """A network, what it scored on validation, and in how many steps it got there."""
    if kind == CONV:
        model = new_conv(data, seed)
        return model, fit_conv(model, data, seed, folder), BACKBONE.steps + ADAPTERS.steps
    model = new_model(args.data, data, MaMOLConfig(), seed, kind=NETWORKS[kind])
    config = TerraConfig(seed=seed, steps=args.steps)
    task = TerraTask(data, config, SENSORS)
    return model, fit(model, task, config, folder=folder, report=say), args.steps


def network(kind: str, data: TrainingSet, test: list[Part], args: argparse.Namespace, seed: int, folder: Path) -> Row:
    model, best, steps = trained(kind, data, args, seed, folder)
    model.eval()
    confusions = {"+".join(p): [score_scene(model, s, p, m) for s, m in test] for p in patterns(SENSORS)}
    world = {
        "+".join(p): summary(score_world(model, data.world_part(TEST), p, len(CLASS_VALUES)))
        for p in patterns(tuple(m for m in SENSORS if m != "elevation"))
    }
    sizes = [p.numel() for p in model.parameters() if p.requires_grad or kind == CONV]  # its first stage trains all
    found = scored(confusions, test)
    return {**found, "world": world, "validation": best, "trained_parameters": sum(sizes), "steps": steps}


def wanted(data: TrainingSet) -> Iterator[tuple[str, str | None, int]]:
    """(kind, scene left out, seed) of every row, what matters most first."""
    names = [s.name for s in data.scenes]
    for place in (None, *names):
        yield "majority", place, 0
    yield from (("trees", None, seed) for seed in SEEDS)
    yield from ((kind, None, seed) for seed in SEEDS for kind in NETWORKS)
    yield from ((CONV, None, seed) for seed in SEEDS)
    yield from (("mamol", name, seed) for seed in SEEDS for name in names)
    yield from (("trees", name, seed) for seed in SEEDS for name in names)
    yield from ((kind, name, seed) for seed in SEEDS for name in names for kind in ("dropout", CONV))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=Path("../shared/data"))
    parser.add_argument("--runs", type=Path, default=Path("runs/score"), help="state of the training runs")
    parser.add_argument("--out", type=Path, default=Path("docs/results/default_model_rows.json"))
    parser.add_argument("--steps", type=int, default=600)
    parser.add_argument("--kinds", nargs="+", default=["majority", "trees", *NETWORKS, CONV], help="only these rows")
    parser.add_argument("--minutes", type=float, default=1e9, help="begin no row after this time")
    args = parser.parse_args()
    torch.set_num_threads(1)
    data, start = TrainingSet.read(args.data), time.monotonic()
    done = {(row["kind"], row["left_out"], row["seed"]) for row in read_rows(args.out)}
    for kind, place, seed in wanted(data):
        if kind not in args.kinds or (kind, place, seed) in done:
            continue
        if time.monotonic() - start > 60 * args.minutes:
            break
        training, train, test = parts(data, place)
        began = time.monotonic()
        if kind == "majority":
            row = majority(train, test)
        elif kind == "trees":
            row = trees(train, test, seed)
        else:
            row = network(kind, training, test, args, seed, args.runs / f"{kind}-{place}-{seed}")
        row = {"kind": kind, "left_out": place, "seed": seed, "seconds": round(time.monotonic() - began), **row}
        append_row(args.out, row)
        every = [s["oa"] for s in row["test"].values()]
        print(kind, place, seed, f"mean OA of 7: {np.mean(every):.4f}", f"{row['seconds']} s", flush=True)


if __name__ == "__main__":
    main()
