"""DyMo's transformer over whatever sensors there are, and the recovery of those that are not (arXiv:2601.22853)."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mmedge.edge.models.galileo import MASKED, Block


class DynamicTransformer(nn.Module):
    """[CLS; one token a sensor] -> CLS. Sensors that `mask` denies are no keys."""

    def __init__(self, sensors: int, width: int, *, heads: int, layers: int) -> None:
        super().__init__()
        self.cls = nn.Parameter(torch.randn(width) * 0.02)
        self.kind = nn.Parameter(torch.randn(sensors, width) * 0.02)
        self.blocks = nn.ModuleList(Block(width, heads) for _ in range(layers))
        self.norm = nn.LayerNorm(width)

    def forward(self, tokens: Tensor, mask: Tensor) -> Tensor:
        """tokens (R, M, D), mask (R, M) bool -> (R, D)."""
        tokens = torch.where(mask[..., None], tokens, 0.0) + self.kind
        x = torch.cat([self.cls.expand(tokens.shape[0], 1, -1), tokens], dim=1)
        bias = F.pad(torch.where(mask, 0.0, MASKED), (1, 0))[:, None, None]
        for block in self.blocks:
            x = block(x, bias)
        cls: Tensor = self.norm(x[:, 0])
        return cls


class Recovery(nn.Module):
    """Guesses the tokens of every sensor from those that were observed."""

    def __init__(self, sensors: int, width: int, hidden: int) -> None:
        super().__init__()
        self.first = nn.Linear(sensors * (width + 1), hidden)
        self.second = nn.Linear(hidden, sensors * width)

    def forward(self, tokens: Tensor, seen: Tensor) -> Tensor:
        """tokens (R, M, D), seen (R, M) bool -> (R, M, D)."""
        observed = torch.where(seen[..., None], tokens, 0.0)
        hidden = F.gelu(self.first(torch.cat([observed.flatten(1), seen.to(tokens.dtype)], dim=1)))
        guess: Tensor = self.second(hidden).view(tokens.shape)
        return guess
