"""What the default model learns: TerraMesh scenes and single pixels of the world, with agreement across holes."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mmedge.edge.metrics import Confusion
from mmedge.edge.training.batches import VALIDATE, Sampler, TrainingSet
from mmedge.edge.training.fit import FitConfig
from mmedge.edge.training.missingness import patterns
from mmedge.edge.training.samples import Arrays, Masks, with_relief
from mmedge.edge.training.score import score_scene, score_world, tensors
from mmedge.edge.training.split import part_of_pixels


@dataclass(frozen=True, slots=True, kw_only=True)
class TerraConfig(FitConfig):
    """A step draws `draws` patterns; for each, `windows` windows are seen whole and with holes.

    `agreement` weighs the divergence between the two outside the holes, `world` the loss on single pixels.
    """

    draws: int = 2
    windows: int = 6
    world_pixels: int = 64
    agreement: float = 10.0
    world: float = 0.3


class TerraTask:
    """Fulfils `Task`. `everywhere` trains on all blocks (leave one scene out)."""

    def __init__(
        self, data: TrainingSet, config: TerraConfig, sensors: tuple[str, ...], *, everywhere: bool = False
    ) -> None:
        self.data, self.config, self.sensors = data, config, sensors
        self.sampler = Sampler(data, everywhere=everywhere)

    def loss(self, model: nn.Module, rng: np.random.Generator, step: int) -> Tensor:
        config = self.config
        every = patterns(self.sensors)
        losses = []
        for _ in range(config.draws):
            present = every[rng.integers(len(every))]
            batch = self.sampler.windows(rng, present, config.windows)
            labels = torch.from_numpy(batch.labels)
            whole = _logits(model, batch.data, batch.valid)
            holed = _logits(model, batch.data, batch.holed)
            seen = torch.from_numpy(np.logical_or.reduce([batch.holed[m] for m in present])[:, 0])
            untouched = torch.from_numpy(
                np.logical_and.reduce([batch.holed[m] == batch.valid[m] for m in present])[:, 0]
            )
            loss = 0.5 * F.cross_entropy(whole, labels, ignore_index=-1)
            loss = loss + 0.5 * F.cross_entropy(holed, labels.where(seen, -1), ignore_index=-1)
            apart = F.kl_div(holed.log_softmax(1), whole.detach().softmax(1), reduction="none").sum(1)
            loss = loss + config.agreement * (apart * untouched).sum() / untouched.sum().clamp(min=1)
            losses.append(loss)
        if config.world:
            present = patterns(tuple(m for m in self.sensors if m != "elevation"))[rng.integers(3)]
            data, valid, truth = self.sampler.world_pixels(rng, present, config.world_pixels)
            logits = _logits(model, data, valid).mean((2, 3))
            losses.append(config.draws * config.world * F.cross_entropy(logits, torch.from_numpy(truth)))
        return torch.stack(losses).sum() / config.draws

    def validate(self, model: nn.Module) -> dict[str, float]:
        return validate(model, self.data, self.sensors)


def validate(model: nn.Module, data: TrainingSet, sensors: tuple[str, ...]) -> dict[str, float]:
    """Mean over the availabilities of accuracy and mean IoU on the validation blocks; accuracy on world pixels."""
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
    scores = {"accuracy": float(np.mean(accuracy)), "iou": float(np.mean(iou)), "world": float(np.mean(world))}
    return scores | {"selection": 0.4 * scores["accuracy"] + 0.4 * scores["iou"] + 0.2 * scores["world"]}


def _logits(model: nn.Module, data: Arrays, valid: Masks) -> Tensor:
    logits: Tensor = model(tensors(with_relief(data, valid)), tensors(valid))
    return logits
