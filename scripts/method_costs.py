"""What networks cost, a table of docs/methods.md: `python scripts/method_costs.py` writes it, `--check` compares."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch.utils.flop_counter import FlopCounterMode
from train_default import CONV

from mmedge.edge.models.mamol import CHANNELS
from mmedge.edge.models.network import Network
from mmedge.edge.models.registry import build

PAGE = Path("docs/methods.md")
BEGIN, END = "<!-- costs: scripts/method_costs.py -->", "<!-- end of costs -->"
SIDE, CLASSES = 64, 7
ROWS: Sequence[tuple[str, Mapping[str, Any]]] = (
    ("`dropout`", {"method": "dropout"}),
    ("`mamol`", {"method": "mamol"}),
    ("`mamol`, as `mamol-conv`", CONV),
    ("`mars`", {"method": "mars"}),
    ("`mars`, per pixel", {"method": "mars", "options": {"routing": "pixel"}}),
    ("`dymo`", {"method": "dymo"}),
    *((f"`{method}`", {"method": method, "encoder": "vit"}) for method in ("dropout", "mamol", "mars", "dymo")),
    *((f"`{method}`", {"method": method, "encoder": "galileo"}) for method in ("mamol", "mars", "dymo")),
)


def block() -> str:
    """Everything between the markers, both included."""
    head = ("method", "encoder", "parameters", "all sensors", "SAR alone", "all, mixed")
    lines = [BEGIN, row(head), row(["---"] * len(head))]
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
    return "\n".join([*lines, END])


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


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", action="store_true", help="change nothing, exit 1 where the table is stale")
    args = parser.parse_args()
    text = PAGE.read_text(encoding="utf-8")
    before, _, rest = text.partition(BEGIN)
    made = before + block() + rest.partition(END)[2]
    if args.check:
        sys.exit(f"stale: {PAGE}; run `python scripts/method_costs.py`" if made != text else 0)
    PAGE.write_text(made, encoding="utf-8")


if __name__ == "__main__":
    main()
