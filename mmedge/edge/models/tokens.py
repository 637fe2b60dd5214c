"""Encoders made of tokens: transformer towers at a coarse grid, and a small path at full resolution beside them."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mmedge.edge.models.encoders import Beside, Encoder, Features, Site, any_seen, joins
from mmedge.edge.models.galileo import MASKED, Block


class TokenEncoder(Encoder):
    """Tokens of `patch` px and width `tokens`; `fine` channels at full resolution; `depth_fused` layers after fusion.

    Tokens with fewer than half of their pixels valid are no keys of attention. `decode` False: the towers alone.
    """

    sees_whole_window = True
    depth: int  # layers of a tower

    def __init__(
        self,
        channels: Mapping[str, int],
        *,
        patch: int,
        tokens: int,
        depth_fused: int = 1,
        fine: int = 16,
        width: int = 32,
        decode: bool = True,
    ) -> None:
        super().__init__()
        self.channels, self.width = dict(channels), width
        self.strides, self.widths = ((1, patch), (fine, tokens)) if decode else ((patch,), (tokens,))
        self.join = joins(channels, self.widths)
        self.fine = nn.ModuleDict()
        if not decode:
            return
        self.fine.update({m: nn.Conv2d(c + 1, fine, 3, padding=1) for m, c in channels.items()})
        self.fused = nn.ModuleList(Block(tokens) for _ in range(depth_fused))
        self.context = nn.Linear(tokens, fine)
        self.out = nn.Conv2d(fine, width, 3, padding=1)

    @abstractmethod
    def normalise(self, sensor: str, x: Tensor, valid: Tensor) -> Tensor:
        """Model units -> the network's scale; the training mean where a pixel is invalid."""

    @abstractmethod
    def tokens(self, sensor: str, x: Tensor, valid: Tensor, seen: Tensor | None, beside: Beside | None) -> Tensor:
        """Normalised x (B, C, H, W) -> (B, D, H / patch, W / patch)."""

    def sites(self) -> dict[str, Site]:
        width, stride = self.widths[-1], self.strides[-1]
        sites = {f"{m}.{i}": Site(width, stride, m) for m in self.sensors for i in range(self.depth)}
        return sites | {f"fused.{i}": Site(width, stride, None) for i in range(len(self.fused))}

    def tower(self, sensor: str, x: Tensor, valid: Tensor, seen: Tensor | None, beside: Beside | None) -> list[Tensor]:
        x = self.normalise(sensor, x, valid)
        coarse = self.tokens(sensor, x, valid, seen, beside)
        if not self.fine:
            return [coarse]
        return [F.gelu(self.fine[sensor](torch.cat([x, valid.to(x.dtype)], dim=1))), coarse]

    def spread(self, coarse: Tensor, features: Mapping[str, Features], beside: Beside | None = None) -> Tensor:
        seen = any_seen(features, -1)
        x = layers(self.fused, "fused", coarse, seen, beside)
        context = self.context(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)
        context = F.interpolate(context, scale_factor=float(self.strides[-1]), mode="bilinear", align_corners=False)
        z: Tensor = self.out(F.gelu(context + self.merge(features, 0)))
        return z


def layers(
    blocks: nn.ModuleList, name: str, x: Tensor, seen: Tensor | None, beside: Beside | None, groups: int = 1
) -> Tensor:
    """Transformer layers on maps (B, D, groups * h, w); `seen` (B, 1, h, w)."""
    batch, width, rows, cols = x.shape
    bias = None if seen is None else torch.where(seen, 0.0, MASKED).flatten(1).repeat(1, groups)[:, None, None]
    tokens = x.flatten(2).transpose(1, 2)
    for i, block in enumerate(blocks):
        tokens, z = cast(Block, block).attend(tokens, bias)
        tokens = tokens + cast(Block, block).mlp(z)
        extra = beside(f"{name}.{i}", z) if beside else None
        tokens = tokens if extra is None else tokens + extra
    return tokens.transpose(1, 2).reshape(batch, width, rows, cols)
