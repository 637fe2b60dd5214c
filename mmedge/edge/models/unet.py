"""A compact ConvNeXt-style U-Net: one tower a sensor, summed at every scale, and a common decoder.

Liu et al., "A ConvNet for the 2020s", arXiv:2201.03545; Ronneberger et al., arXiv:1505.04597. Masks enter as a channel.
No operation but convolutions looks beyond its pixel, so the receptive field is finite.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mmedge.edge.models.encoders import Beside, Encoder, Features, Site, joins
from mmedge.edge.models.network import Intake


class ConvBlock(nn.Module):
    """Depth-wise convolution, norm over the channels, feed-forward; added to its input."""

    def __init__(self, width: int, ratio: int, kernel: int) -> None:
        super().__init__()
        self.mix = nn.Conv2d(width, width, kernel, padding=kernel // 2, groups=width)
        self.norm = nn.LayerNorm(width)
        self.fc1, self.fc2 = nn.Linear(width, ratio * width), nn.Linear(ratio * width, width)

    def forward(self, x: Tensor, name: str, beside: Beside | None) -> Tensor:
        # As rows of pixels: on maps OpenVINO copies what is transposed, and adds biases by themselves
        # (docs/results/quantization.md).
        z = self.norm(self.mix(x).flatten(2).transpose(1, 2))
        y: Tensor = self.fc2(F.gelu(self.fc1(z)))
        extra = beside(name, z) if beside else None
        y = y if extra is None else y + extra
        return x + y.transpose(1, 2).reshape(x.shape)


class Tower(nn.Module):
    """One sensor, at full resolution and at every halving."""

    def __init__(self, sensor: str, channels: int, widths: Sequence[int], kernel: int) -> None:
        super().__init__()
        self.sensor = sensor
        self.intake = Intake(sensor, channels)
        self.stem = nn.Conv2d(channels + 1, widths[0], 3, padding=1)
        steps = list(pairwise(widths))
        self.down = nn.ModuleList(nn.Conv2d(a, b, 2, 2) for a, b in steps)
        self.blocks = nn.ModuleList(ConvBlock(b, 2, kernel) for _, b in steps)

    def forward(self, x: Tensor, valid: Tensor, beside: Beside | None) -> list[Tensor]:
        maps = [F.gelu(self.stem(torch.cat([self.intake(x, valid), valid.to(x.dtype)], dim=1)))]
        for i, (down, block) in enumerate(zip(self.down, self.blocks, strict=True)):
            maps.append(block(down(maps[-1]), f"{self.sensor}.{i}", beside))
        return maps


class UNet(Encoder):
    """Towers, `depth` blocks on their sum at the coarsest scale, and the way up. `decode` False: the towers alone."""

    sees_whole_window = False

    def __init__(
        self,
        channels: Mapping[str, int],
        *,
        widths: Sequence[int] = (16, 32, 64),
        width: int = 32,
        depth: int = 2,
        kernel: int = 5,
        decode: bool = True,
    ) -> None:
        super().__init__()
        self.channels, self.widths, self.width = dict(channels), tuple(widths), width
        self.strides = tuple(2**i for i in range(len(widths)))
        self.towers = nn.ModuleDict({m: Tower(m, c, widths, kernel) for m, c in channels.items()})
        self.join = joins(channels, self.widths if decode else self.widths[-1:])
        if not decode:
            return
        self.trunk = nn.ModuleList(ConvBlock(widths[-1], 4, kernel) for _ in range(depth))
        self.up = nn.ModuleList(nn.ConvTranspose2d(b, a, 2, 2) for a, b in pairwise(widths))
        self.blocks = nn.ModuleList(ConvBlock(w, 2, kernel) for w in widths[1:-1])
        self.out = nn.Conv2d(widths[0], width, 3, padding=1)

    def sites(self) -> dict[str, Site]:
        steps = list(zip(self.widths, self.strides, strict=True))
        sites = {f"{m}.{i}": Site(w, s, m) for m in self.sensors for i, (w, s) in enumerate(steps[1:])}
        sites |= {f"trunk.{i}": Site(self.widths[-1], self.strides[-1], None) for i in range(len(self.trunk))}
        return sites | {f"up.{i}": Site(*steps[i], None) for i in range(len(steps) - 2, 0, -1)}

    def tower(self, sensor: str, x: Tensor, valid: Tensor, seen: Tensor | None, beside: Beside | None) -> list[Tensor]:
        maps: list[Tensor] = self.towers[sensor](x, valid, beside)
        return maps

    def spread(self, coarse: Tensor, features: Mapping[str, Features], beside: Beside | None = None) -> Tensor:
        x = coarse
        for i, block in enumerate(self.trunk):
            x = block(x, f"trunk.{i}", beside)
        for i in range(len(self.up) - 1, -1, -1):
            x = self.up[i](x) + self.merge(features, i)
            if i:
                x = self.blocks[i - 1](x, f"up.{i}", beside)
        z: Tensor = self.out(F.gelu(x))
        return z
