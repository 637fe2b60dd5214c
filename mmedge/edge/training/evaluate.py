"""What a trained network is worth: test blocks, single pixels, holes, a shifted lattice. One dict, ready for JSON."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from mmedge.bundle import Tiling
from mmedge.edge.evaluation.metrics import Confusion
from mmedge.edge.models.network import Network
from mmedge.edge.training.batches import TEST, TrainingSet
from mmedge.edge.training.missingness import patterns
from mmedge.edge.training.samples import CLASS_VALUES, LabelledScene, cut
from mmedge.edge.training.score import (
    HALO_PX,
    TILING,
    WINDOW_PX,
    changed_beside_holes,
    lattice,
    predict,
    score_scene,
    score_world,
)
from mmedge.edge.training.split import part_of_pixels

HOLES_PER_SCENE = 12
HOLE_SEED = 433


def evaluate(
    model: Network, data: TrainingSet, sensors: tuple[str, ...], tiling: Tiling | None = None
) -> dict[str, Any]:
    """Scores on the test parts of `data`, per availability: scenes, single pixels, holes, a shifted lattice.

    `tiling`: the windows of maps where they lie on a lattice; None: maps have no seams.
    """
    model.eval()
    scenes: dict[str, Any] = {}
    total: dict[str, Confusion] = {}
    for scene in data.scenes:
        pixels = part_of_pixels(scene.name) == TEST
        for present in patterns(sensors):
            name = "+".join(present)
            part = score_scene(model, scene, present, pixels, tiling=tiling)
            scenes.setdefault(scene.name, {})[name] = summary(part)
            total[name] = total[name] + part if name in total else part
    return {
        "test": {name: summary(c) for name, c in total.items()},
        "test_by_scene": scenes,
        "world": {
            "+".join(present): summary(score_world(model, data.world_part(TEST), present, len(CLASS_VALUES)))
            for present in patterns(tuple(m for m in sensors if m != "elevation"))
        },
        "holes": holes_per_availability(model, data, sensors),
        "shift": shift_per_availability(model, data, sensors, tiling),
    }


def summary(confusion: Confusion) -> dict[str, Any]:
    """The usual figures, rounded to what they are worth, and the IoU of each class of the reference."""
    present = confusion.counts.sum(1) > 0
    iou = confusion.iou()
    return {
        "pixels": confusion.pixels,
        "oa": round(confusion.overall_accuracy, 4),
        "aa": round(confusion.average_accuracy, 4),
        "kappa": round(confusion.kappa, 4),
        "miou": round(confusion.mean_iou, 4),
        "macro_f1": round(confusion.macro_f1, 4),
        "iou": {str(v): round(float(i), 4) for v, i, p in zip(CLASS_VALUES, iou, present, strict=True) if p},
    }


def holes_per_availability(model: Network, data: TrainingSet, sensors: tuple[str, ...]) -> dict[str, float]:
    """Share of the pixels beside a hole that change class, for each availability and lost sensor, on all scenes."""
    shares: dict[str, float] = {}
    for present in patterns(sensors):
        for lost in present:
            changed = beside = 0
            for scene in data.scenes:
                part = _holes_in(model, scene, data, present, lost)
                changed, beside = changed + part[0], beside + part[1]
            shares[f"{'+'.join(present)} without {lost}"] = round(changed / beside, 5)
    return shares


def shift_per_availability(
    model: Network, data: TrainingSet, sensors: tuple[str, ...], tiling: Tiling | None = None
) -> dict[str, Any]:
    """Share of all pixels that change class when the lattice of windows moves by half a stride, for each scene."""
    half = (tiling or TILING).stride_px // 2

    def classes(scene: LabelledScene, present: Sequence[str], shift: int) -> npt.NDArray[np.intp]:
        found: npt.NDArray[np.intp] = predict(model, scene, present, shift=shift, tiling=tiling).argmax(0)
        return found

    return {
        scene.name: {
            "+".join(present): round(float(np.mean(classes(scene, present, 0) != classes(scene, present, half))), 5)
            for present in patterns(sensors)
        }
        for scene in data.scenes
    }


def _holes_in(
    model: Network, scene: LabelledScene, data: TrainingSet, present: Sequence[str], lost: str
) -> tuple[int, int]:
    rng = np.random.default_rng(HOLE_SEED)
    origins = lattice(scene)
    height, width = scene.labels.shape
    inside = origins[((origins >= 0) & (origins + WINDOW_PX <= (height, width))).all(1)]
    chosen = inside[rng.choice(len(inside), HOLES_PER_SCENE)]
    holes = [_hole(data, rng) for _ in chosen]
    return changed_beside_holes(model, (cut(scene, o[None], WINDOW_PX) for o in chosen), holes, present, lost)


def _hole(data: TrainingSet, rng: np.random.Generator) -> npt.NDArray[np.bool_]:
    """A hole that leaves some of the window's core."""
    core = slice(HALO_PX, -HALO_PX)
    while True:
        hole = data.holes.draw(rng, WINDOW_PX)
        if hole[core, core].mean() < 0.8:
            return hole
