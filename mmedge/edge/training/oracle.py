"""Rows that no map can reach: what a method would give if it knew what nobody knows when mapping (`Network.oracle`)."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import numpy.typing as npt
import torch

from mmedge.bundle import Bundle
from mmedge.edge.export import load_eager
from mmedge.edge.training.draws import labels_at
from mmedge.edge.windows import derived
from mmedge.geo_io.ground import gsd_m
from mmedge.geo_io.labels import Labels
from mmedge.geo_io.scene import Scene
from mmedge.grid import Window
from mmedge.modality import Availability

Maps = dict[str, torch.Tensor]


def oracle_accuracy(bundle: Bundle, scene: Scene, labels: Labels) -> dict[str, float]:
    """Overall accuracy of the method's oracle for every set of sensors; {} where the method has none.

    MARS: routed by the true residual. DyMo: the set of sensors that serves the label best. labels (rows, cols), -1 for
    none.
    """
    network = load_eager(bundle.folder)
    right: dict[str, int] = {}
    total: dict[str, int] = {}
    for data, valid, core in _windows(bundle, scene, labels):
        for availability in Availability.every(bundle.order):
            kept = torch.tensor([[m in availability and bool(valid[m].any()) for m in bundle.order]])
            if not kept.any():
                continue
            with torch.no_grad():
                logits = network.oracle(data, valid, core, kept)
            if logits is None:
                return {}
            seen = torch.stack([valid[m][:, 0] for m in availability]).any(0)
            known = (core >= 0) & seen
            name = str(availability)
            right[name] = right.get(name, 0) + int(((logits.argmax(1) == core) & known).sum())
            total[name] = total.get(name, 0) + int(known.sum())
    return {name: round(right[name] / total[name], 4) for name in total if total[name]}


def _windows(bundle: Bundle, scene: Scene, labels: Labels) -> Iterator[tuple[Maps, Maps, torch.Tensor]]:
    """The windows of a map whose cores hold labels, one by one: inputs, valid, labels of the core (1, H, W)."""
    tiling, pixel_m = bundle.tiling, gsd_m(scene.grid)
    step, halo, side = tiling.stride_px, tiling.halo_px, tiling.window_px
    first = [-(a % step) for a in scene.grid.origin_px]
    for row in range(first[0], scene.grid.rows, step):
        for col in range(first[1], scene.grid.cols, step):
            core = labels_at(labels, row, col, step)
            if (core < 0).all():
                continue
            tile = scene.read(Window(row - halo, col - halo, side, side))
            data, valid = {}, {}
            for m in bundle.modalities:
                mask: npt.NDArray[np.bool_] = tile.valid.get(m.name, np.zeros((side, side), bool))[None, None]
                raw = tile.data.get(m.name, np.zeros((len(m.bands), side, side), np.float32))[None]
                seen = np.where(mask, derived(m, np.where(mask, raw, np.float32(0)), mask, pixel_m), np.float32(0))
                data[m.name], valid[m.name] = torch.from_numpy(seen), torch.from_numpy(mask.copy())
            yield data, valid, torch.from_numpy(np.pad(core, halo, constant_values=-1))[None]
