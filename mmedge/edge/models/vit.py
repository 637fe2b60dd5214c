"""A small vision transformer: one tower for all sensors, run once for each.

Dosovitskiy et al., arXiv:2010.11929. A depth-wise convolution over the tokens stands for their positions (Chu et al.,
arXiv:2102.10882), so that a class does not depend on where the lattice of windows happens to lie.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from mmedge.edge.models.encoders import Beside
from mmedge.edge.models.galileo import Block
from mmedge.edge.models.network import Intake
from mmedge.edge.models.tokens import TokenEncoder, layers


class ViT(TokenEncoder):
    """`depth` layers for each sensor. Masks enter as a channel. Windows of any multiple of `patch`."""

    def __init__(
        self, channels: Mapping[str, int], *, patch: int = 8, tokens: int = 64, depth: int = 3, **sizes: Any
    ) -> None:
        super().__init__(channels, patch=patch, tokens=tokens, **sizes)
        self.depth = depth
        self.intake = nn.ModuleDict({m: Intake(m, c) for m, c in channels.items()})
        self.patch = nn.ModuleDict({m: nn.Conv2d(c + 1, tokens, patch, patch) for m, c in channels.items()})
        self.place = nn.Conv2d(tokens, tokens, 3, padding=1, groups=tokens)
        self.blocks = nn.ModuleList(Block(tokens) for _ in range(depth))
        self.norm = nn.LayerNorm(tokens)

    def normalise(self, sensor: str, x: Tensor, valid: Tensor) -> Tensor:
        y: Tensor = self.intake[sensor](x, valid)
        return y

    def tokens(self, sensor: str, x: Tensor, valid: Tensor, seen: Tensor | None, beside: Beside | None) -> Tensor:
        patches = self.patch[sensor](torch.cat([x, valid.to(x.dtype)], dim=1))
        y = layers(self.blocks, sensor, patches + self.place(patches), seen, beside)
        normed: Tensor = self.norm(y.permute(0, 2, 3, 1))
        return normed.permute(0, 3, 1, 2)
