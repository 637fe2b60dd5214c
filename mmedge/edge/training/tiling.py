"""Where the windows of a trained network lie in maps."""

from __future__ import annotations

from collections.abc import Collection

from mmedge.bundle import Tiling
from mmedge.edge.models.network import Network
from mmedge.edge.models.reach import halo_px as measured_halo_px
from mmedge.edge.relief import TERRAIN_REACH_PX
from mmedge.geo_io.tiling import narrow_px
from mmedge.modality import Derive

LARGEST_PX = 1024


def tiling_of(network: Network, window_px: int, halo_px: int, *, derives: Collection[Derive] = ()) -> Tiling:
    """Windows on a fixed lattice for a network that sees all of its window, else a halo as wide as it sees.

    `derives`: how inputs are made. Relief depends on its window, so that maps need the windows of training; terrain
    looks a few pixels farther than the network.
    """
    token = network.token_px
    halo = None if network.sees_whole_window or "relief" in derives else _halo(network)
    if halo is None:
        step = window_px - 2 * halo_px
        return Tiling(kind="attention", window_px=window_px, halo_px=halo_px, align_px=step, token_px=token)
    if "terrain" in derives:
        halo += -(-TERRAIN_REACH_PX // token) * token
    window = narrow_px(halo, window_px)
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
