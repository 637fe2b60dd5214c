"""The fitting loop: missing-sensor patterns drawn each step, agreement across holes, early stopping, resumption.

A step depends on (seed, step) alone; the state on disk is tensors and JSON, so a stopped run goes on where it was.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from mmedge.edge.metrics import Confusion
from mmedge.edge.training.batches import VALIDATE, Sampler, TrainingSet
from mmedge.edge.training.missingness import patterns
from mmedge.edge.training.samples import Arrays, Masks, with_relief
from mmedge.edge.training.score import score_scene, score_world, tensors
from mmedge.edge.training.split import part_of_pixels


@dataclass(frozen=True, slots=True, kw_only=True)
class FitConfig:
    """Optimisation. Learning rate warms up over a tenth of the steps and falls to 0 linearly, as in the MaMOL paper.

    A step draws `draws` patterns; for each, `windows` windows are seen whole and with holes. `agreement` weighs the
    divergence between the two outside the holes, `world` the loss on single pixels.
    """

    seed: int = 0
    steps: int = 600
    draws: int = 2
    windows: int = 6
    world_pixels: int = 64
    learning_rate: float = 2e-3
    weight_decay: float = 2e-2
    agreement: float = 10.0
    world: float = 0.3
    average: float = 0.99
    check_every: int = 100
    patience: int = 6


def parameter_groups(model: nn.Module, weight_decay: float) -> list[dict[str, object]]:
    """Every trainable parameter once: matrices decay, the rest does not."""
    trained = [p for p in model.parameters() if p.requires_grad]
    return [
        {"params": [p for p in trained if p.ndim >= 2], "weight_decay": weight_decay},
        {"params": [p for p in trained if p.ndim < 2], "weight_decay": 0.0},
    ]


def validate(model: nn.Module, data: TrainingSet, sensors: tuple[str, ...]) -> dict[str, float]:
    """Mean over the availabilities of accuracy and mean IoU on the validation blocks; accuracy on world pixels."""
    model.eval()
    accuracy, iou, world = [], [], []
    for present in patterns(sensors):
        total: Confusion | None = None
        for scene in data.scenes:
            part = score_scene(model, scene, present, part_of_pixels(scene.name) == VALIDATE)
            total = part if total is None else total + part
        if total is None:
            raise ValueError("no scene to validate on")
        accuracy.append(total.overall_accuracy)
        iou.append(total.mean_iou)
        if "elevation" not in present:
            classes = len(total.counts)
            world.append(score_world(model, data.world_part(VALIDATE), present, classes).overall_accuracy)
    model.train()
    scores = {"accuracy": float(np.mean(accuracy)), "iou": float(np.mean(iou)), "world": float(np.mean(world))}
    return scores | {"selection": 0.4 * scores["accuracy"] + 0.4 * scores["iou"] + 0.2 * scores["world"]}


def fit(
    model: nn.Module,
    data: TrainingSet,
    config: FitConfig,
    *,
    sensors: tuple[str, ...],
    folder: Path,
    report: Callable[[str], None],
    everywhere: bool = False,
) -> dict[str, float]:
    """Train in place; afterwards `model` holds the averaged weights of the best validation. State goes to `folder`."""
    sampler = Sampler(data, everywhere=everywhere)
    optimiser = torch.optim.AdamW(
        parameter_groups(model, config.weight_decay), lr=config.learning_rate, betas=(0.9, 0.98)
    )
    run = _Run(model, optimiser, folder, config)
    run.load()
    while run.step < config.steps and run.stale < config.patience:
        _set_rate(optimiser, config, run.step)
        torch.manual_seed(config.seed * 1_000_003 + run.step)
        loss = _step(model, sampler, np.random.default_rng([config.seed, run.step]), config, sensors)
        optimiser.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        nn.utils.clip_grad_norm_([p for p in model.parameters() if p.requires_grad], 1.0)
        optimiser.step()
        run.advance()
        if run.step % config.check_every == 0 or run.step == config.steps:
            with run.averaged():
                scores = validate(model, data, sensors)
            run.record(scores)
            report(f"step {run.step}: loss {loss.item():.3f} " + " ".join(f"{k} {v:.4f}" for k, v in scores.items()))
    return run.restore_best()


def _step(
    model: nn.Module, sampler: Sampler, rng: np.random.Generator, config: FitConfig, sensors: tuple[str, ...]
) -> Tensor:
    every = patterns(sensors)
    losses = []
    for _ in range(config.draws):
        present = every[rng.integers(len(every))]
        batch = sampler.windows(rng, present, config.windows)
        labels = torch.from_numpy(batch.labels)
        whole = _logits(model, batch.data, batch.valid)
        holed = _logits(model, batch.data, batch.holed)
        seen = torch.from_numpy(np.logical_or.reduce([batch.holed[m] for m in present])[:, 0])
        untouched = torch.from_numpy(np.logical_and.reduce([batch.holed[m] == batch.valid[m] for m in present])[:, 0])
        loss = 0.5 * F.cross_entropy(whole, labels, ignore_index=-1)
        loss = loss + 0.5 * F.cross_entropy(holed, labels.where(seen, -1), ignore_index=-1)
        apart = F.kl_div(holed.log_softmax(1), whole.detach().softmax(1), reduction="none").sum(1)
        loss = loss + config.agreement * (apart * untouched).sum() / untouched.sum().clamp(min=1)
        losses.append(loss)
    if config.world:
        present = patterns(tuple(m for m in sensors if m != "elevation"))[rng.integers(3)]
        data, valid, truth = sampler.world_pixels(rng, present, config.world_pixels)
        logits = _logits(model, data, valid).mean((2, 3))
        losses.append(config.draws * config.world * F.cross_entropy(logits, torch.from_numpy(truth)))
    return torch.stack(losses).sum() / config.draws


def _logits(model: nn.Module, data: Arrays, valid: Masks) -> Tensor:
    logits: Tensor = model(tensors(with_relief(data, valid)), tensors(valid))
    return logits


def _set_rate(optimiser: torch.optim.Optimizer, config: FitConfig, step: int) -> None:
    warm = max(1, config.steps // 10)
    factor = (step + 1) / warm if step < warm else (config.steps - step) / max(1, config.steps - warm)
    for group in optimiser.param_groups:
        group["lr"] = config.learning_rate * factor


class _Run:
    """State of a training run: step, moments, averaged weights, best weights; on disk as safetensors and JSON."""

    def __init__(self, model: nn.Module, optimiser: torch.optim.Optimizer, folder: Path, config: FitConfig) -> None:
        self.model, self.optimiser, self.folder, self.config = model, optimiser, folder, config
        self.trained = {n: p for n, p in model.named_parameters() if p.requires_grad}
        self.mean = {n: p.detach().clone() for n, p in self.trained.items()}
        self.best: dict[str, Tensor] = {}
        self.step = self.stale = 0
        self.history: list[dict[str, float]] = []
        folder.mkdir(parents=True, exist_ok=True)

    def advance(self) -> None:
        self.step += 1
        decay = min(self.config.average, self.step / (self.step + 10))
        with torch.no_grad():
            for name, p in self.trained.items():
                self.mean[name].lerp_(p, 1 - decay)

    def averaged(self) -> _Swapped:
        return _Swapped(self.trained, self.mean)

    def record(self, scores: dict[str, float]) -> None:
        self.stale += 1
        if not self.history or scores["selection"] > max(h["selection"] for h in self.history):
            self.stale, self.best = 0, {n: t.clone() for n, t in self.mean.items()}
        self.history.append({"step": self.step, **scores})
        self.save()

    def restore_best(self) -> dict[str, float]:
        with torch.no_grad():
            for name, p in self.trained.items():
                p.copy_(self.best[name])
        self.model.eval()
        return max(self.history, key=lambda h: h["selection"])

    def save(self) -> None:
        state = {f"{kind}/{n}": t for kind, ts in (("mean", self.mean), ("best", self.best)) for n, t in ts.items()}
        for name, p in self.trained.items():
            state[f"now/{name}"] = p.detach().contiguous()
            for key, value in self.optimiser.state[p].items():
                state[f"{key}/{name}"] = value
        save_file(state, self.folder / "state.part", {"step": str(self.step), "stale": str(self.stale)})
        facts = {"config": asdict(self.config), "step": self.step, "stale": self.stale, "history": self.history}
        (self.folder / "run.part").write_text(json.dumps(facts, indent=1), encoding="utf-8")
        (self.folder / "state.part").replace(self.folder / "state.safetensors")
        (self.folder / "run.part").replace(self.folder / "run.json")

    def load(self) -> None:
        if not (self.folder / "run.json").is_file():
            return
        facts = json.loads((self.folder / "run.json").read_text(encoding="utf-8"))
        if facts["config"] != asdict(self.config):
            raise ValueError(f"{self.folder} holds a run of another configuration")
        self.step, self.stale, self.history = facts["step"], facts["stale"], facts["history"]
        state = load_file(self.folder / "state.safetensors")
        for name, p in self.trained.items():
            with torch.no_grad():
                p.copy_(state[f"now/{name}"])
            self.mean[name], self.best[name] = state[f"mean/{name}"], state[f"best/{name}"]
            self.optimiser.state[p] = {k: state[f"{k}/{name}"] for k in ("step", "exp_avg", "exp_avg_sq")}


class _Swapped:
    """Puts other values into parameters for the time of a `with` block."""

    def __init__(self, parameters: dict[str, nn.Parameter], values: dict[str, Tensor]) -> None:
        self.parameters, self.values = parameters, values
        self.kept: dict[str, Tensor] = {}

    def __enter__(self) -> None:
        self.kept = {n: p.detach().clone() for n, p in self.parameters.items()}
        self._put(self.values)

    def __exit__(self, *exc: object) -> None:
        self._put(self.kept)

    def _put(self, values: dict[str, Tensor]) -> None:
        with torch.no_grad():
            for name, p in self.parameters.items():
                p.copy_(values[name])
