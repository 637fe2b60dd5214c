"""Two processes: each draws its own examples, both end with the weights that one process gets from all of them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch")
from torch import Tensor, distributed, multiprocessing, nn  # noqa: E402

from mmedge.edge.training.fit import FitConfig, fit  # noqa: E402

CONFIG = FitConfig(steps=6, check_every=3, learning_rate=0.1)


def new() -> nn.Module:
    torch.manual_seed(0)
    return nn.Linear(3, 1)


def error(model: nn.Module, rng: np.random.Generator) -> Tensor:
    x = torch.from_numpy(rng.normal(size=(4, 3)).astype(np.float32))
    loss: Tensor = ((model(x) - x.sum(1, keepdim=True)) ** 2).mean()
    return loss


class OneShare:
    """What each process learns."""

    def loss(self, model: nn.Module, rng: np.random.Generator, step: int) -> Tensor:
        return error(model, rng)

    def validate(self, model: nn.Module) -> dict[str, float]:
        with torch.no_grad():
            return {"selection": -float(error(model, np.random.default_rng(9)))}


class AllShares(OneShare):
    """The same examples in one process."""

    def loss(self, model: nn.Module, rng: np.random.Generator, step: int) -> Tensor:
        draws = [np.random.default_rng(seed) for seed in ([0, step], [0, step, 1])]
        return torch.stack([error(model, r) for r in draws]).mean()


def work(rank: int, folder: str) -> None:
    distributed.init_process_group("gloo", init_method=f"file://{folder}/store", rank=rank, world_size=2)
    model = new()
    fit(model, OneShare(), CONFIG, folder=Path(folder) / "run", report=lambda _: None)
    torch.save(model.state_dict(), f"{folder}/{rank}.pt")
    distributed.destroy_process_group()


def test_two_processes_learn_what_one_does(tmp_path: Path) -> None:
    multiprocessing.spawn(work, (str(tmp_path),), nprocs=2)
    alone = new()
    fit(alone, AllShares(), CONFIG, folder=tmp_path / "alone", report=lambda _: None)
    for rank in (0, 1):
        found = torch.load(tmp_path / f"{rank}.pt", weights_only=True)
        for name, value in alone.state_dict().items():
            torch.testing.assert_close(found[name], value, rtol=1e-5, atol=1e-6)
    assert (tmp_path / "run/state.safetensors").is_file()
