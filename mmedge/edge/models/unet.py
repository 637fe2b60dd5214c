"""A compact U-Net: one tower a sensor, summed at every scale, and a common decoder.

Ronneberger et al., arXiv:1505.04597, in two styles: of ConvNeXt (Liu et al., "A ConvNet for the 2020s",
arXiv:2201.03545), and of convolutions and ReLUs alone, which int8 speeds up most. Masks enter as a channel. No
operation but convolutions looks beyond its pixel, so the receptive field is finite.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
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


class ReluBlock(nn.Module):
    """Convolution and feed-forward, without a norm; added to its input. It starts as little more than that."""

    def __init__(self, width: int, ratio: int, kernel: int) -> None:
        super().__init__()
        self.mix = _before_relu(nn.Conv2d(width, width, kernel, padding=kernel // 2))
        self.fc1 = _before_relu(nn.Conv2d(width, ratio * width, 1))
        self.fc2 = nn.Conv2d(ratio * width, width, 1)
        nn.init.zeros_(self.fc2.weight)

    def forward(self, x: Tensor, name: str, beside: Beside | None) -> Tensor:
        z = F.relu(self.mix(x))
        y: Tensor = self.fc2(F.relu(self.fc1(z)))
        extra = beside(name, z) if beside else None
        return x + (y if extra is None else y + extra)


class NearestUp(nn.Sequential):
    """Twice as many rows and columns: a 1 x 1 convolution, and each pixel four times."""

    def __init__(self, width: int, out: int) -> None:
        super().__init__(nn.Conv2d(width, out, 1), nn.Upsample(scale_factor=2, mode="nearest"))


def _before_relu(layer: nn.Conv2d) -> nn.Conv2d:
    """Keep the variance through a layer and its ReLU (He et al., arXiv:1502.01852): there is no norm that would."""
    nn.init.kaiming_normal_(layer.weight, nonlinearity="relu")
    return layer


@dataclass(frozen=True, slots=True)
class Style:
    """What the network is built of.

    `maps`: adapters beside its blocks get maps and not rows of pixels. `averages`: as in `Encoder`.
    """

    block: Callable[[int, int, int], nn.Module]
    up: Callable[[int, int], nn.Module]
    activation: Callable[[Tensor], Tensor]
    kernel: int
    maps: bool = False
    averages: bool = False


STYLES: Mapping[str, Style] = {
    "convnext": Style(ConvBlock, partial(nn.ConvTranspose2d, kernel_size=2, stride=2), F.gelu, 5),
    "relu": Style(ReluBlock, NearestUp, F.relu, 3, maps=True, averages=True),
}


class Tower(nn.Module):
    """One sensor, at full resolution and at every halving."""

    def __init__(self, sensor: str, channels: int, widths: Sequence[int], style: Style, kernel: int) -> None:
        super().__init__()
        self.sensor, self.activation = sensor, style.activation
        self.intake = Intake(sensor, channels)
        self.stem = nn.Conv2d(channels + 1, widths[0], 3, padding=1)
        steps = list(pairwise(widths))
        self.down = nn.ModuleList(nn.Conv2d(a, b, 2, 2) for a, b in steps)
        self.blocks = nn.ModuleList(style.block(b, 2, kernel) for _, b in steps)

    def forward(self, x: Tensor, valid: Tensor, beside: Beside | None) -> list[Tensor]:
        maps = [self.activation(self.stem(torch.cat([self.intake(x, valid), valid.to(x.dtype)], dim=1)))]
        for i, (down, block) in enumerate(zip(self.down, self.blocks, strict=True)):
            maps.append(block(down(maps[-1]), f"{self.sensor}.{i}", beside))
        return maps


class UNet(Encoder):
    """Towers, `depth` blocks on their sum at the coarsest scale, and the way up. `decode` False: the towers alone.

    `style`: `convnext` or `relu`. `kernel`: of the blocks' convolutions; 5 and 3 by default.
    """

    sees_whole_window = False

    def __init__(
        self,
        channels: Mapping[str, int],
        *,
        style: str = "convnext",
        widths: Sequence[int] = (16, 32, 64),
        width: int = 32,
        depth: int = 2,
        kernel: int | None = None,
        decode: bool = True,
    ) -> None:
        super().__init__()
        if style not in STYLES:
            raise ValueError(f"no style `{style}` of a U-Net, but {', '.join(STYLES)}")
        parts = STYLES[style]
        kernel = kernel or parts.kernel
        self.activation, self.beside_maps, self.averages = parts.activation, parts.maps, parts.averages
        self.channels, self.widths, self.width = dict(channels), tuple(widths), width
        self.strides = tuple(2**i for i in range(len(widths)))
        self.towers = nn.ModuleDict({m: Tower(m, c, widths, parts, kernel) for m, c in channels.items()})
        self.join = joins(channels, self.widths if decode else self.widths[-1:])
        if not decode:
            return
        self.trunk = nn.ModuleList(parts.block(widths[-1], 4, kernel) for _ in range(depth))
        self.up = nn.ModuleList(parts.up(b, a) for a, b in pairwise(widths))
        self.blocks = nn.ModuleList(parts.block(w, 2, kernel) for w in widths[1:-1])
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
        z: Tensor = self.out(self.activation(x))
        return z
