"""Small networks and windows for the tests of every method."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from mmedge.edge.models.network import Network
from mmedge.edge.models.registry import build

CHANNELS = {"optical": 3, "sar": 2, "elevation": 1}
CLASSES, SIDE = 4, 32
UNET: dict[str, Any] = {"widths": [4, 8, 8], "width": 8, "depth": 1, "kernel": 3}
VIT: dict[str, Any] = {"tokens": 16, "depth": 1, "fine": 4, "width": 8}
SMALL: dict[str, dict[str, Any]] = {
    "unet": {"encoder": "unet", "encoder_options": UNET},
    "relu": {"encoder": "unet", "encoder_options": {"style": "relu", **UNET}},
    "vit": {"encoder": "vit", "encoder_options": VIT},
}


def small(method: str, encoder: str = "unet", task: str = "map", seed: int = 0, **options: Any) -> Network:
    """A network in which every path contributes: what starts at zero is drawn."""
    torch.manual_seed(seed)
    network = build(
        {
            "method": method,
            "channels": CHANNELS,
            "classes": CLASSES,
            "task": task,
            "options": options,
            **SMALL[encoder],
        }
    )
    network.set_statistics(
        {m: torch.full((c,), 0.3) for m, c in CHANNELS.items()}, {m: torch.full((c,), 2.0) for m, c in CHANNELS.items()}
    )
    for p in network.parameters():
        if p.requires_grad and not p.any():
            torch.nn.init.normal_(p, std=0.1)
    return network.eval()


def windows(
    sensors: tuple[str, ...] = tuple(CHANNELS), batch: int = 2, seed: int = 1, side: int = SIDE
) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    rng = torch.Generator().manual_seed(seed)
    data = {m: torch.randn(batch, CHANNELS[m], side, side, generator=rng) * 2 + 0.3 for m in sensors}
    return data, {m: torch.ones(batch, 1, side, side, dtype=torch.bool) for m in sensors}


def labels(task: str, batch: int = 2, seed: int = 2) -> Tensor:
    rng = torch.Generator().manual_seed(seed)
    return torch.randint(-1, CLASSES, (batch, SIDE, SIDE) if task == "map" else (batch,), generator=rng)


def close(a: Tensor, b: Tensor, atol: float = 1e-5) -> None:
    torch.testing.assert_close(a, b, atol=atol, rtol=0)
