"""How far a network sees: measured, by poisoning a pixel and looking where its logits are poisoned too."""

from __future__ import annotations

import torch

from mmedge.bundle import Tiling
from mmedge.edge.models.network import Network

MARGIN = 3  # the core of a window is at least as wide as so many halos: 2.8 times the pixels of a map are computed
STEP_PX = 64


def reach_px(network: Network, side: int) -> int | None:
    """Largest distance in pixels at which a pixel of any sensor changes a logit; None: it spans the window of `side`.

    Pixels at every phase of the network's stride are tried.
    """
    farthest, centre = 0, side // 2
    valid = {m: torch.ones(1, 1, side, side, dtype=torch.bool) for m in network.sensors}
    for sensor in network.sensors:
        for phase in range(network.token_px):
            data = {m: torch.zeros(1, c, side, side) for m, c in network.channels.items()}
            at = centre + phase
            data[sensor][..., at, at] = torch.nan
            with torch.no_grad():
                touched = network(data, valid).isnan().any(1)[0].nonzero()
            if not len(touched):
                continue
            if touched.min() == 0 or touched.max() == side - 1:
                return None
            farthest = max(farthest, int((touched - at).abs().max()))
    return farthest


def tiling_of(network: Network, window_px: int, halo_px: int) -> Tiling:
    """Windows on a fixed lattice for a network that sees all of its window, else a halo as wide as it sees."""
    token = network.token_px
    reach = None
    side = 4 * STEP_PX
    while not network.sees_whole_window and reach is None and side <= 16 * STEP_PX:
        reach, side = reach_px(network, side), 2 * side
    if reach is None:
        return Tiling(
            kind="attention",
            window_px=window_px,
            halo_px=halo_px,
            align_px=window_px - 2 * halo_px,
            token_px=token,
        )
    halo = -(-reach // token) * token
    window = -(-max(window_px, (MARGIN + 2) * halo) // STEP_PX) * STEP_PX
    return Tiling(kind="convolutional", window_px=window, halo_px=halo, align_px=token, token_px=token)
