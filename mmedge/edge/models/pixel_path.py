"""A small path at full resolution that refines what tokens know: sharp edges, and single pixels can train it."""

from __future__ import annotations

from collections.abc import Mapping

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class PixelPath(nn.Module):
    """1 x 1 convolutions per sensor, summed, then a depth-wise 3 x 3 that carries every sensor's mask as a channel.

    An absent sensor and an invalid pixel contribute exactly nothing, so the path of an absent sensor can be left out.
    """

    def __init__(self, channels: Mapping[str, int], classes: int, width: int) -> None:
        super().__init__()
        self.width = width
        self.lift = nn.ModuleDict({m: nn.Conv2d(c, width, 1) for m, c in channels.items()})
        self.join = nn.ModuleDict({m: nn.Conv2d(width, width, 1, bias=False) for m in channels})
        self.seen = nn.ParameterDict({m: nn.Parameter(torch.zeros(width, 1, 1)) for m in channels})
        self.bias = nn.Parameter(torch.zeros(width, 1, 1))
        self.point = nn.Conv2d(width, classes, 1)
        self.around = nn.Conv2d(width, width, 3, padding=1, groups=width)
        self.edge = nn.ParameterDict({m: nn.Parameter(torch.randn(1, 1, 3, 3) * 0.1) for m in channels})
        self.mask_out = nn.ParameterDict({m: nn.Parameter(torch.zeros(classes, 1, 1, 1)) for m in channels})
        self.out = nn.Conv2d(width, classes, 1, bias=False)

    def features(self, x: Mapping[str, Tensor], valid: Mapping[str, Tensor], context: Tensor) -> Tensor:
        """Normalised x[m] (B, C, H, W), valid[m] (B, 1, H, W) bool and context (B, width, H, W) -> (B, width, H, W)."""
        total: Tensor | None = None
        for m, pixels in x.items():
            lifted = F.gelu(self.lift[m](pixels))
            part = self.join[m](lifted) + self.seen[m]
            part = torch.where(valid[m], part, 0.0)
            total = part if total is None else total + part
        if total is None:
            raise ValueError("the pixel path needs at least one sensor")
        return F.gelu(total + self.bias + context)

    def forward(self, x: Mapping[str, Tensor], valid: Mapping[str, Tensor], context: Tensor) -> Tensor:
        """Logits (B, classes, H, W). `context`: what the tokens know, spread over their pixels."""
        f = self.features(x, valid, context)
        logits: Tensor = self.point(f) + self.out(F.gelu(self.around(f)))
        for m in x:
            mask = F.conv2d(valid[m].to(f.dtype), self.edge[m], padding=1)
            logits = logits + F.conv2d(F.gelu(mask), self.mask_out[m])
        return logits
