"""What a trained network tells of itself for model.json: how it scales its inputs, and what it costs."""

from __future__ import annotations

from typing import Any

import torch
from torch.utils.flop_counter import FlopCounterMode

from mmedge.bundle import Tiling
from mmedge.edge.models.mamol import SCALE, SQUASH, Stem
from mmedge.edge.models.network import Intake, Network
from mmedge.geo_io.tiling import narrowed
from mmedge.modality import Availability


def scaling_of(network: Network) -> dict[str, list[dict[str, Any]]]:
    """How the graph normalises each sensor, in MLM's words."""
    found: dict[str, list[dict[str, Any]]] = {}
    for part in network.modules():
        if isinstance(part, Stem):
            found[part.sensor] = _galileo(part.kind)
        elif isinstance(part, Intake):
            pairs = zip(part.mean.flatten().tolist(), part.deviation.flatten().tolist(), strict=True)
            found[part.sensor] = [{"type": "z-score", "mean": mean, "stddev": div} for mean, div in pairs]
    return found


def _galileo(kind: str) -> list[dict[str, Any]]:
    squash = SQUASH.get(kind)
    entries: list[dict[str, Any]] = []
    for i, (shift, div) in enumerate(zip(*SCALE[kind], strict=True)):
        if squash and squash[i]:
            formula = f"(x / (1 + abs(x) * {squash[i]}) - {shift}) / {div}"
            entries.append({"type": "processing", "format": "python", "expression": formula})
        else:
            entries.append({"type": "z-score", "mean": shift, "stddev": div})
    return entries


def cost_of(network: Network, tiling: Tiling) -> dict[str, dict[str, int]]:
    """Multiply-adds for each pixel of a map, the overlap of windows included, by availability."""
    side, overlap = narrowed(tiling).window_px, (tiling.window_px / tiling.stride_px) ** 2
    costs = {}
    for present in Availability.every(network.sensors):
        data = {m: torch.zeros(1, network.channels[m], side, side) for m in present}
        valid = {m: torch.ones(1, 1, side, side, dtype=torch.bool) for m in present}
        with FlopCounterMode(display=False) as counter, torch.no_grad():
            network(data, valid, uniform=True)
        costs[str(present)] = {"macs_per_px": round(counter.get_total_flops() / 2 / side**2 * overlap)}
    return costs
