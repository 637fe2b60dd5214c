"""The fitting loop: optimisation, averaged weights, early stopping, resumption. What is learnt is a `Task`.

A step depends on (seed, step) alone; the state on disk is tensors and JSON, so a stopped run goes on where it was.
Started by torchrun on several processes, each draws its own examples and gradients are averaged.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Protocol

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, distributed, nn

from mmedge.edge.models.network import Network
from mmedge.files import written_together

STATE = "state.safetensors"
Scores = dict[str, float]


@dataclass(frozen=True, slots=True, kw_only=True)
class FitConfig:
    """Optimisation. Learning rate warms up over a tenth of the steps and falls to 0 linearly, as in the MaMOL paper.

    Weights are averaged with decay `average`; every `check_every` steps they are validated and saved. Training ends
    after `patience` validations without a better one.
    """

    seed: int = 0
    steps: int = 600
    learning_rate: float = 2e-3
    weight_decay: float = 2e-2
    average: float = 0.99
    check_every: int = 100
    patience: int = 6


class Task(Protocol):
    """What a network learns, and how well it does."""

    def loss(self, model: Network, rng: np.random.Generator, step: int) -> Tensor:
        """Loss of one step. Whatever is drawn comes from `rng` or torch's generator, both seeded by the step."""
        ...

    def validate(self, model: Network) -> Scores:
        """Scores of the averaged weights; the checkpoint with the highest `selection` is kept."""
        ...


def parameter_groups(model: nn.Module, weight_decay: float) -> list[dict[str, object]]:
    """Every trainable parameter once: matrices decay, the rest does not."""
    trained = [p for p in model.parameters() if p.requires_grad]
    return [
        {"params": [p for p in trained if p.ndim >= 2], "weight_decay": weight_decay},
        {"params": [p for p in trained if p.ndim < 2], "weight_decay": 0.0},
    ]


def fit(
    model: Network,
    task: Task,
    config: FitConfig,
    *,
    folder: Path,
    report: Callable[[str], None],
    progress: Callable[[int, int], None] = lambda done, steps: None,
    logged: Callable[[Sequence[Scores]], None] = lambda history: None,
) -> Scores:
    """Train in place; afterwards `model` holds the averaged weights of the best validation. State goes to `folder`.

    `report` gets a line a validation, `logged` all of them so far, each with the mean loss since the one before. Raises
    ValueError where `folder` holds a run of another configuration, OutputError where no state can be written.
    """
    optimiser = torch.optim.AdamW(
        parameter_groups(model, config.weight_decay), lr=config.learning_rate, betas=(0.9, 0.98)
    )
    run = _Run(model, optimiser, folder, config)
    run.load()
    model.train()
    losses: list[Tensor] = []  # since the last validation
    while run.step < config.steps and run.stale < config.patience:
        _set_rate(optimiser, config, run.step)
        torch.manual_seed(config.seed * 1_000_003 + run.step)
        draws = [config.seed, run.step, *([_rank()] if _rank() else [])]
        loss = task.loss(model, np.random.default_rng(draws), run.step)
        optimiser.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        _average_gradients(model)
        nn.utils.clip_grad_norm_([p for p in model.parameters() if p.requires_grad], 1.0)
        optimiser.step()
        run.advance()
        losses.append(loss.detach())
        progress(run.step, config.steps)
        if run.step % config.check_every == 0 or run.step == config.steps:
            with run.averaged():
                model.eval()
                scores = task.validate(model)
                model.train()
            mean = float(torch.stack(losses).mean())
            losses.clear()
            run.record({"loss": mean, **scores})
            logged(run.history)
            report(f"step {run.step}: loss {mean:.3f} " + " ".join(f"{k} {v:.4f}" for k, v in scores.items()))
    return run.restore_best()


def _rank() -> int:
    return distributed.get_rank() if distributed.is_initialized() else 0


def _average_gradients(model: nn.Module) -> None:
    """Over the processes of a distributed run. Parameters that one of them did not use count as 0 there."""
    if not distributed.is_initialized():
        return
    for p in model.parameters():
        if p.requires_grad:
            p.grad = torch.zeros_like(p) if p.grad is None else p.grad
            distributed.all_reduce(p.grad)
            p.grad /= distributed.get_world_size()


def _set_rate(optimiser: torch.optim.Optimizer, config: FitConfig, step: int) -> None:
    warm = max(1, config.steps // 10)
    factor = (step + 1) / warm if step < warm else (config.steps - step) / max(1, config.steps - warm)
    for group in optimiser.param_groups:
        group["lr"] = config.learning_rate * factor


class _Run:
    """State of a training run: step, moments, averaged weights, best weights, buffers; safetensors and JSON on disk."""

    def __init__(self, model: nn.Module, optimiser: torch.optim.Optimizer, folder: Path, config: FitConfig) -> None:
        self.model, self.optimiser, self.folder, self.config = model, optimiser, folder, config
        self.trained = {n: p for n, p in model.named_parameters() if p.requires_grad}
        self.mean = {n: p.detach().clone() for n, p in self.trained.items()}
        self.buffers = {n: b for n, b in model.named_buffers() if n in model.state_dict()}
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
        if distributed.is_initialized():  # each process has gathered statistics of its own
            for b in self.buffers.values():
                distributed.broadcast(b, 0)
        if not self.history or scores["selection"] > max(h["selection"] for h in self.history):
            self.stale, self.best = 0, {n: t.detach().clone() for n, t in {**self.buffers, **self.mean}.items()}
        self.history.append({"step": self.step, **scores})
        self.save()

    def restore_best(self) -> dict[str, float]:
        with torch.no_grad():
            for name, p in (*self.buffers.items(), *self.trained.items()):
                p.copy_(self.best[name])
        self.model.eval()
        return max(self.history, key=lambda h: h["selection"])

    def save(self) -> None:
        if _rank():
            return
        facts = {"config": asdict(self.config), "step": self.step, "stale": self.stale, "history": self.history}
        text = json.dumps(facts, indent=1)
        # The state holds everything; run.json is for readers.
        with written_together([self.folder / STATE, self.folder / "run.json"], also=(SafetensorError,)) as (state, run):
            save_file(self._state(), state, {"facts": text})
            run.write_text(text, encoding="utf-8")

    def _state(self) -> dict[str, Tensor]:
        kinds: dict[str, Mapping[str, Tensor]] = {
            "mean": self.mean,
            "best": self.best,
            "now": self.trained,
            "buffer": self.buffers,
        }
        state = {f"{kind}/{n}": t.detach() for kind, ts in kinds.items() for n, t in ts.items()}
        for name, p in self.trained.items():
            state |= {f"{key}/{name}": value for key, value in self.optimiser.state[p].items()}
        return {name: t.clone(memory_format=torch.contiguous_format) for name, t in state.items()}

    def load(self) -> None:
        path = self.folder / STATE
        if not path.is_file():
            return
        with safe_open(path, framework="pt") as file:
            facts = json.loads(file.metadata()["facts"])
            state = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        if facts["config"] != asdict(self.config):
            raise ValueError(f"{self.folder} holds a run of another configuration")
        self.step, self.stale, self.history = facts["step"], facts["stale"], facts["history"]
        with torch.no_grad():
            for kind, ts in (("now", self.trained), ("mean", self.mean), ("buffer", self.buffers)):
                for name, t in ts.items():
                    t.copy_(state[f"{kind}/{name}"])
        self.best = {n.removeprefix("best/"): t for n, t in state.items() if n.startswith("best/")}
        for name, p in self.trained.items():
            found = {k: state[f"{k}/{name}"] for k in ("step", "exp_avg", "exp_avg_sq") if f"{k}/{name}" in state}
            if found:  # a parameter that has had no gradient yet has no moments
                self.optimiser.state[p] = {k: t if k == "step" else _like(p, t) for k, t in found.items()}


def _like(p: nn.Parameter, t: Tensor) -> Tensor:
    """`t` where `p` is and laid out in memory as it, so that a resumed run computes the same bits."""
    return torch.empty_like(p, requires_grad=False).copy_(t)


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
