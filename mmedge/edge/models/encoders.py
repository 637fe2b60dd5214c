"""What every encoder offers: features of each sensor by itself, and their fusion, in which an absent sensor is nothing.

Two steps, so that methods can come between them: `encode` runs one tower a sensor; `fuse` sums the towers where they
have seen something (`merge`) and carries the sum back to full resolution (`spread`). Zeros of a masked feature and a
sensor left out are the same sum.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mmedge.edge.models.network import Maps

# Adds to a block's feed-forward: the block's name and the feed-forward's input, (B, h * w, D) or where the encoder says
# `beside_maps` (B, D, h, w), -> its shape, or None.
Beside = Callable[[str, Tensor], Tensor | None]


@dataclass(frozen=True, slots=True)
class Features:
    """What one sensor says, from fine to coarse: maps (B, D_i, H / s_i, W / s_i).

    They count only where `seen` (B, 1, H / s_i, W / s_i) is True, at least half of the pixels valid; None: everywhere.
    """

    maps: tuple[Tensor, ...]
    seen: tuple[Tensor | None, ...]

    def kept(self, keep: Tensor) -> Features:
        """The features of the examples of which `keep` (B,) bool is True; elsewhere the sensor is absent."""
        mask = keep.view(-1, 1, 1, 1)
        return replace(self, seen=tuple(mask if s is None else s & mask for s in self.seen))


@dataclass(frozen=True, slots=True)
class Site:
    """A block beside whose feed-forward an adapter can sit. `sensor` None: after fusion."""

    width: int
    stride: int
    sensor: str | None


class Encoder(nn.Module, ABC):
    """Towers and fusion. `strides` and `widths` of a tower's maps from fine to coarse, `width` of what `fuse` gives."""

    channels: Mapping[str, int]
    strides: tuple[int, ...]
    widths: tuple[int, ...]
    width: int
    sees_whole_window: bool
    beside_maps: bool = False
    averages: bool = False  # towers are averaged: without a norm, a sum would be as large as sensors are many
    join: nn.ModuleList  # for each stride: sensor -> 1 x 1 convolution

    @property
    def sensors(self) -> tuple[str, ...]:
        return tuple(self.channels)

    @abstractmethod
    def sites(self) -> dict[str, Site]:
        """Every block, by name, in the order of computation."""

    @abstractmethod
    def tower(self, sensor: str, x: Tensor, valid: Tensor, seen: Tensor | None, beside: Beside | None) -> list[Tensor]:
        """Maps of one sensor, from fine to coarse. `seen`: of the coarsest."""

    @abstractmethod
    def spread(self, coarse: Tensor, features: Mapping[str, Features], beside: Beside | None = None) -> Tensor:
        """From one coarse map of all sensors to (B, width, H, W), with the towers' finer maps."""

    def encode(
        self, data: Maps, valid: Maps, *, uniform: bool = False, beside: Beside | None = None
    ) -> dict[str, Features]:
        """Each sensor by itself. `uniform`: every square of the coarsest stride has every sensor of `data`."""
        features = {}
        for m in data:
            seen = [share_seen(valid[m], s) for s in self.strides[:-1]]
            last = None if uniform else share_seen(valid[m], self.strides[-1])
            features[m] = Features(tuple(self.tower(m, data[m], valid[m], last, beside)), (*seen, last))
        return features

    def merge(self, features: Mapping[str, Features], level: int) -> Tensor:
        """Sum over the sensors of one level: (B, D, h, w). A sensor adds exactly 0 where it has not seen.

        Where the encoder `averages`, the mean of those that have seen, as large as the sum of all would be.
        """
        joins = cast(nn.ModuleDict, self.join[level])
        total: Tensor | None = None
        for m, f in features.items():
            part: Tensor = joins[m](f.maps[level])
            seen = f.seen[level]
            part = part if seen is None else torch.where(seen, part, 0.0)
            total = part if total is None else total + part
        if total is None:
            raise ValueError("a network needs at least one sensor")
        return total * (len(self.sensors) / _count(features, level, total)) if self.averages else total

    def fuse(self, features: Mapping[str, Features], beside: Beside | None = None) -> Tensor:
        """(B, width, H, W) from whatever sensors are there."""
        return self.spread(self.merge(features, -1), features, beside)


def joins(channels: Mapping[str, int], widths: tuple[int, ...]) -> nn.ModuleList:
    """The convolutions of `Encoder.merge`."""
    return nn.ModuleList(nn.ModuleDict({m: nn.Conv2d(w, w, 1) for m in channels}) for w in widths)


def _count(features: Mapping[str, Features], level: int, like: Tensor) -> Tensor:
    """How many sensors have seen each place of a level, (B, 1, h, w) or one number, and at least 1."""
    count = like.new_zeros(())
    for f in features.values():
        seen = f.seen[level]
        count = count + (like.new_ones(()) if seen is None else seen.to(like.dtype))
    return count.clamp(min=1)


def share_seen(valid: Tensor, side: int) -> Tensor:
    """(B, 1, H / side, W / side) bool: at least half of the pixels of each square are valid."""
    return valid if side == 1 else F.avg_pool2d(valid.float(), side) >= 0.5


def any_seen(features: Mapping[str, Features], level: int) -> Tensor | None:
    """Where at least one sensor has seen something; None: everywhere."""
    total: Tensor | None = None
    for f in features.values():
        seen = f.seen[level]
        if seen is None:
            return None
        total = seen if total is None else total | seen
    return total


def pooled(z: Tensor, features: Mapping[str, Features]) -> Tensor:
    """Mean (B, D, 1, 1) of z (B, D, H, W) over the pixels that a sensor has seen."""
    seen = any_seen(features, 0)
    if seen is None:
        return z.mean((2, 3), keepdim=True)
    weight = seen.to(z.dtype)
    return (z * weight).sum((2, 3), keepdim=True) / weight.sum((2, 3), keepdim=True).clamp(min=1)
