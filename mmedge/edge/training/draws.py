"""Random training examples from labelled scenes. What is drawn depends on the generator alone."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from mmedge.edge.evaluation.blocks import TRAIN
from mmedge.edge.training.batches import turn
from mmedge.edge.training.config import AugmentConfig, RunConfig
from mmedge.edge.training.missingness import Rng, fixed_kept, kept_of, packed_holes, realistic
from mmedge.edge.training.samples import Arrays, Masks
from mmedge.edge.training.scenes import SceneSet
from mmedge.errors import UsageError

Ints = npt.NDArray[np.int64]
Wish = Mapping[tuple[str, ...], float] | None
POOL = 50_000  # labelled pixels of a class that windows are drawn around
TRIES = 16


@dataclass(frozen=True, slots=True)
class Examples:
    """Network inputs (B, C, H, W), valid (B, 1, H, W), labels (B, H, W) with -1 = none, and what stays (B, sensors)."""

    data: Arrays
    valid: Masks
    labels: Ints
    kept: npt.NDArray[np.bool_]


class Draws:
    """Windows that lie in training squares entirely, each with at least one label."""

    def __init__(self, scenes: SceneSet, config: RunConfig) -> None:
        self.scenes, self.config, self.size = scenes, config, config.window_px
        self.holes = packed_holes(self.size)
        found = [self._labelled(c) for c in range(len(scenes.classes))]
        self.counts = np.array([n for n, _ in found], np.float64)
        self.pools = [pool for _, pool in found]
        if not self.counts.any():
            raise UsageError("no training square holds a label", hint="change `split.seed`, or lower `block_px`")
        weights = np.where(self.counts > 0, np.maximum(self.counts, 1) ** (1 - config.balance.windows), 0.0)
        self.chances = weights / weights.sum()

    def class_weights(self) -> npt.NDArray[np.float32]:
        """Weight of each class in the loss (classes,), 1 for the rarest."""
        weights = np.where(self.counts > 0, np.maximum(self.counts, 1) ** -self.config.balance.loss, 0.0)
        return np.asarray(weights / weights.max(), np.float32)

    def examples(self, rng: Rng, count: int, wish: Wish = None, *, plain: bool = False) -> Examples:
        """`count` windows. `plain`: as they are, complete."""
        drawn = [self._window(rng, wish, plain=plain) for _ in range(count)]
        return Examples(
            {m: np.concatenate([e.data[m] for e in drawn]) for m in self.scenes.sensors},
            {m: np.concatenate([e.valid[m] for e in drawn]) for m in self.scenes.sensors},
            np.concatenate([e.labels for e in drawn]),
            np.concatenate([e.kept for e in drawn]),
        )

    def _window(self, rng: Rng, wish: Wish, *, plain: bool) -> Examples:
        which, row, col = self.place(rng)
        data, valid = self.scenes.windows(which, np.array([[row, col]]), self.size)
        labels = labels_at(self.scenes.scenes[which].labels, row, col, self.size)[None]
        kept = None
        if not plain:
            augment = self.config.augment
            turns = int(rng.integers(4)) if augment.turns else 0
            flip = augment.flips and bool(rng.random() < 0.5)
            data = {
                m.name: turn(jitter(rng, m.unit, data[m.name], augment), turns, flip) for m in self.scenes.modalities
            }
            valid = {m: turn(v, turns, flip) for m, v in valid.items()}
            labels = turn(labels, turns, flip)
            if self.config.missing.sampler == "realistic":
                units = {m.name: m.unit for m in self.scenes.modalities}
                valid, kept = realistic(rng, valid, units, self.config.missing.eta)
            elif rng.random() < self.config.missing.holes:
                valid = self._with_holes(rng, valid)
        if kept is None:
            present = np.array([valid[m].any() for m in self.scenes.sensors])
            kept = present if plain or not present.any() else self._kept(rng, present, (which, row, col), wish)
        return Examples(self.scenes.inputs(which, data, valid), valid, labels, kept[None])

    def _kept(
        self, rng: Rng, present: npt.NDArray[np.bool_], place: tuple[int, int, int], wish: Wish
    ) -> npt.NDArray[np.bool_]:
        missing, (which, row, col) = self.config.missing, place
        if missing.sampler != "fixed":
            return kept_of(missing.sampler, rng, present, self.scenes.sensors, wish)
        side = self.scenes.blocks[which].block_px
        centre = (max(0, row + self.size // 2) // side, max(0, col + self.size // 2) // side)
        return fixed_kept(self.config.seed, (which, *centre), missing.eta, present)

    def _with_holes(self, rng: Rng, valid: Masks) -> Masks:
        """A hole in one sensor, sometimes in more; sometimes one hole in all of them, as at a scene's border."""
        hole = self.holes.draw(rng, self.size)
        if rng.random() < 0.15:
            return {m: v & ~hole for m, v in valid.items()}
        chosen = int(rng.integers(len(valid)))
        return {
            m: v & ~(hole if i == chosen else self.holes.draw(rng, self.size))
            if i == chosen or rng.random() < 0.2
            else v
            for i, (m, v) in enumerate(valid.items())
        }

    def place(self, rng: Rng) -> tuple[int, int, int]:
        """Scene, row and column of a window around a labelled pixel of a random class."""
        pool = self.pools[rng.choice(len(self.pools), p=self.chances)]
        which, row, col = (int(v) for v in pool[rng.integers(len(pool))])
        for _ in range(TRIES):
            top, left = (int(v) - int(rng.integers(self.size)) for v in (row, col))
            if self._trains(which, top, left):
                return which, top, left
        side = self.scenes.blocks[which].block_px  # the pixel's own square holds a window
        top, left = (
            int(np.clip(v - self.size // 2, v // side * side, v // side * side + side - self.size)) for v in (row, col)
        )
        return which, top, left

    def _trains(self, which: int, top: int, left: int) -> bool:
        """Whether the window touches training squares alone; what lies outside the scene is nobody's."""
        blocks, last = self.scenes.blocks[which], self.size - 1
        side = blocks.block_px
        rows = slice(max(0, top) // side, (top + last) // side + 1)
        cols = slice(max(0, left) // side, (left + last) // side + 1)
        return bool((blocks.parts[rows, cols] == TRAIN).all())

    def _labelled(self, index: int) -> tuple[int, Ints]:
        """How many training pixels a class has, and scene, row, column (N, 3) of at most `POOL` of them."""
        number, places = 0, []
        for which, (scene, blocks) in enumerate(zip(self.scenes.scenes, self.scenes.blocks, strict=True)):
            mine = np.argwhere((scene.labels == index) & (blocks.pixels() == TRAIN))
            number += len(mine)
            mine = mine[:: max(1, -(-len(mine) // POOL))]
            places.append(np.concatenate([np.full((len(mine), 1), which), mine], axis=1))
        return number, np.concatenate(places)


def labels_at(labels: npt.NDArray[np.signedinteger[Any]], row: int, col: int, size: int) -> Ints:
    """Labels (size, size) of a window that may reach outside the scene: -1 there."""
    found = np.full((size, size), -1, np.int64)
    top, left = max(0, row), max(0, col)
    part = labels[top : row + size, left : col + size]
    found[top - row : top - row + part.shape[0], left - col : left - col + part.shape[1]] = part
    return found


def jitter(rng: Rng, unit: str, x: npt.NDArray[np.float32], config: AugmentConfig) -> npt.NDArray[np.float32]:
    """Illumination and calibration differ from scene to scene: a gain and a shift for all bands, half as much each."""
    gain, shift = config.gain.get(unit, 0.0), config.shift.get(unit, 0.0)
    if not gain and not shift:
        return x
    bands = (x.shape[1], 1, 1)
    factor = rng.normal(1, gain) * rng.normal(1, gain / 2, bands)
    return (x * factor + rng.normal(0, shift) + rng.normal(0, shift / 2, bands)).astype(np.float32)
