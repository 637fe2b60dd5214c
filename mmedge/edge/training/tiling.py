"""Where the windows of a trained network lie in maps."""

from __future__ import annotations

from mmedge.bundle import Tiling
from mmedge.edge.models.network import Network
from mmedge.edge.models.reach import halo_px as measured_halo_px

CORE_HALOS = (
    3  # the core of a window is at least so many halos wide: at most 2.8 times the pixels of a map are computed
)
STEP_PX = 64
LARGEST_PX = 1024


def tiling_of(network: Network, window_px: int, halo_px: int, *, fixed: bool) -> Tiling:
    """Windows on a fixed lattice for a network that sees all of its window, else a halo as wide as it sees.

    `fixed`: an input depends on the window that it is derived in (relief), so that maps need the windows of training.
    """
    token = network.token_px
    halo = None if fixed or network.sees_whole_window else _halo(network)
    if halo is None:
        step = window_px - 2 * halo_px
        return Tiling(kind="attention", window_px=window_px, halo_px=halo_px, align_px=step, token_px=token)
    window = -(-max(window_px, (CORE_HALOS + 2) * halo) // STEP_PX) * STEP_PX
    return Tiling(kind="convolutional", window_px=window, halo_px=halo, align_px=token, token_px=token)


def _halo(network: Network) -> int | None:
    """Halo of a convolutional network, measured in windows of growing size; None: it is larger than is of use."""
    side = 160
    while side <= LARGEST_PX:
        try:
            return measured_halo_px(network, window_px=side)
        except ValueError:
            side *= 2
    return None
