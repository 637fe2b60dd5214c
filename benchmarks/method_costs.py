"""What networks cost, a table of docs/methods.md: `python -m benchmarks.method_costs`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch.utils.flop_counter import FlopCounterMode

from benchmarks.pages import Part
from mmedge.bundle import open_bundle
from mmedge.edge.models.mamol import CHANNELS
from mmedge.edge.models.network import Network
from mmedge.edge.models.registry import build

PART = Part(
    Path("docs/methods.md"),
    "<!-- costs: benchmarks/method_costs.py -->",
    "<!-- end of costs -->",
    "python -m benchmarks.method_costs",
)
SIDE, CLASSES = 64, 7
ROWS: Sequence[tuple[str, Mapping[str, Any]]] = (
    ("`dropout`", {"method": "dropout"}),
    ("`mamol`", {"method": "mamol"}),
    ("`mamol`, as `mamol-conv`", open_bundle("mamol-conv").item["properties"]["mlm:hyperparameters"]),
    ("`mars`", {"method": "mars"}),
    ("`mars`, per pixel", {"method": "mars", "options": {"routing": "pixel"}}),
    ("`dymo`", {"method": "dymo"}),
    *((f"`{method}`", {"method": method, "encoder": "vit"}) for method in ("dropout", "mamol", "mars", "dymo")),
    *((f"`{method}`", {"method": method, "encoder": "galileo"}) for method in ("mamol", "mars", "dymo")),
)


def block() -> str:
    head = ("method", "encoder", "parameters", "all sensors", "SAR alone", "all, mixed")
    lines = [row(head), row(["---"] * len(head))]
    for name, recipe in ROWS:
        network = build({"encoder": "unet", **recipe, "channels": CHANNELS, "classes": CLASSES})
        network.requires_grad_(False)
        parameters = sum(p.numel() for p in network.parameters())
        costs = (
            operations(network, tuple(CHANNELS), uniform=True),
            operations(network, ("sar",), uniform=True),
            operations(network, tuple(CHANNELS), uniform=False),
        )
        encoder = f"`{network.recipe['encoder']}`"
        lines.append(row([name, encoder, count(parameters), *(f"{cost / 1e3:.0f}" for cost in costs)]))
    return "\n".join(lines)


def operations(network: Network, sensors: Sequence[str], *, uniform: bool) -> float:
    """Floating-point operations for each pixel of a window."""
    data = {m: torch.zeros(1, CHANNELS[m], SIDE, SIDE) for m in sensors}
    valid = {m: torch.ones(1, 1, SIDE, SIDE, dtype=torch.bool) for m in sensors}
    with FlopCounterMode(display=False) as counter:
        network(data, valid, uniform=uniform)
    return float(counter.get_total_flops()) / SIDE**2


def count(parameters: int) -> str:
    return f"{parameters / 1e6:.2f} M" if parameters >= 1e6 else f"{parameters / 1e3:.0f} k"


def row(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"


if __name__ == "__main__":
    PART.main(__doc__, block)
