"""What the default model learns: TerraMesh scenes and single pixels of the world, with agreement across holes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from torch import Tensor

from mmedge.bundle import Tiling
from mmedge.edge.domain import fit_domain, squares_of
from mmedge.edge.evaluation.metrics import Confusion
from mmedge.edge.models.network import Network
from mmedge.edge.training.batches import TRAIN, VALIDATE, Sampler, TrainingSet
from mmedge.edge.training.fit import FitConfig
from mmedge.edge.training.missingness import patterns
from mmedge.edge.training.samples import CLASS_VALUES, Arrays, Masks, cut, with_relief
from mmedge.edge.training.score import WINDOW_PX, score_scene, score_world, tensors
from mmedge.edge.training.split import part_of_pixels, windows_inside
from mmedge.modality import Derive

DOMAIN_WINDOWS = 85  # a scene


@dataclass(frozen=True, slots=True, kw_only=True)
class TerraConfig(FitConfig):
    """A step draws `draws` patterns; for each, `windows` windows are seen whole and with holes.

    `agreement` weighs the divergence between the two outside the holes, `world` the loss on single pixels. `complete`:
    no sensor is ever missing as a whole, as where MaMOL trains a backbone.
    """

    draws: int = 2
    windows: int = 6
    world_pixels: int = 64
    agreement: float = 10.0
    world: float = 0.3
    complete: bool = False

    def drawn(self, sensors: tuple[str, ...]) -> list[tuple[str, ...]]:
        """The sets of sensors that are drawn from, and validated."""
        return [sensors] if self.complete else patterns(sensors)


class TerraTask:
    """Fulfils `Task`. `everywhere` trains on all blocks (leave one scene out); `tiling`: as in `score.predict`."""

    def __init__(
        self,
        data: TrainingSet,
        config: TerraConfig,
        sensors: tuple[str, ...],
        *,
        everywhere: bool = False,
        tiling: Tiling | None = None,
    ) -> None:
        self.data, self.config, self.sensors, self.tiling = data, config, sensors, tiling
        self.sampler = Sampler(data, everywhere=everywhere)

    def loss(self, model: Network, rng: np.random.Generator, step: int) -> Tensor:
        config = self.config
        every = config.drawn(self.sensors)
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
            single = config.drawn(flat(self.sensors))
            present = single[rng.integers(len(single))]
            data, valid, truth = self.sampler.world_pixels(rng, present, config.world_pixels)
            logits = _logits(model, data, valid).mean((2, 3))
            losses.append(config.draws * config.world * F.cross_entropy(logits, torch.from_numpy(truth)))
        return torch.stack(losses).sum() / config.draws

    def validate(self, model: Network) -> dict[str, float]:
        """Mean over the sets of sensors of accuracy and mean IoU on validation blocks, and of accuracy on pixels."""
        found = [self._score(model, present) for present in self.config.drawn(self.sensors)]
        pixels = self.data.world_part(VALIDATE)
        world = [
            score_world(model, pixels, present, len(CLASS_VALUES)).overall_accuracy
            for present in self.config.drawn(flat(self.sensors))
        ]
        scores = {
            "accuracy": float(np.mean([c.overall_accuracy for c in found])),
            "iou": float(np.mean([c.mean_iou for c in found])),
            "world": float(np.mean(world)),
        }
        return scores | {"selection": 0.4 * scores["accuracy"] + 0.4 * scores["iou"] + 0.2 * scores["world"]}

    def _score(self, model: Network, present: tuple[str, ...]) -> Confusion:
        """On the validation blocks of all scenes."""
        first, *rest = (
            score_scene(model, s, present, part_of_pixels(s.name) == VALIDATE, tiling=self.tiling)
            for s in self.data.scenes
        )
        return sum(rest, first)


def flat(sensors: tuple[str, ...]) -> tuple[str, ...]:
    """Sensors that a single pixel can have: all but elevation, which needs its surroundings."""
    return tuple(m for m in sensors if m != "elevation")


def domain(data: TrainingSet, derive: Derive) -> dict[str, Any]:
    """What the training blocks look like to each sensor, as the bundle stores it."""
    squares: dict[str, list[npt.NDArray[np.float64]]] = {}
    for scene in data.scenes:
        origins = windows_inside(part_of_pixels(scene.name) == TRAIN, WINDOW_PX)
        origins = origins[:: len(origins) // DOMAIN_WINDOWS]
        seen, valid = cut(scene, origins, WINDOW_PX)
        for m, x in with_relief(seen, valid, derive).items():
            squares.setdefault(m, []).append(squares_of(x, valid[m]))
    return {m: fit_domain(np.concatenate(s)).document() for m, s in squares.items()}


def _logits(model: Network, data: Arrays, valid: Masks) -> Tensor:
    logits: Tensor = model(tensors(with_relief(data, valid, model.derive)), tensors(valid))
    return logits
