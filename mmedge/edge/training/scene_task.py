"""What `mmedge train` minimises and validates: a network's own losses on random windows of labelled scenes."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from mmedge.bundle import Tiling
from mmedge.edge.domain import fit_domain, squares_of
from mmedge.edge.evaluation.blocks import TRAIN, VALIDATE
from mmedge.edge.evaluation.metrics import Confusion
from mmedge.edge.models.network import Network
from mmedge.edge.training.config import RunConfig
from mmedge.edge.training.draws import Draws, Ints, labels_at
from mmedge.edge.training.missingness import patterns
from mmedge.edge.training.samples import Arrays, Masks
from mmedge.edge.training.scenes import SceneSet
from mmedge.errors import UsageError

Tensors = dict[str, Tensor]
SHORTEST_EPOCH = 10
STATISTICS_WINDOWS = 96
DOMAIN_WINDOWS = 256


class SceneTask:
    """Fulfils `Task`. An epoch is as many windows as cover the training squares once."""

    def __init__(self, scenes: SceneSet, config: RunConfig, tiling: Tiling, device: torch.device) -> None:
        self.scenes, self.config, self.tiling, self.device = scenes, config, tiling, device
        self.draws = Draws(scenes, config)
        self.weights = self.draws.class_weights()
        pixels = sum(int((b.parts == TRAIN).sum()) * b.block_px**2 for b in scenes.blocks)
        self.epoch_steps = max(SHORTEST_EPOCH, pixels // (config.window_px**2 * config.fit.batch))
        self.windows = self._validation_windows()
        if not self.windows:
            raise UsageError("no square validates", hint="leave out `part` of a scene, or give one `part: validate`")
        self.judged: Sequence[tuple[str, ...]] = patterns(scenes.sensors)

    def begin_stage(self, network: Network, stage: int) -> None:
        """A stage that trains on complete data is judged on them alone."""
        complete = stage == 0 and network.stages > 1
        self.judged = (self.scenes.sensors,) if complete else patterns(self.scenes.sensors)

    def loss(self, model: nn.Module, rng: np.random.Generator, step: int) -> Tensor:
        network = _network(model)
        if step and step % self.epoch_steps == 0:
            network.end_epoch()
        wish = network.pattern_weights() if self.config.missing.sampler == "guided" else None
        batch = self.draws.examples(rng, self.config.fit.batch, wish)
        seen = np.logical_or.reduce(
            [batch.valid[m][:, 0] & batch.kept[:, i, None, None] for i, m in enumerate(self.scenes.sensors)]
        )
        labels = batch.labels
        # Labels of frequent classes are thinned out: a weighted loss in expectation, whatever the method's terms are.
        for wanted in (seen, rng.random(labels.shape) < self.weights[labels]):
            labels = np.where(wanted, labels, -1) if (wanted & (labels >= 0)).any() else labels
        with torch.autocast(
            self.device.type, torch.bfloat16, enabled=self.config.fit.amp and self.device.type == "cuda"
        ):
            terms = network.losses(
                self.tensors(batch.data),
                self.tensors(batch.valid),
                torch.from_numpy(labels).to(self.device),
                torch.from_numpy(batch.kept).to(self.device),
            )
        return torch.stack(list(terms.values())).sum()

    def validate(self, model: nn.Module) -> dict[str, float]:
        """Mean over the availabilities of accuracy and mean IoU; the accuracy of each that some pixel has seen."""
        found = {name: c for name, c in self.confusions(model).items() if c.pixels}
        accuracy = {name: c.overall_accuracy for name, c in found.items()}
        mean = float(np.mean(list(accuracy.values())))
        iou = float(np.mean([c.mean_iou for c in found.values()]))
        return {"accuracy": mean, "iou": iou, "selection": (mean + iou) / 2, **accuracy}

    def confusions(self, model: nn.Module) -> dict[str, Confusion]:
        """On the validation windows, by availability; pixels that no sensor of it has seen do not count."""
        classes = len(self.scenes.classes)
        found: dict[str, Confusion] = {}
        for data, valid, labels in self.validation():
            for present in self.judged:
                with torch.no_grad():
                    logits = model({m: data[m] for m in present}, {m: valid[m] for m in present})
                seen = torch.stack([valid[m][:, 0] for m in present]).any(0)
                known = labels.where(seen, -1).cpu().numpy()
                part = Confusion.of(known, logits.argmax(1).cpu().numpy(), classes)
                name = "+".join(present)
                found[name] = found[name] + part if name in found else part
        return found

    def validation(self) -> Iterator[tuple[Tensors, Tensors, Tensor]]:
        """Complete validation windows: inputs, valid, and the labels of their cores that validate."""
        for which, origins, labels in self.windows:
            data, valid = self.scenes.windows(which, origins, self.tiling.window_px)
            inputs = self.scenes.inputs(which, data, valid)
            yield self.tensors(inputs), self.tensors(valid), torch.from_numpy(labels).to(self.device)

    def statistics(self) -> tuple[Tensors, Tensors]:
        """Mean and standard deviation (C,) of each sensor's valid training pixels."""
        batch = self.draws.examples(np.random.default_rng(self.config.seed), STATISTICS_WINDOWS, plain=True)
        mean, deviation = {}, {}
        for m in self.scenes.sensors:
            pixels = np.moveaxis(batch.data[m], 1, 0)[:, batch.valid[m][:, 0]].astype(np.float64)
            empty = pixels.shape[1] == 0
            mean[m] = torch.tensor(np.zeros(len(pixels)) if empty else pixels.mean(1), dtype=torch.float32)
            deviation[m] = torch.tensor(np.ones(len(pixels)) if empty else pixels.std(1), dtype=torch.float32)
        return mean, deviation

    def domain(self) -> dict[str, Any]:
        """What training looks like to each sensor, as the bundle stores it; sensors that no scene has are left out."""
        batch = self.draws.examples(np.random.default_rng(self.config.seed), DOMAIN_WINDOWS, plain=True)
        squares = {m: squares_of(batch.data[m], batch.valid[m]) for m in self.scenes.sensors}
        return {m: fit_domain(s).document() for m, s in squares.items() if len(s)}

    def tensors(self, arrays: Arrays | Masks) -> Tensors:
        return {m: torch.from_numpy(np.ascontiguousarray(a)).to(self.device) for m, a in arrays.items()}

    def _validation_windows(self) -> list[tuple[int, Ints, Ints]]:
        """Batches (scene, origins, labels) of lattice windows with validation labels, evenly thinned out."""
        step, halo, size = self.tiling.stride_px, self.tiling.halo_px, self.config.fit.batch
        found = []
        for which, (scene, blocks) in enumerate(zip(self.scenes.scenes, self.scenes.blocks, strict=True)):
            wanted = np.where(blocks.pixels() == VALIDATE, scene.labels, -1)
            first = [-(a % step) for a in scene.anchor]
            for row in range(first[0], wanted.shape[0], step):
                for col in range(first[1], wanted.shape[1], step):
                    core = labels_at(wanted, row, col, step)
                    if (core >= 0).any():
                        found.append((which, (row - halo, col - halo), np.pad(core, halo, constant_values=-1)))
        number = min(self.config.fit.validate_windows, len(found))
        chosen = [found[int(i)] for i in np.linspace(0, len(found) - 1, number).round()]
        batches = []
        for which in range(len(self.scenes.scenes)):
            mine = [(origin, labels) for w, origin, labels in chosen if w == which]
            for i in range(0, len(mine), size):
                origins, labels = zip(*mine[i : i + size], strict=True)
                batches.append((which, np.array(origins, np.int64), np.stack(labels)))
        return batches


def _network(model: nn.Module) -> Network:
    if not isinstance(model, Network):
        raise TypeError(f"{type(model).__name__} is not a Network")
    return model
