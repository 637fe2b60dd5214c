"""Encoder and head: what modality dropout trains, and what the methods are compared with."""

from __future__ import annotations

from typing import Literal

from torch import Tensor, nn

from mmedge.edge.models.encoders import Beside, Encoder, pooled
from mmedge.edge.models.network import Maps, Network

Task = Literal["map", "window"]


class EncoderNetwork(Network):
    """A network on a pluggable encoder. Task `map`: a class for each pixel; `window`: one for the window."""

    def __init__(self, encoder: Encoder, classes: int, task: Task = "map") -> None:
        super().__init__()
        self.encoder, self.classes, self.task = encoder, classes, task
        self.channels = encoder.channels
        self.token_px = encoder.strides[-1]
        self.sees_whole_window = encoder.sees_whole_window or task == "window"


class Plain(EncoderNetwork):
    """Modality dropout: one network, trained on whatever the missingness sampler leaves (Neverova et al. 2016)."""

    def __init__(self, encoder: Encoder, classes: int, task: Task = "map") -> None:
        super().__init__(encoder, classes, task)
        self.head = nn.Conv2d(encoder.width, classes, 1)

    def forward(self, data: Maps, valid: Maps, *, uniform: bool = False) -> Tensor:
        beside = self.beside(valid, uniform=uniform)
        features = self.encoder.encode(data, valid, uniform=uniform, beside=beside)
        z = self.encoder.fuse(features, beside)
        logits: Tensor = self.head(z if self.task == "map" else pooled(z, features))
        return logits if self.task == "map" else logits.flatten(1)

    def beside(self, valid: Maps, *, uniform: bool) -> Beside | None:
        """What is added to the feed-forward of the encoder's blocks: nothing."""
        return None
