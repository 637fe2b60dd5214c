"""What every network offers: classes from whatever sensors are there, and the loss that trains it.

A sensor that is left out of `data` and one that is nowhere valid give the same logits; the first costs nothing.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mmedge.modality import Derive

Maps = Mapping[str, Tensor]


class Inlet(nn.Module):
    """Where a sensor enters a network. `mean` (C, 1, 1) stands for what is invalid."""

    mean: Tensor

    def __init__(self, sensor: str) -> None:
        super().__init__()
        self.sensor = sensor

    def set_statistics(self, mean: Tensor, deviation: Tensor) -> None:
        """Mean and standard deviation (C,) of the valid training pixels."""
        self.mean.copy_(mean.view(-1, 1, 1))


class Intake(Inlet):
    """The first operation on a sensor: what is invalid becomes the training mean, which normalises to exactly 0."""

    deviation: Tensor

    def __init__(self, sensor: str, channels: int) -> None:
        super().__init__(sensor)
        self.register_buffer("mean", torch.zeros(channels, 1, 1))
        self.register_buffer("deviation", torch.ones(channels, 1, 1))

    def forward(self, x: Tensor, valid: Tensor) -> Tensor:
        """(B, C, H, W) in model units -> mean 0, deviation 1."""
        return (torch.where(valid, x, self.mean) - self.mean) / self.deviation

    def set_statistics(self, mean: Tensor, deviation: Tensor) -> None:
        super().set_statistics(mean, deviation)
        self.deviation.copy_(deviation.view(-1, 1, 1).clamp(min=1e-6))


class Network(nn.Module, ABC):
    """A network for any subset of its sensors. `channels`: bands of each sensor, in the order of availability bits.

    Inputs: data (B, C, H, W) float32 in model units and valid (B, 1, H, W) bool for each sensor that is there.
    Logits: (B, classes, H, W) for a map, (B, classes) where a window is classified as a whole.
    """

    channels: Mapping[str, int]
    classes: int
    recipe: Mapping[str, Any]  # from which `registry.build` makes an equal, untrained network
    token_px: int  # availability is decided for squares of this side
    sees_whole_window: bool  # then windows lie on a fixed lattice; else the receptive field is finite
    stages: int = 1  # MaMOL on a backbone of its own: one on complete data, one for the adapters
    outputs: tuple[str, ...] = ("logits",)

    @property
    def derive(self) -> Derive:
        """What it takes for elevation, unless a bundle says otherwise: `relief` depends on the window."""
        return "relief" if self.sees_whole_window else "terrain"

    @property
    def sensors(self) -> tuple[str, ...]:
        return tuple(self.channels)

    @abstractmethod
    def forward(self, data: Maps, valid: Maps, *, uniform: bool = False) -> Tensor:
        """Logits. `uniform` promises that every token has every sensor of `data`."""

    def answers(self, data: Maps, valid: Maps, *, uniform: bool = False) -> tuple[Tensor, ...]:
        """What a graph of the network gives, named by `outputs`: the logits first."""
        return (self(data, valid, uniform=uniform),)

    def set_statistics(self, mean: Mapping[str, Tensor], deviation: Mapping[str, Tensor]) -> None:
        """Mean and standard deviation (C,) of each sensor's valid training pixels, before training."""
        for part in self.modules():
            if isinstance(part, Inlet):
                part.set_statistics(mean[part.sensor], deviation[part.sensor])

    def begin_stage(self, stage: int) -> None:
        """Called before each of the `stages`; it sets which parameters train. An optimiser is made afterwards."""

    def losses(self, data: Maps, valid: Maps, labels: Tensor, kept: Tensor) -> dict[str, Tensor]:
        """Terms whose sum is minimised, by name. labels: class indices, -1 = none; kept (B, sensors) bool.

        `kept` is what the missingness sampler leaves of each example; a method that trains on complete data besides
        (MARS, DyMo) finds it in `data`. Here: cross-entropy on what is kept.
        """
        logits = self(data, withheld(valid, kept, self.sensors))
        return {"task": F.cross_entropy(logits, labels, ignore_index=-1)}

    def pattern_weights(self) -> Mapping[tuple[str, ...], float] | None:
        """How often the sampler should draw each pattern in the coming epoch; None: as it likes (MARS has a wish)."""
        return None

    def end_epoch(self) -> None:
        """Called after each pass over the training data (prototypes of DyMo, pattern statistics of MARS)."""

    def finish(self, batches: Iterable[tuple[Maps, Maps, Tensor]]) -> None:
        """Called once after training with (data, valid, labels) that did not train it (statistics of DyMo)."""

    def oracle(self, data: Maps, valid: Maps, labels: Tensor, kept: Tensor) -> Tensor | None:
        """Logits with the help of what nobody knows when mapping: an upper bound to report. None: there is none."""
        return None


def withheld(valid: Maps, kept: Tensor, order: tuple[str, ...]) -> dict[str, Tensor]:
    """`valid` with the sensors that `kept` (B, sensors) denies invalid everywhere."""
    return {m: v & kept[:, order.index(m)].view(-1, 1, 1, 1) for m, v in valid.items()}
