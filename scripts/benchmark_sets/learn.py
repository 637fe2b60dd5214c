"""Train one method on one split, and score it for every availability. All methods get the same encoder and budget."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import cast

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from benchmark_sets.examples import Benchmark, Ints, Split
from benchmark_sets.variants import variant_of
from mmedge.edge.evaluation.metrics import Confusion
from mmedge.edge.models.baselines import Specialists
from mmedge.edge.models.dymo import DyMo
from mmedge.edge.models.mars import Mars
from mmedge.edge.models.network import Network
from mmedge.edge.models.registry import build
from mmedge.edge.training.batches import turn
from mmedge.edge.training.fit import FitConfig, fit
from mmedge.edge.training.missingness import kept_of

SCORED_AT_ONCE = 16  # maps; 64 times as many windows
Sensors = tuple[str, ...]
Confusions = dict[str, Confusion]
Tensors = dict[str, Tensor]


@dataclass(slots=True)
class Scored:
    """Confusions by availability: `test`; `oracle`, which knows too much; DyMo's `impute-all` and `discard`."""

    confusions: dict[str, Confusions] = field(default_factory=dict)
    validation: list[float] = field(default_factory=list)
    parameters: int = 0

    def add(self, name: str, found: Confusions) -> None:
        before = self.confusions.get(name)
        self.confusions[name] = found if before is None else {a: before[a] + c for a, c in found.items()}


def train_and_score(
    benchmark: Benchmark, protocol: str, method: str, seed: int, folder: Path, report: Callable[[str], None]
) -> Scored:
    """Every split of a protocol; state of the runs goes to `folder`."""
    scored = Scored()
    for split in benchmark.protocols[protocol]:
        network = _network(benchmark, method, seed)
        task = SplitTask(benchmark, split, benchmark.sensors, benchmark.tested)
        network.set_statistics(*task.statistics())
        best = _fit(network, task, seed, folder / f"{split.name}-{_made_of(network, task)}", report)
        network.finish(task.validation())
        network.eval()
        if isinstance(network, DyMo):
            network.config = replace(network.config, **variant_of(method).after)
        scored.parameters = sum(p.numel() for p in network.parameters())
        scored.validation.append(round(best, 4))
        for name, found in _variants(network, task):
            scored.add(name, found)
    return scored


def _made_of(network: Network, task: SplitTask) -> str:
    """Of what makes a training run: state of another one is never taken up."""
    found = hashlib.sha256(json.dumps([network.recipe, asdict(task.benchmark.budget)]).encode())
    for rows in (task.split.train, task.split.validate):
        found.update(rows.tobytes())
    return found.hexdigest()[:8]


def _network(benchmark: Benchmark, method: str, seed: int) -> Network:
    torch.manual_seed(seed)
    channels = {m: x.shape[1] for m, x in benchmark.data.items()}
    variant = variant_of(method)
    recipe = {"method": variant.method, "options": dict(variant.options), "task": benchmark.task}
    network = build({**recipe, "channels": channels, "classes": len(benchmark.classes), **benchmark.encoder})
    return network.to(memory_format=torch.channels_last)  # a quarter less time for convolutions on a CPU


def _fit(network: Network, task: SplitTask, seed: int, folder: Path, report: Callable[[str], None]) -> float:
    """Train all that there is to train; the selected validation score.

    Stages share the budget. Specialists are networks of their own and get the whole budget each.
    """
    if isinstance(network, Specialists):
        found = []
        for sensors in task.judged:
            alone = replace(task, sensors=sensors, judged=(sensors,), whole=True)
            name = "+".join(sensors)
            one = cast(Network, network.each[name])
            found.append(_stage(one, alone, seed, alone.steps, folder / name, report))
        return float(np.mean(found))
    best = 0.0
    for stage in range(network.stages):
        network.begin_stage(stage)
        complete = network.stages > 1 and stage == 0
        part = replace(task, judged=(task.sensors,)) if complete else task
        best = _stage(network, part, seed, task.steps // network.stages, folder / f"stage-{stage}", report)
    return best


def _stage(
    network: Network, task: SplitTask, seed: int, steps: int, folder: Path, report: Callable[[str], None]
) -> float:
    config = FitConfig(seed=seed, steps=steps, check_every=task.benchmark.budget.check_every)
    return fit(network, task, config, folder=folder, report=report)["selection"]


def _variants(network: Network, task: SplitTask) -> Iterator[tuple[str, Confusions]]:
    test = task.split.test
    yield "test", task.confusions(network, test, task.benchmark.tested)
    oracle = task.oracle(network, test)
    if oracle:
        yield "oracle", oracle
    if isinstance(network, DyMo):
        chosen = network.config
        for name, accept in (("impute-all", "all"), ("discard", "none")):
            network.config = replace(chosen, accept=accept)
            yield name, task.confusions(network, test, task.benchmark.tested)
        network.config = chosen


@dataclass(frozen=True, slots=True)
class SplitTask:
    """Fulfils `Task` of the fitting loop.

    `sensors`: the only ones that exist (for a specialist); `judged`: the availabilities whose mean score chooses the
    checkpoint; `whole`: no sensor is ever missing in training.
    """

    benchmark: Benchmark
    split: Split
    sensors: Sensors
    judged: tuple[Sensors, ...]
    whole: bool = False

    @property
    def steps(self) -> int:
        return self.benchmark.budget.steps

    def loss(self, model: Network, rng: np.random.Generator, step: int) -> Tensor:
        batch, train = self.benchmark.budget.batch, self.split.train
        if step and step % max(1, len(train) // batch) == 0:
            model.end_epoch()
        data, labels = self._examples(rng, rng.choice(train, batch))
        wish = model.pattern_weights()
        there = np.ones(len(self.sensors), bool)
        kept = [there if self.whole else kept_of("guided", rng, there, self.sensors, wish) for _ in range(batch)]
        terms = model.losses(data, _all_valid(data), labels, torch.from_numpy(np.stack(kept)))
        return torch.stack(list(terms.values())).sum()

    def validate(self, model: Network) -> dict[str, float]:
        found = self.confusions(model, self.split.validate, self.judged)
        scores = {name: headline(self.benchmark, c) for name, c in found.items()}
        return {"selection": float(np.mean(list(scores.values()))), **scores}

    def confusions(self, model: Network, rows: Ints, availabilities: tuple[Sensors, ...]) -> Confusions:
        """On the examples `rows`, against labels at their own resolution."""

        def logits(data: Tensors, labels: Tensor, present: Sensors) -> Tensor:
            some = {m: data[m] for m in present}
            found: Tensor = model(some, _all_valid(some), uniform=True)
            return found

        return self._count(rows, availabilities, logits)

    def oracle(self, network: Network, rows: Ints) -> Confusions:
        """The network's upper bound; empty where it has none, or where the rows lack a sensor."""
        blind = isinstance(network, Mars) and not network.config.residual
        if type(network).oracle is Network.oracle or blind or self.sensors not in self.benchmark.tested:
            return {}

        def logits(data: Tensors, labels: Tensor, present: Sensors) -> Tensor:
            kept = torch.tensor([[m in present for m in self.sensors]]).expand(len(labels), -1)
            found = network.oracle(data, _all_valid(data), labels, kept)
            if found is None:
                raise ValueError(f"{type(network).__name__} has no upper bound for {present}")
            return found

        return self._count(rows, self.benchmark.tested, logits)

    def validation(self) -> Iterator[tuple[Tensors, Tensors, Tensor]]:
        """Complete validation examples: data, valid, labels."""
        for rows in self._batches(self.split.validate):
            data, labels = self._tensors(rows)
            yield data, _all_valid(data), labels

    def statistics(self) -> tuple[Tensors, Tensors]:
        """Mean and standard deviation (C,) of each sensor over the training examples."""
        mean, deviation = {}, {}
        for m in self.sensors:
            x = self.benchmark.data[m][self.split.train].astype(np.float64)
            mean[m] = torch.tensor(x.mean((0, 2, 3)), dtype=torch.float32)
            deviation[m] = torch.tensor(x.std((0, 2, 3)), dtype=torch.float32)
        return mean, deviation

    @torch.no_grad()
    def _count(
        self, rows: Ints, availabilities: tuple[Sensors, ...], logits: Callable[[Tensors, Tensor, Sensors], Tensor]
    ) -> Confusions:
        found: Confusions = {}
        classes = len(self.benchmark.classes)
        for some in self._batches(rows):
            data, labels = self._tensors(some)
            for present in availabilities:
                classed = logits(data, labels, present).argmax(1).numpy()
                part = Confusion.of(*self._against_truth(some, labels, classed), classes)
                name = "+".join(present)
                found[name] = found[name] + part if name in found else part
        return found

    def _against_truth(
        self, rows: Ints, labels: Tensor, classed: npt.NDArray[np.int64]
    ) -> tuple[npt.NDArray[np.integer], npt.NDArray[np.integer]]:
        """Reference and map at the reference's own resolution."""
        truth = self.benchmark.truth
        if truth is None:
            return labels.numpy(), classed
        times = truth.shape[-1] // classed.shape[-1]
        return truth[rows], classed.repeat(times, 1).repeat(times, 2)

    def _batches(self, rows: Ints) -> Iterator[Ints]:
        size = SCORED_AT_ONCE * (1 if self.benchmark.task == "map" else 64)
        for i in range(0, len(rows), size):
            yield rows[i : i + size]

    def _tensors(self, rows: Ints) -> tuple[Tensors, Tensor]:
        data = {m: torch.from_numpy(self.benchmark.data[m][rows].astype(np.float32)) for m in self.sensors}
        return data, torch.from_numpy(self.benchmark.labels[rows])

    def _examples(self, rng: np.random.Generator, rows: Ints) -> tuple[Tensors, Tensor]:
        """Training examples: a random crop, turned and mirrored at random."""
        height, width = next(iter(self.benchmark.data.values())).shape[2:]
        side = self.benchmark.budget.window_px or height
        taken: dict[str, list[npt.NDArray[np.float32]]] = {m: [] for m in self.sensors}
        labels = []
        for row in rows:
            top, left = int(rng.integers(height - side + 1)), int(rng.integers(width - side + 1))
            window = np.s_[row : row + 1, ..., top : top + side, left : left + side]
            turns, flip = int(rng.integers(4)), bool(rng.random() < 0.5)
            for m in self.sensors:
                taken[m].append(turn(self.benchmark.data[m][window].astype(np.float32), turns, flip))
            is_map = self.benchmark.task == "map"
            labels.append(turn(self.benchmark.labels[window], turns, flip) if is_map else self.benchmark.labels[[row]])
        return (
            {m: torch.from_numpy(np.concatenate(parts)) for m, parts in taken.items()},
            torch.from_numpy(np.concatenate(labels)),
        )


def headline(benchmark: Benchmark, confusion: Confusion) -> float:
    """The figure that chooses checkpoints, higher is better."""
    if benchmark.score == "flood_iou":
        return float(np.nan_to_num(confusion.iou()[1]))
    return -rmse(benchmark, confusion) if benchmark.score == "rmse" else confusion.overall_accuracy


def rmse(benchmark: Benchmark, confusion: Confusion) -> float:
    """Of the grades that the classes stand for."""
    grade = np.array(benchmark.grades)
    return float(np.sqrt((confusion.counts * (grade[:, None] - grade) ** 2).sum() / max(1, confusion.pixels)))


def figures(benchmark: Benchmark, confusion: Confusion) -> dict[str, float]:
    """What a row keeps of one availability."""
    found = {
        "oa": confusion.overall_accuracy,
        "aa": confusion.average_accuracy,
        "kappa": confusion.kappa,
        "miou": confusion.mean_iou,
        "macro_f1": confusion.macro_f1,
    }
    if benchmark.score == "flood_iou":
        found["flood_iou"] = headline(benchmark, confusion)
    if benchmark.grades:
        found["rmse"] = rmse(benchmark, confusion)
    return {name: round(value, 4) for name, value in found.items()}


def _all_valid(data: Tensors) -> Tensors:
    return {m: torch.ones_like(x[:, :1], dtype=torch.bool) for m, x in data.items()}
