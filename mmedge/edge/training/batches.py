"""Random training batches. Everything that is drawn depends on the generator alone, so a run can be resumed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import numpy as np
import numpy.typing as npt

from mmedge.edge.training.missingness import Holes, Rng, read_cloud_masks
from mmedge.edge.training.samples import (
    Arrays,
    LabelledScene,
    Masks,
    WorldPixels,
    believable,
    cell_part,
    cut,
    read_scene,
    read_world_pixels,
)
from mmedge.edge.training.score import WINDOW_PX, repeat
from mmedge.edge.training.split import BLOCKS, TEST, TRAIN, VALIDATE, part_of_pixels, windows_inside

Ints = npt.NDArray[np.int64]
Scalar = TypeVar("Scalar", bound=np.generic)


@dataclass(frozen=True, slots=True)
class Batch:
    """Windows with raw elevation: `valid` as read, `holed` with holes cut into it; labels (B, H, W), -1 = none."""

    data: Arrays
    valid: Masks
    holed: Masks
    labels: Ints


@dataclass(frozen=True, slots=True)
class TrainingSet:
    """Scenes with the pixels that belong to each part, world pixels by part, and hole shapes."""

    scenes: tuple[LabelledScene, ...]
    world: WorldPixels
    holes: Holes

    @classmethod
    def read(cls, data: Path, scenes: Sequence[str] = tuple(BLOCKS)) -> TrainingSet:
        """From the folder that holds `open/terramesh`, `open/cloud_masks` and `train_only/world_pixels`."""
        return cls(
            tuple(read_scene(data / "open/terramesh" / name) for name in scenes),
            read_world_pixels(data / "train_only/world_pixels/world_pixels.npz"),
            Holes(read_cloud_masks(data / "open/cloud_masks/cloud_masks.npz")),
        )

    def world_part(self, part: int) -> WorldPixels:
        return self.world.subset(cell_part(self.world.cells) == part)


class Sampler:
    """Draws batches from the training blocks of a set. `everywhere` trains on all blocks (leave one scene out)."""

    def __init__(self, data: TrainingSet, *, everywhere: bool = False) -> None:
        self.data = data
        self.world = data.world_part(TRAIN)
        self.labels = [believable(s) for s in data.scenes]
        self.origins = [
            windows_inside(
                np.ones(s.labels.shape, np.bool_) if everywhere else part_of_pixels(s.name) == TRAIN, WINDOW_PX
            )
            for s in data.scenes
        ]

    def windows(self, rng: Rng, sensors: Sequence[str], count: int) -> Batch:
        """`count` windows, turned and flipped, their radiometry jittered, each with a hole in some of its sensors."""
        parts = [self._window(rng, sensors) for _ in range(count)]
        return Batch(
            {m: np.concatenate([p.data[m] for p in parts]) for m in sensors},
            {m: np.concatenate([p.valid[m] for p in parts]) for m in sensors},
            {m: np.concatenate([p.holed[m] for p in parts]) for m in sensors},
            np.concatenate([p.labels for p in parts]),
        )

    def _window(self, rng: Rng, sensors: Sequence[str]) -> Batch:
        which = rng.integers(len(self.data.scenes))
        scene, origins = self.data.scenes[which], self.origins[which]
        origin = origins[rng.integers(len(origins))][None]
        data, valid = cut(scene, origin, WINDOW_PX)
        row, col = origin[0]
        labels = self.labels[which][None, row : row + WINDOW_PX, col : col + WINDOW_PX]
        turns, flip = int(rng.integers(4)), bool(rng.random() < 0.5)
        turned = {m: turn(valid[m], turns, flip) for m in sensors}
        return Batch(
            {m: turn(jitter(rng, m, data[m]), turns, flip) for m in sensors},
            turned,
            self._with_holes(rng, turned),
            turn(labels, turns, flip),
        )

    def _with_holes(self, rng: Rng, valid: Masks) -> Masks:
        """A hole in one sensor, sometimes in more; sometimes one hole in all of them, as at a scene's border."""
        if rng.random() < 0.15:
            hole = self.data.holes.draw(rng, WINDOW_PX)
            return {m: v & ~hole for m, v in valid.items()}
        chosen = rng.integers(len(valid))
        return {
            m: v & ~self.data.holes.draw(rng, WINDOW_PX) if i == chosen or rng.random() < 0.2 else v
            for i, (m, v) in enumerate(valid.items())
        }

    def world_pixels(self, rng: Rng, sensors: Sequence[str], count: int) -> tuple[Arrays, Masks, Ints]:
        """`count` single pixels at a random usable date, classes by the root of their number, as 8 x 8 patches."""
        share = np.bincount(self.world.labels).astype(float)
        weight = (1 / np.sqrt(np.maximum(share, 1)))[self.world.labels]
        usable = np.logical_and.reduce([self.world.usable[m] for m in sensors])
        weight = weight * usable.any(1)
        places = rng.choice(len(weight), count, p=weight / weight.sum())
        dates = np.array([rng.choice(np.flatnonzero(usable[p])) for p in places])
        data = {
            m: repeat(jitter(rng, m, self.world.data[m][places, dates][..., None, None])[..., 0, 0]) for m in sensors
        }
        valid = {m: np.ones((count, 1, *data[m].shape[-2:]), np.bool_) for m in sensors}
        return data, valid, self.world.labels[places]


def turn(x: npt.NDArray[Scalar], turns: int, flip: bool) -> npt.NDArray[Scalar]:
    """Quarter turns of the last two axes, then a flip."""
    x = np.rot90(x, turns, axes=(-2, -1))
    return np.ascontiguousarray(x[..., ::-1] if flip else x)


def jitter(rng: Rng, sensor: str, x: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    """Illumination and calibration differ from scene to scene: a gain for all bands, a little one for each."""
    if sensor == "optical":
        gain = rng.normal(1, 0.08) * rng.normal(1, 0.03, (x.shape[1], 1, 1)) if x.ndim == 4 else rng.normal(1, 0.08)
        return (x * gain + rng.normal(0, 0.005)).astype(np.float32)
    if sensor == "sar":
        return (x + rng.normal(0, 0.7) + rng.normal(0, 0.3, (x.shape[1], 1, 1))).astype(np.float32)
    return x


__all__ = ["TEST", "TRAIN", "VALIDATE", "Batch", "Sampler", "TrainingSet", "jitter", "turn"]
