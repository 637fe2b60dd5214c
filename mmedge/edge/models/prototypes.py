"""Class prototypes of DyMo: what projected features of a class look like, over all subsets and for each of them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mmedge.edge.models.selection import Distance, similarity


class Prototypes(nn.Module):
    """Buffers alone; no gradient. Subsets are codes: bit i stands for sensor i.

    `moving` (C, d): means of the last epoch, for the training loss. `overall` (C, d), `mean` (2^M, C, d) and
    `deviation` (2^M, C): taken after training.
    """

    moving: Tensor
    total: Tensor
    count: Tensor
    epochs: Tensor
    overall: Tensor
    mean: Tensor
    deviation: Tensor

    def __init__(self, sensors: int, classes: int, width: int, distance: Distance, temperature: float) -> None:
        super().__init__()
        self.distance, self.temperature = distance, temperature
        self.register_buffer("moving", torch.zeros(classes, width))
        self.register_buffer("total", torch.zeros(classes, width))
        self.register_buffer("count", torch.zeros(classes))
        self.register_buffer("epochs", torch.zeros(()))
        self.register_buffer("overall", torch.zeros(classes, width))
        self.register_buffer("mean", torch.zeros(2**sensors, classes, width))
        self.register_buffer("deviation", torch.ones(2**sensors, classes))

    def scores(self, z: Tensor) -> Tensor:
        """Logits (R, C) of the prototype classifier for projections z (R, d)."""
        return self._nearness(self._unit(z), self.moving) / self.temperature

    @torch.no_grad()
    def add(self, z: Tensor, truth: Tensor) -> None:
        """Count projections z (R, d) of classes truth (R,), -1 = none, towards the next epoch's prototypes."""
        known = truth >= 0
        self.total.index_add_(0, truth[known], self._unit(z[known]).to(self.total.dtype))
        self.count.index_add_(0, truth[known], torch.ones_like(truth[known], dtype=self.count.dtype))

    def end_epoch(self) -> None:
        """The means of the epoch become the prototypes; a class that was not seen keeps its own."""
        fresh = self.total / self.count.clamp(min=1)[:, None]
        self.moving.copy_(torch.where(self.count[:, None] > 0, fresh, self.moving))
        self.total.zero_()
        self.count.zero_()
        self.epochs += 1

    @contextmanager
    def collecting(self) -> Iterator[Callable[[int, Tensor, Tensor], None]]:
        """Gives `collect(code, z, truth)`; at the end the statistics of every subset are set."""
        shape, d = self.mean.shape[:2], self.mean.shape[2]
        count = self.mean.new_zeros(shape)
        first, second = self.mean.new_zeros(*shape, d), self.mean.new_zeros(*shape, d, d)

        def collect(code: int, z: Tensor, truth: Tensor) -> None:
            z = self._unit(z)
            count[code].index_add_(0, truth, torch.ones_like(z[:, 0]))
            first[code].index_add_(0, truth, z)
            second[code].index_add_(0, truth, z[:, :, None] * z[:, None])

        yield collect
        self._set(count, first, second)

    def _set(self, count: Tensor, first: Tensor, second: Tensor) -> None:
        some = count > 0
        mean = first / count.clamp(min=1)[..., None]
        moment = second / count.clamp(min=1)[..., None, None]
        if self.distance == "cosine":  # E (1 - <z, mu>)^2
            along = torch.einsum("scd,scde,sce->sc", mean, moment, mean)
            squared = 1 - 2 * mean.square().sum(-1) + along
        else:  # E |z - mu|^2
            squared = moment.diagonal(dim1=-2, dim2=-1).sum(-1) - mean.square().sum(-1)
        deviation = squared.clamp(min=1e-6).sqrt()
        sets = some.sum(0)
        overall = torch.where(
            sets[:, None] > 0, (mean * some[..., None]).sum(0) / sets.clamp(min=1)[:, None], self.moving
        )
        usual = (deviation * some).sum() / some.sum().clamp(min=1)
        self.overall.copy_(overall)
        self.mean.copy_(torch.where(some[..., None], mean, overall))
        self.deviation.copy_(torch.where(some, deviation, usual.clamp(min=1e-3)))

    def judge(self, z: Tensor, found: Tensor, codes: Tensor) -> tuple[Tensor, Tensor]:
        """Confidence and similarity (R, K) of projections z (R, K, d) of the sets `codes` (K,), found to be `found`."""
        z = self._unit(z)
        confidence = (self._nearness(z, self.overall) / self.temperature).softmax(-1).amax(-1)
        where = codes * self.mean.shape[1] + found
        mean = self.mean.flatten(0, 1)[where]
        delta = 1 - (z * mean).sum(-1) if self.distance == "cosine" else (z - mean).square().sum(-1).sqrt()
        return confidence, similarity(delta, self.deviation.flatten()[where])

    def _unit(self, z: Tensor) -> Tensor:
        return F.normalize(z, dim=-1) if self.distance == "cosine" else z

    def _nearness(self, z: Tensor, prototypes: Tensor) -> Tensor:
        """-d: higher is nearer."""
        if self.distance == "cosine":
            return z @ prototypes.T
        return -(z[..., None, :] - prototypes).square().sum(-1)
