"""What `mmedge train` minimises and validates: a network's own losses on random windows of labelled scenes."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import torch
from torch import Tensor, nn

from mmedge.bundle import Tiling
from mmedge.edge.blocks import TRAIN, VALIDATE
from mmedge.edge.metrics import Confusion
from mmedge.edge.models.network import Network
from mmedge.edge.training.config import RunConfig
from mmedge.edge.training.draws import Draws, Ints
from mmedge.edge.training.missingness import patterns
from mmedge.edge.training.samples import Arrays, Masks
from mmedge.edge.training.scenes import SceneSet

Tensors = dict[str, Tensor]
SHORTEST_EPOCH = 10
STATISTICS_WINDOWS = 96


class SceneTask:
    """Fulfils `Task`. An epoch is as many windows as cover the training squares once."""

    def __init__(self, scenes: SceneSet, config: RunConfig, tiling: Tiling, device: torch.device) -> None:
        self.scenes, self.config, self.tiling, self.device = scenes, config, tiling, device
        self.draws = Draws(scenes, config)
        self.weights = self.draws.class_weights()
        pixels = sum(int((b.parts == TRAIN).sum()) * b.block_px**2 for b in scenes.blocks)
        self.epoch_steps = max(SHORTEST_EPOCH, pixels // (config.window_px**2 * config.fit.batch))
        self.windows = self._validation_windows()

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
        """Mean over the availabilities of accuracy and mean IoU; the accuracy of each."""
        found = self.confusions(model)
        accuracy = {name: c.overall_accuracy for name, c in found.items()}
        mean = float(np.mean(list(accuracy.values())))
        iou = float(np.mean([c.mean_iou for c in found.values()]))
        return {"accuracy": mean, "iou": iou, "selection": (mean + iou) / 2, **accuracy}

    def confusions(self, model: nn.Module) -> dict[str, Confusion]:
        """On the validation windows, by availability; pixels that no sensor of it has seen do not count."""
        classes = len(self.scenes.classes)
        found: dict[str, Confusion] = {}
        for data, valid, labels in self.validation():
            for present in patterns(self.scenes.sensors):
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
        halo, side = self.tiling.halo_px, self.tiling.window_px
        for which, origins in self.windows:
            data, valid = self.scenes.windows(which, origins, side)
            wanted = self.scenes.blocks[which].pixels() == VALIDATE
            labels = np.where(wanted, self.scenes.scenes[which].labels, -1)
            padded = np.pad(labels, side, constant_values=-1)
            cores = np.full((len(origins), side, side), -1, np.int64)
            inner = slice(halo, side - halo)
            for i, (row, col) in enumerate(origins + side):
                cores[i, inner, inner] = padded[row : row + side, col : col + side][inner, inner]
            inputs = self.scenes.inputs(which, data, valid)
            yield self.tensors(inputs), self.tensors(valid), torch.from_numpy(cores).to(self.device)

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

    def tensors(self, arrays: Arrays | Masks) -> Tensors:
        return {m: torch.from_numpy(np.ascontiguousarray(a)).to(self.device) for m, a in arrays.items()}

    def _validation_windows(self) -> list[tuple[int, Ints]]:
        """Batches (scene, origins) of lattice windows with validation labels, evenly thinned out."""
        found = [
            (which, origin)
            for which in range(len(self.scenes.scenes))
            for origin in _lattice(self.scenes, which, self.tiling, VALIDATE)
        ]
        wanted = self.config.fit.validate_windows
        chosen = [found[i] for i in np.linspace(0, len(found) - 1, min(wanted, len(found))).round().astype(int)]
        batches = []
        for which in range(len(self.scenes.scenes)):
            mine = np.array([o for w, o in chosen if w == which], np.int64).reshape(-1, 2)
            size = self.config.fit.batch
            batches += [(which, mine[i : i + size]) for i in range(0, len(mine), size)]
        return batches


def _lattice(scenes: SceneSet, which: int, tiling: Tiling, part: int) -> list[tuple[int, int]]:
    """Origins of the windows of inference whose cores hold labels of a part."""
    labels = np.where(scenes.blocks[which].pixels() == part, scenes.scenes[which].labels, -1) >= 0
    step, halo = tiling.stride_px, tiling.halo_px
    first = [-(a % step) for a in scenes.scenes[which].anchor]
    return [
        (row - halo, col - halo)
        for row in range(first[0], labels.shape[0], step)
        for col in range(first[1], labels.shape[1], step)
        if labels[max(0, row) : row + step, max(0, col) : col + step].any()
    ]


def _network(model: nn.Module) -> Network:
    if not isinstance(model, Network):
        raise TypeError(f"{type(model).__name__} is not a Network")
    return model
