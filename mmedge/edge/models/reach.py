"""How far a convolutional network sees, measured: a tile's halo must be at least that for seams to be exactly 0."""

from __future__ import annotations

import torch

from mmedge.edge.models.network import Network


@torch.no_grad()
def halo_px(network: Network, *, window_px: int = 160) -> int:
    """Pixels to each side that a pixel's logits depend on, rounded up to the network's squares.

    NaN in one pixel reaches whatever is computed from it; it is put at each place within a square, for they differ.
    Raises ValueError where the network sees the whole window.
    """
    if network.sees_whole_window:
        raise ValueError("a network that sees its whole window has no finite halo")
    step = network.token_px
    valid = {m: torch.ones(1, 1, window_px, window_px, dtype=torch.bool) for m in network.channels}
    farthest = 0
    for offset in range(step):
        place = window_px // 2 // step * step + offset
        data = {m: torch.zeros(1, c, window_px, window_px) for m, c in network.channels.items()}
        for x in data.values():
            x[..., place, place] = float("nan")
        reached = network(data, valid).isnan().any(1)[0].nonzero()
        farthest = max(farthest, int((reached - place).abs().max()))
    if farthest >= window_px // 2 - step:
        raise ValueError(f"the network sees farther than {window_px // 2} px: measure in a larger window")
    return -(-farthest // step) * step
