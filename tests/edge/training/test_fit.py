"""The loop: it learns, a run that was stopped ends where an unbroken one does, a foreign state is refused."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch")
from torch import Tensor, nn  # noqa: E402

from mmedge.edge.models.network import Maps, Network  # noqa: E402
from mmedge.edge.training.batches import TrainingSet  # noqa: E402
from mmedge.edge.training.fit import _Run, fit  # noqa: E402
from mmedge.edge.training.missingness import Holes  # noqa: E402
from mmedge.edge.training.samples import LabelledScene, WorldPixels  # noqa: E402
from mmedge.edge.training.terra import TerraConfig, TerraTask  # noqa: E402
from mmedge.errors import OutputError  # noqa: E402

SENSORS = ("sar",)
CONFIG = TerraConfig(steps=8, draws=1, windows=2, world=0.0, check_every=4, learning_rate=0.05)


class Pixelwise(Network):
    """A linear classifier of each pixel: enough to learn a threshold."""

    sees_whole_window = True

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(2, 7, 1)

    def forward(self, data: Maps, valid: Maps, *, uniform: bool = False) -> Tensor:
        logits: Tensor = self.conv(torch.where(valid["sar"], data["sar"], -15.0) / 10 + 1.5)
        return logits


@pytest.fixture(scope="module")
def training() -> TrainingSet:
    """One made scene under a real split: two classes that VV tells apart."""
    rng = np.random.default_rng(0)
    labels = (rng.random((224, 224)) < 0.5).astype(np.int64)
    sar = np.stack([-20 + 10 * labels, -15 + 0 * labels]).astype(np.float32) + rng.normal(0, 1, (2, 224, 224))
    scene = LabelledScene(
        "433D_629L_3_1",
        {"sar": sar.astype(np.float32), "optical": np.zeros((9, 224, 224), np.float32)},
        {m: np.ones((224, 224), bool) for m in ("sar", "optical")},
        labels,
        (0, 0),
    )
    pixels = WorldPixels(
        {"sar": np.zeros((81, 1, 2), np.float32), "optical": np.zeros((81, 1, 9), np.float32)},
        {m: np.ones((81, 1), bool) for m in ("sar", "optical")},
        np.zeros(81, np.int64),
        np.array([f"{i:02d}" for i in range(81)]),
    )
    return TrainingSet((scene,), pixels, Holes())


def new() -> Pixelwise:
    torch.manual_seed(0)
    return Pixelwise()


def train(model: nn.Module, training: TrainingSet, config: TerraConfig, folder: Path) -> dict[str, float]:
    return fit(model, TerraTask(training, config, SENSORS), config, folder=folder, report=lambda _: None)


def test_it_learns(training: TrainingSet, tmp_path: Path) -> None:
    best = train(new(), training, replace(CONFIG, steps=120, check_every=40, average=0.5), tmp_path)
    assert best["accuracy"] > 0.95


def test_a_stopped_run_goes_on_where_it_was(training: TrainingSet, tmp_path: Path) -> None:
    whole, broken = new(), new()
    train(whole, training, CONFIG, tmp_path / "whole")

    class Stopped(Exception):
        pass

    def stop(line: str) -> None:
        raise Stopped(line)

    with pytest.raises(Stopped):
        fit(broken, TerraTask(training, CONFIG, SENSORS), CONFIG, folder=tmp_path / "broken", report=stop)
    resumed = new()
    best = train(resumed, training, CONFIG, tmp_path / "broken")
    assert best["step"] in (4, 8)
    for a, b in zip(whole.parameters(), resumed.parameters(), strict=True):
        assert torch.equal(a, b)


def test_a_run_of_another_configuration_is_refused(training: TrainingSet, tmp_path: Path) -> None:
    train(new(), training, CONFIG, tmp_path)
    with pytest.raises(ValueError, match="another configuration"):
        train(new(), training, replace(CONFIG, seed=1), tmp_path)


def test_no_pickle_is_written(training: TrainingSet, tmp_path: Path) -> None:
    train(new(), training, CONFIG, tmp_path)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["run.json", "state.safetensors"]


def test_a_full_disk_is_said_and_the_last_state_stays(training: TrainingSet, tmp_path: Path) -> None:
    resource = pytest.importorskip("resource", reason="limits of a process are POSIX")
    train(new(), training, CONFIG, tmp_path)
    before = {p.name: p.read_bytes() for p in tmp_path.iterdir()}
    model = new()
    run = _Run(model, torch.optim.AdamW(model.parameters()), tmp_path, CONFIG)
    run.load()
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (256, limits[1]))
    try:
        with pytest.raises(OutputError, match=r"state\.safetensors|run\.json"):
            run.save()
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert {p.name: p.read_bytes() for p in tmp_path.iterdir()} == before
