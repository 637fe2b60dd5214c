"""No training window may touch a validation or test block."""

from __future__ import annotations

import numpy as np
import pytest

pytest.importorskip("torch")

from mmedge.edge.training.batches import Sampler, TrainingSet
from mmedge.edge.training.missingness import Holes
from mmedge.edge.training.samples import LabelledScene, WorldPixels
from mmedge.edge.training.split import BLOCKS, TEST, TRAIN, VALIDATE, part_of_pixels, windows_inside

SIZE = 64


@pytest.mark.parametrize("scene", BLOCKS)
def test_no_training_window_overlaps_another_part(scene: str) -> None:
    part = part_of_pixels(scene)
    origins = windows_inside(part == TRAIN, SIZE)
    assert len(origins) > 1000
    for row, col in origins:
        assert (part[row : row + SIZE, col : col + SIZE] == TRAIN).all()


@pytest.mark.parametrize("scene", BLOCKS)
def test_every_training_pixel_is_in_some_window(scene: str) -> None:
    part = part_of_pixels(scene)
    reached = np.zeros(part.shape, bool)
    for row, col in windows_inside(part == TRAIN, SIZE):
        reached[row : row + SIZE, col : col + SIZE] = True
    np.testing.assert_array_equal(reached, part == TRAIN)


def test_windows_inside_finds_exactly_those_that_fit() -> None:
    mask = np.random.default_rng(0).random((40, 30)) < 0.97
    found = {tuple(o) for o in windows_inside(mask, 5).tolist()}
    fits = {(r, c) for r in range(36) for c in range(26) if mask[r : r + 5, c : c + 5].all()}
    assert found == fits


def tagged_scene(name: str) -> LabelledScene:
    """A scene whose labels and pixels say which part they belong to."""
    part = part_of_pixels(name).astype(np.int64)
    data = {
        m: np.broadcast_to(part, (c, *part.shape)).astype(np.float32) for m, c in (("optical", 9), ("elevation", 1))
    }
    valid = {m: np.ones(part.shape, bool) for m in data}
    return LabelledScene(name, data, valid, part, (0, 0))


def test_what_the_sampler_draws_never_holds_another_part() -> None:
    world = WorldPixels({}, {}, np.zeros(0, np.int64), np.array([], dtype=str))
    sampler = Sampler(TrainingSet(tuple(tagged_scene(s) for s in BLOCKS), world, Holes()))
    for seed in range(40):
        batch = sampler.windows(np.random.default_rng(seed), ("elevation",), 4)
        assert set(np.unique(batch.labels)) == {TRAIN}
        assert set(np.unique(batch.data["elevation"])) == {float(TRAIN)}


def test_every_part_is_there() -> None:
    for scene in BLOCKS:
        assert set(np.unique(part_of_pixels(scene))) == {TRAIN, VALIDATE, TEST}
