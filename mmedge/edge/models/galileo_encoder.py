"""The frozen Galileo towers of `mamol.py` as an encoder for the other methods: see there for sensors and units."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, cast

import torch.nn.functional as F
from torch import Tensor, nn

from mmedge.edge.models.encoders import Beside
from mmedge.edge.models.galileo import DEPTH, WIDTH, Block
from mmedge.edge.models.mamol import CHANNELS, TOKEN_PX, TOWERS, MaMOL, Stem
from mmedge.edge.models.tokens import TokenEncoder, layers


class GalileoEncoder(TokenEncoder):
    """Stems and blocks are frozen, so they must come from pre-trained weights: `adopt`, or a bundle's."""

    depth = DEPTH

    def __init__(self, channels: Mapping[str, int], **sizes: Any) -> None:
        strange = {m: c for m, c in channels.items() if CHANNELS.get(m) != c}
        if strange:
            raise ValueError(f"Galileo takes {CHANNELS}, not {strange}")
        super().__init__(channels, patch=TOKEN_PX, tokens=WIDTH, **sizes)
        self.stems = nn.ModuleDict({m: Stem(m) for m in channels})
        self.blocks = nn.ModuleList(Block() for _ in range(DEPTH))
        self.norm = nn.LayerNorm(WIDTH)
        for part in (self.stems, self.blocks, self.norm):
            part.requires_grad_(False)

    def adopt(self, trained: MaMOL) -> None:
        """Take over the frozen parts of a MaMOL on Galileo."""
        for m, stem in self.stems.items():
            stem.load_state_dict(trained.stem(m).state_dict())
        self.blocks.load_state_dict(trained.blocks.state_dict())
        self.norm.load_state_dict(trained.norm.state_dict())

    def normalise(self, sensor: str, x: Tensor, valid: Tensor) -> Tensor:
        return cast(Stem, self.stems[sensor]).normalise(x, valid)

    def tokens(self, sensor: str, x: Tensor, valid: Tensor, seen: Tensor | None, beside: Beside | None) -> Tensor:
        batch, _, height, width = x.shape
        rows, cols, groups = height // TOKEN_PX, width // TOKEN_PX, len(TOWERS[sensor])
        share = F.avg_pool2d(valid.float(), TOKEN_PX)
        patches = cast(Stem, self.stems[sensor]).tokens(x, valid, share)
        grid = patches.transpose(1, 2).reshape(batch, WIDTH, groups * rows, cols)
        y = layers(self.blocks, sensor, grid, seen, beside, groups)
        normed: Tensor = self.norm(y.permute(0, 2, 3, 1))
        return normed.view(batch, groups, rows, cols, WIDTH).mean(1).permute(0, 3, 1, 2)
