"""The network of the benchmarks: a U-Net of 0.8 M parameters and 2.5 GFLOP per 256 x 256 tile, stride 16.

    python -m benchmarks.unet FOLDER

Trains it on the benchmark's own scene (seeded, about 2 minutes on 2 cores): FOLDER/unet.pt and FOLDER/unet.onnx.
"""

from __future__ import annotations

import argparse
import warnings
from itertools import pairwise
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

BANDS, CLASSES = 6, 8
MEAN, STD = 0.24, 0.12  # of reflectance
WIDTHS = (12, 20, 40, 88, 384)
DEPTHS = (2, 2, 1, 1, 1)  # convolutions a level on the way down: the field is 64 px to each side


def block(inputs: int, outputs: int, depth: int = 1) -> nn.Sequential:
    """3 x 3 convolutions, each followed by a ReLU."""
    sizes = (inputs, *[outputs] * depth)
    convolutions = [nn.Conv2d(a, b, 3, padding=1) for a, b in pairwise(sizes)]
    return nn.Sequential(*[layer for convolution in convolutions for layer in (convolution, nn.ReLU())])


class UNet(nn.Module):
    """(batch, 6, height, width) -> logits (batch, 8, height, width); sides are multiples of 16."""

    def __init__(self) -> None:
        super().__init__()
        inputs = (BANDS, *WIDTHS)
        self.down = nn.ModuleList(block(*sizes) for sizes in zip(inputs, WIDTHS, DEPTHS, strict=False))
        self.up = nn.ModuleList(block(a + b, b) for a, b in zip(WIDTHS[:0:-1], WIDTHS[-2::-1], strict=True))
        self.head = nn.Conv2d(WIDTHS[0], CLASSES, 1)

    def forward(self, x: Tensor) -> Tensor:
        skips: list[Tensor] = []
        for i, block in enumerate(self.down):
            x = block(F.max_pool2d(x, 2) if i else x)
            skips.append(x)
        for block, skip in zip(self.up, skips[-2::-1], strict=True):
            x = block(torch.cat([F.interpolate(x, scale_factor=2.0, mode="nearest"), skip], 1))
        logits: Tensor = self.head(x)
        return logits


def seeded(seed: int = 0) -> UNet:
    """He initialisation keeps the spread of the activations, so that classes follow the pixels as in a trained one."""
    torch.manual_seed(seed)
    net = UNet().eval().requires_grad_(False)
    for module in net.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight, nonlinearity="relu")
            nn.init.zeros_(module.bias)
    return net


def trained(weights: Path) -> UNet:
    """The network with weights that `train` has stored."""
    net = UNet().eval().requires_grad_(False)
    net.load_state_dict(torch.load(weights, weights_only=True))
    return net


def train(weights: Path, *, steps: int = 500, seed: int = 0) -> float:
    """Fit the network to the benchmark's scene, store it, return its accuracy on a part that it never saw."""
    from benchmarks.scene import strip

    torch.manual_seed(seed)
    net = seeded(seed).train().requires_grad_(True)
    raw, label = strip(0, 0, 2048, 2048)
    x = torch.from_numpy((raw.astype(np.float32) * 1e-4 - MEAN) / STD)
    y = torch.from_numpy(label.astype(np.int64))
    optimizer = torch.optim.AdamW(net.parameters(), lr=2e-3)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 4e-3, total_steps=steps)
    draw = np.random.default_rng(seed)
    for _ in range(steps):
        at = [(int(i), int(j)) for i, j in zip(*draw.integers(0, (1536 - 128, 2048 - 128), (8, 2)).T, strict=True)]
        logits = net(torch.stack([x[:, i : i + 128, j : j + 128] for i, j in at]))
        loss = F.cross_entropy(logits, torch.stack([y[i : i + 128, j : j + 128] for i, j in at]))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
    torch.save(net.eval().state_dict(), weights)
    with torch.inference_mode():
        right = net(x[None, :, 1536:]).argmax(1)[0] == y[1536:]
    return float(right.float().mean())


def export(path: Path, net: UNet) -> None:
    """Write the network as ONNX with open batch, height and width."""
    sizes = {0: torch.export.Dim("batch", min=1, max=64)}
    sizes |= {2 + i: 16 * torch.export.Dim(f"side_{i}", min=1, max=128) for i in range(2)}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.onnx.export(
            net,
            (torch.zeros(2, BANDS, 256, 256),),
            path,
            dynamo=True,
            external_data=False,
            verbose=False,
            input_names=["x"],
            output_names=["logits"],
            dynamic_shapes={"x": sizes},
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    args.folder.mkdir(parents=True, exist_ok=True)
    accuracy = train(args.folder / "unet.pt", seed=args.seed)
    net = trained(args.folder / "unet.pt")
    export(args.folder / "unet.onnx", net)
    print(f"{sum(p.numel() for p in net.parameters())} parameters, accuracy {accuracy:.4f} on what it never saw")


if __name__ == "__main__":
    main()
