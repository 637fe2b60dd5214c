"""Cut network windows out of a tile, and sort them by the sensors that their tokens see."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from numpy.lib.stride_tricks import sliding_window_view

from mmedge.bundle import Bundle
from mmedge.edge.relief import derive
from mmedge.edge.runtime.session import Feeds, GraphKey
from mmedge.geo_io.tiling import IoTile
from mmedge.modality import Availability, Modality
from mmedge.tile import Tile

Index = npt.NDArray[np.intp]
Array = npt.NDArray[Any]
Cells = npt.NDArray[np.bool_]


@dataclass(frozen=True, slots=True)
class Batch:
    """Windows of one graph. `cells` (n, 2) are their (row, col) in the tile; `feeds` are padded to the batch size."""

    key: GraphKey
    cells: Index
    feeds: Feeds


def batches(
    tile: Tile, where: IoTile, bundle: Bundle, *, size: int, pixel_m: float, wanted: Cells | None = None
) -> Iterator[Batch]:
    """Windows of a tile in batches of `size`, those of one graph together. Windows that saw nothing, or that nobody
    wants (rows, cols), are left out.
    """
    side, step = bundle.tiling.window_px, bundle.tiling.stride_px
    valid = {name: _cut(mask[None], side, step) for name, mask in tile.valid.items()}
    data = {name: _cut(bands, side, step) for name, bands in tile.data.items()}
    for key, cells in _sorted(valid, bundle, where, wanted).items():
        for start in range(0, len(cells), size):
            some = cells[start : start + size]
            yield Batch(key, some, _feeds(key, some, data, valid, bundle, size=size, pixel_m=pixel_m))


def _cut(array: Array, side: int, step: int) -> Array:
    """View (rows, cols, channels, side, side) of the windows in (channels, height, width).

    Nobody writes to it; OpenVINO copies what is not writeable.
    """
    view = sliding_window_view(array, (side, side), axis=(1, 2), writeable=array.flags.writeable)[:, ::step, ::step]
    return view.transpose(1, 2, 0, 3, 4)


def _sorted(valid: dict[str, Array], bundle: Bundle, where: IoTile, wanted: Cells | None) -> dict[GraphKey, Index]:
    """Cells (n, 2) by graph. A sensor is present where a pixel of the window is valid, uniform where all tokens are."""
    bits = np.zeros((where.rows, where.cols), np.int64)
    mixed = np.zeros((where.rows, where.cols), bool)
    for i, name in enumerate(bundle.order):
        if name not in valid:
            continue
        present = valid[name].any(axis=(2, 3, 4))
        bits |= present.astype(np.int64) << i
        if bundle.mixed:
            share = _token_share(valid[name][:, :, 0], bundle.tiling.token_px)
            mixed |= present & (share.min(axis=(2, 3)) < 0.5)
    if wanted is not None:
        bits *= wanted
    keys = {}
    codes = bits * 2 + mixed
    for code in np.unique(codes):
        if code > 1:
            key = GraphKey(Availability(int(code) >> 1, bundle.order), bool(code & 1))
            keys[key] = np.argwhere(codes == code)
    return keys


def _token_share(valid: Array, token: int) -> npt.NDArray[np.float32]:
    """Share of valid pixels of each token: (rows, cols, tokens, tokens) from (rows, cols, side, side)."""
    rows, cols, side, _ = valid.shape
    split = valid.reshape(rows, cols, side // token, token, side // token, token)
    share: npt.NDArray[np.float32] = split.mean(axis=(3, 5), dtype=np.float32)
    return share


def _feeds(
    key: GraphKey,
    cells: Index,
    data: dict[str, Array],
    valid: dict[str, Array],
    bundle: Bundle,
    *,
    size: int,
    pixel_m: float,
) -> Feeds:
    feeds: dict[str, Array] = {}
    for name in key.availability:
        mask = _pick(valid[name], cells, size)
        feeds[name] = derived(bundle.modality(name), _pick(data[name], cells, size), mask, pixel_m)
        feeds[f"{name}_valid"] = mask
    return feeds


def _pick(windows: Array, cells: Index, size: int) -> Array:
    """(size, channels, side, side): the windows of some cells, then zeros. One that is a whole tile is not copied."""
    if size == 1:
        return np.ascontiguousarray(windows[cells[0, 0], cells[0, 1]][None])
    out = np.zeros((size, *windows.shape[2:]), windows.dtype)
    out[: len(cells)] = windows[cells[:, 0], cells[:, 1]]
    return out


def derived(modality: Modality, data: Array, valid: Array, pixel_m: float) -> Array:
    """What the network sees of a sensor's windows: data (B, bands, H, W), valid (B, 1, H, W) -> (B, channels, H, W)."""
    return derive(modality.derive, data, valid, pixel_m) if modality.derive else data
