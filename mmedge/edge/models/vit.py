"""A small vision transformer: one tower for all sensors, run once for each, and a path at full resolution beside it.

Dosovitskiy et al., arXiv:2010.11929. A depth-wise convolution over the tokens stands for their positions (Chu et al.,
arXiv:2102.10882), so that a class does not depend on where the lattice of windows happens to lie.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mmedge.edge.models.encoders import Beside, Encoder, Features, Site, any_seen, joins
from mmedge.edge.models.galileo import MASKED, Block
from mmedge.edge.models.network import Intake


class ViT(Encoder):
    """Patches of `patch` px; `depth` layers for each sensor, `depth_fused` after fusion. Windows of any size.

    Tokens with fewer than half of their pixels valid are no keys of attention.
    """

    sees_whole_window = True

    def __init__(
        self,
        channels: Mapping[str, int],
        *,
        patch: int = 8,
        tokens: int = 64,
        depth: int = 3,
        depth_fused: int = 1,
        fine: int = 16,
        width: int = 32,
        decode: bool = True,
    ) -> None:
        super().__init__()
        self.channels, self.width = dict(channels), width
        self.strides, self.widths = ((1, patch), (fine, tokens)) if decode else ((patch,), (tokens,))
        self.intake = nn.ModuleDict({m: Intake(m, c) for m, c in channels.items()})
        self.patch = nn.ModuleDict({m: nn.Conv2d(c + 1, tokens, patch, patch) for m, c in channels.items()})
        self.place = nn.Conv2d(tokens, tokens, 3, padding=1, groups=tokens)
        self.blocks = nn.ModuleList(Block(tokens) for _ in range(depth))
        self.norm = nn.LayerNorm(tokens)
        self.join = joins(channels, self.widths)
        self.fine = nn.ModuleDict()
        if not decode:
            return
        self.fine.update({m: nn.Conv2d(c + 1, fine, 3, padding=1) for m, c in channels.items()})
        self.fused = nn.ModuleList(Block(tokens) for _ in range(depth_fused))
        self.context = nn.Linear(tokens, fine)
        self.out = nn.Conv2d(fine, width, 3, padding=1)

    def sites(self) -> dict[str, Site]:
        width, stride = self.widths[-1], self.strides[-1]
        sites = {f"{m}.{i}": Site(width, stride, m) for m in self.sensors for i in range(len(self.blocks))}
        return sites | {f"fused.{i}": Site(width, stride, None) for i in range(len(self.fused))}

    def tower(self, sensor: str, x: Tensor, valid: Tensor, seen: Tensor | None, beside: Beside | None) -> list[Tensor]:
        x = torch.cat([self.intake[sensor](x, valid), valid.to(x.dtype)], dim=1)
        tokens = self.patch[sensor](x)
        tokens = _layers(self.blocks, sensor, tokens + self.place(tokens), seen, beside)
        tokens = self.norm(tokens.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)
        return [F.gelu(self.fine[sensor](x)), tokens] if self.fine else [tokens]

    def spread(self, coarse: Tensor, features: Mapping[str, Features], beside: Beside | None = None) -> Tensor:
        x = _layers(self.fused, "fused", coarse, any_seen(features, -1), beside)
        context = self.context(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)
        context = F.interpolate(context, scale_factor=float(self.strides[-1]), mode="bilinear", align_corners=False)
        z: Tensor = self.out(F.gelu(context + self.merge(features, 0)))
        return z


def _layers(blocks: nn.ModuleList, name: str, x: Tensor, seen: Tensor | None, beside: Beside | None) -> Tensor:
    """Transformer layers on a map (B, D, h, w)."""
    batch, width, rows, cols = x.shape
    bias = None if seen is None else torch.where(seen, 0.0, MASKED).flatten(1)[:, None, None]
    tokens = x.flatten(2).transpose(1, 2)
    for i, block in enumerate(blocks):
        tokens, z = cast(Block, block).attend(tokens, bias)
        tokens = tokens + cast(Block, block).mlp(z)
        extra = beside(f"{name}.{i}", z.view(batch, rows, cols, width)) if beside else None
        tokens = tokens if extra is None else tokens + extra.view(batch, rows * cols, width)
    return tokens.transpose(1, 2).reshape(batch, width, rows, cols)
