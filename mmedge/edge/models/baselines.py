"""What MaMOL has to beat: the same frozen backbone and heads, the same missing sensors in training, no routing."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

from mmedge.edge.models.galileo import WIDTH
from mmedge.edge.models.mamol import Adapter, MaMOL, MaMOLConfig


class PlainAdapter(nn.Module):
    """One bottleneck with as many parameters as MaMOL's adapter. It knows nothing of what is missing."""

    def __init__(self, config: MaMOLConfig) -> None:
        super().__init__()
        budget = sum(p.numel() for p in Adapter(config).parameters())
        width = (budget - WIDTH * (WIDTH + 1)) // (2 * WIDTH + 1)
        self.down = nn.Linear(WIDTH, width)
        self.up = nn.Linear(width, WIDTH, bias=False)
        self.out = nn.Linear(WIDTH, WIDTH)
        nn.init.zeros_(self.out.weight)
        nn.init.zeros_(self.out.bias)

    def forward(self, z: Tensor, missing: Tensor, sensor: int, seen: Tensor | None, present: tuple[int, ...]) -> Tensor:
        """Takes what MaMOL's adapter takes and uses the tokens z (B, L, D) alone."""
        y: Tensor = self.out(F.gelu(self.up(self.down(z))))
        return y


class ModalityDropout(MaMOL):
    """MaMOL without its experts, router and missing embedding: plain modality dropout of equal size."""

    method = "dropout"

    def __init__(self, config: MaMOLConfig | None = None) -> None:
        super().__init__(config)
        self.adapters = nn.ModuleList(PlainAdapter(self.config) for _ in range(self.config.adapted_layers))
        for p in self.psi.parameters():
            nn.init.zeros_(p)
            p.requires_grad_(False)
        self.fuse_missing.weight.requires_grad_(False)
