"""Scores of a network on scenes and on single pixels, per availability, with the windows that inference uses."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from mmedge.bundle import Tiling
from mmedge.edge.evaluation.metrics import Confusion
from mmedge.edge.models.network import Network
from mmedge.edge.training.samples import Arrays, LabelledScene, Masks, WorldPixels, cut, with_relief

WINDOW_PX, HALO_PX = 64, 8
PATCH_PX = 8
# Windows of networks that see all of theirs.
TILING = Tiling(kind="attention", window_px=WINDOW_PX, halo_px=HALO_PX, align_px=WINDOW_PX - 2 * HALO_PX, token_px=8)
Ints = npt.NDArray[np.int64]


def lattice(
    scene: LabelledScene, wanted: npt.NDArray[np.bool_] | None = None, *, shift: int = 0, tiling: Tiling = TILING
) -> Ints:
    """Origins (N, 2) of the windows whose cores cover the scene, or its `wanted` pixels. Multiples of the stride."""
    height, width = scene.labels.shape
    step, halo = tiling.stride_px, tiling.halo_px
    first = [-((a + shift) % step) for a in scene.anchor]
    origins = [
        (row - halo, col - halo)
        for row in range(first[0], height, step)
        for col in range(first[1], width, step)
        if wanted is None or wanted[max(0, row) : row + step, max(0, col) : col + step].any()
    ]
    return np.array(origins, np.int64).reshape(-1, 2)


def predict(
    model: Network,
    scene: LabelledScene,
    sensors: Sequence[str],
    *,
    wanted: npt.NDArray[np.bool_] | None = None,
    shift: int = 0,
    batch: int = 16,
    tiling: Tiling | None = None,
) -> npt.NDArray[np.float32]:
    """Logits (classes, H, W) of a scene; NaN where no window was wanted.

    Without `tiling` a network of finite reach sees the scene whole, another in the windows of its training.
    """
    height, width = scene.labels.shape
    if tiling is None and not model.sees_whole_window:
        side = -(-max(height, width) // WINDOW_PX) * WINDOW_PX
        return run(model, *cut(scene, np.zeros((1, 2), np.int64), side), sensors)[0, :, :height, :width]
    tiling = tiling or TILING
    step, halo = tiling.stride_px, tiling.halo_px
    out: npt.NDArray[np.float32] | None = None
    for origins in _batches(lattice(scene, wanted, shift=shift, tiling=tiling), batch):
        logits = run(model, *cut(scene, origins, tiling.window_px), sensors)
        if out is None:
            out = np.full((logits.shape[1], height, width), np.nan, np.float32)
        for (row, col), window in zip(origins + halo, logits, strict=True):
            core = window[:, halo : halo + step, halo : halo + step]
            top, left = max(0, row), max(0, col)
            part = core[:, top - row : height - row, left - col : width - col]
            out[:, top : top + part.shape[1], left : left + part.shape[2]] = part
    if out is None:
        raise ValueError(f"{scene.name}: no window is wanted")
    return out


def run(model: Network, data: Arrays, valid: Masks, sensors: Sequence[str]) -> npt.NDArray[np.float32]:
    """Logits (B, classes, H, W) of windows with raw elevation."""
    with torch.no_grad():
        inputs = tensors(with_relief({m: data[m] for m in sensors}, valid, model.derive))
        logits: Tensor = model(inputs, tensors({m: valid[m] for m in sensors}))
    return logits.numpy()


def tensors(arrays: dict[str, npt.NDArray[np.float32]] | dict[str, npt.NDArray[np.bool_]]) -> dict[str, Tensor]:
    return {m: torch.from_numpy(np.ascontiguousarray(a)) for m, a in arrays.items()}


def score_scene(
    model: Network,
    scene: LabelledScene,
    sensors: Sequence[str],
    pixels: npt.NDArray[np.bool_],
    *,
    tiling: Tiling | None = None,
) -> Confusion:
    """Confusion on the pixels (H, W) of one scene."""
    logits = predict(model, scene, sensors, wanted=pixels, tiling=tiling)
    return Confusion.of(np.where(pixels, scene.labels, -1), logits.argmax(0), len(logits))


def score_world(model: Network, world: WorldPixels, sensors: Sequence[str], classes: int) -> Confusion:
    """Confusion over every place and usable date: a pixel is repeated to one token's patch."""
    total = Confusion(np.zeros((classes, classes), np.int64))
    usable = np.logical_and.reduce([world.usable[m] for m in sensors])
    for rows in _batches(np.argwhere(usable), 256):
        data = {m: repeat(world.data[m][rows[:, 0], rows[:, 1]]) for m in sensors}
        valid = {m: np.ones((len(rows), 1, PATCH_PX, PATCH_PX), np.bool_) for m in sensors}
        centre = run(model, data, valid, sensors)[:, :, PATCH_PX // 2, PATCH_PX // 2]
        total += Confusion.of(world.labels[rows[:, 0]], centre.argmax(1), classes)
    return total


def repeat(pixels: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    """(N, C) -> (N, C, 8, 8)."""
    return np.broadcast_to(pixels[:, :, None, None], (*pixels.shape, PATCH_PX, PATCH_PX)).copy()


def changed_beside_holes(
    model: Network,
    windows: Iterable[tuple[Arrays, Masks]],
    holes: Sequence[npt.NDArray[np.bool_]],
    sensors: Sequence[str],
    lost: str,
    *,
    reach_px: int = 32,
) -> tuple[int, int]:
    """How many pixels outside a hole in sensor `lost`, at most `reach_px` from it, change class; and of how many.

    Only the core of a window counts, as in a map.
    """
    changed = total = 0
    for (data, valid), hole in zip(windows, holes, strict=True):
        near = _grow(hole, reach_px) & ~hole
        near[:HALO_PX] = near[-HALO_PX:] = near[:, :HALO_PX] = near[:, -HALO_PX:] = False
        before = run(model, data, valid, sensors).argmax(1)
        holed = {**valid, lost: valid[lost] & ~hole}
        after = run(model, data, holed, sensors).argmax(1)
        changed += int(((before != after) & near).sum())
        total += int(near.sum()) * len(before)
    return changed, total


def _grow(mask: npt.NDArray[np.bool_], radius: int) -> npt.NDArray[np.bool_]:
    """Pixels within `radius` of the mask, in each direction (a square)."""
    rows = np.arange(mask.shape[0])
    near = np.abs(rows[:, None] - rows[None]) <= radius
    reach: npt.NDArray[np.bool_] = (near.astype(np.int32) @ mask.astype(np.int32) @ near.astype(np.int32)) > 0
    return reach


def _batches(rows: Ints, size: int) -> Iterator[Ints]:
    for start in range(0, len(rows), size):
        yield rows[start : start + size]
