"""What every network offers: classes from whatever sensors are there, and the loss that trains it.

A sensor that is left out of `data` and one that is nowhere valid give the same logits; the first costs nothing.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping

import torch.nn.functional as F
from torch import Tensor, nn

Maps = Mapping[str, Tensor]


class Network(nn.Module, ABC):
    """A network for any subset of its sensors. `channels`: bands of each sensor, in the order of availability bits.

    Inputs: data (B, C, H, W) float32 in model units and valid (B, 1, H, W) bool for each sensor that is there.
    Logits: (B, classes, H, W) for a map, (B, classes) where a window is classified as a whole.
    """

    channels: Mapping[str, int]
    classes: int

    @property
    def sensors(self) -> tuple[str, ...]:
        return tuple(self.channels)

    @abstractmethod
    def forward(self, data: Maps, valid: Maps, *, uniform: bool = False) -> Tensor:
        """Logits. `uniform` promises that every token has every sensor of `data`."""

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


def withheld(valid: Maps, kept: Tensor, order: tuple[str, ...]) -> dict[str, Tensor]:
    """`valid` with the sensors that `kept` (B, sensors) denies invalid everywhere."""
    return {m: v & kept[:, order.index(m)].view(-1, 1, 1, 1) for m, v in valid.items()}
