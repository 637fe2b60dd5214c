"""Real scenes and pixels: units, traps, windows; holes and the sampler's determinism."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("torch")

from mmedge.bundle import builtin_bundles, open_bundle
from mmedge.edge.training.batches import Sampler, TrainingSet, turn
from mmedge.edge.training.card import training_of
from mmedge.edge.training.missingness import Holes, patterns, read_cloud_masks
from mmedge.edge.training.samples import (
    CLASS_VALUES,
    believable,
    cell_part,
    cut,
    read_scene,
    read_world_pixels,
    with_relief,
)
from mmedge.edge.training.split import BLOCKS, TEST, TRAIN, part_of_pixels

DATA = Path(__file__).parents[4] / "shared/data"
needs_data = pytest.mark.skipif(not DATA.is_dir(), reason=f"the training data are not here: {DATA}")


@pytest.fixture(scope="module")
def training() -> TrainingSet:
    return TrainingSet.read(DATA)


@needs_data
def test_units_and_the_offset_of_the_chile_scene(training: TrainingSet) -> None:
    for scene in training.scenes:
        assert 0.01 < np.median(scene.data["optical"][0]) < 0.15, scene.name
        assert -25 < scene.data["sar"].mean() < -5
        assert all(v.all() for v in scene.valid.values())
        assert scene.labels.max() == len(CLASS_VALUES) - 1 or scene.name.startswith(("282D", "38D", "433D"))


@needs_data
def test_classes_of_the_parts(training: TrainingSet) -> None:
    """Every class trains; every class but the flooded vegetation (one block) has its pixels in the test part."""
    found = {TRAIN: set(), TEST: set()}
    for scene in training.scenes:
        for part, seen in found.items():
            seen |= set(np.unique(scene.labels[part_of_pixels(scene.name) == part]).tolist())
    assert found[TRAIN] == set(range(len(CLASS_VALUES)))
    assert found[TEST] >= set(range(len(CLASS_VALUES))) - {CLASS_VALUES.index(3)}


@needs_data
def test_windows_that_reach_outside_are_invalid_there(training: TrainingSet) -> None:
    scene = training.scenes[0]
    data, valid = cut(scene, np.array([[-8, 200]]), 64)
    assert not valid["sar"][0, 0, :8].any()
    assert not valid["sar"][0, 0, :, 24:].any()
    assert valid["sar"][0, 0, 8:, :24].all()
    np.testing.assert_array_equal(data["optical"][0, :, 8:, :24], scene.data["optical"][:, :56, 200:])


@needs_data
def test_elevation_is_never_absolute(training: TrainingSet) -> None:
    scene = training.scenes[1]
    data, valid = cut(scene, np.array([[0, 0], [100, 100]]), 64)
    lifted = {**data, "elevation": data["elevation"] + 1000}
    np.testing.assert_allclose(
        with_relief(data, valid)["elevation"], with_relief(lifted, valid)["elevation"], atol=1e-3
    )


@needs_data
def test_labels_that_the_image_contradicts_do_not_train(training: TrainingSet) -> None:
    """The sandbar of the Brazilian coast is labelled water; elsewhere next to nothing is dropped."""
    dropped = {s.name[:4]: ((believable(s) != s.labels).sum(), (s.labels == 0).sum()) for s in training.scenes}
    assert 0.25 < dropped["282D"][0] / dropped["282D"][1] < 0.4
    assert dropped["38D_"][0] == 0
    assert dropped["433D"][0] / dropped["433D"][1] < 0.1
    water = training.scenes[0].data["optical"][7][(believable(training.scenes[0]) == 0)]
    assert water.max() <= 0.15


@needs_data
def test_cells_belong_to_one_part(training: TrainingSet) -> None:
    world = training.world
    part = cell_part(world.cells)
    assert set(part.tolist()) == {0, 1, 2}
    for cell in set(world.cells.tolist()):
        assert len(set(part[world.cells == cell].tolist())) == 1
    assert (world.labels >= 0).all()
    blue = world.data["optical"][..., 0][world.usable["optical"]]
    assert blue.max() < 0.2


@needs_data
def test_a_draw_depends_on_the_generator_alone(training: TrainingSet) -> None:
    draws = [Sampler(training).windows(np.random.default_rng([3, 7]), ("optical", "sar"), 3) for _ in range(2)]
    for m in ("optical", "sar"):
        np.testing.assert_array_equal(draws[0].data[m], draws[1].data[m])
        np.testing.assert_array_equal(draws[0].holed[m], draws[1].holed[m])
    np.testing.assert_array_equal(draws[0].labels, draws[1].labels)


@pytest.mark.parametrize("turns", range(4))
@pytest.mark.parametrize("flip", [False, True])
def test_labels_turn_with_the_data(turns: int, flip: bool) -> None:
    labels = np.arange(1 * 6 * 6).reshape(1, 6, 6)
    data = np.broadcast_to(labels[:, None], (1, 3, 6, 6)).astype(np.float32)
    turned = turn(data, turns, flip)
    np.testing.assert_array_equal(turned, np.broadcast_to(turn(labels, turns, flip)[:, None], turned.shape))
    assert (turns == 0 and not flip) != (turned != data).any()


@needs_data
def test_the_snow_scene_is_not_used() -> None:
    assert not [name for name in BLOCKS if name.startswith("609U")]
    assert read_scene(DATA / "open/terramesh/609U_541L_3_0").labels.max() == -1


@needs_data
def test_holes_have_every_kind_and_never_all(training: TrainingSet) -> None:
    rng = np.random.default_rng(0)
    shares = [training.holes.draw(rng, 64).mean() for _ in range(300)]
    assert 0 < min(shares) < 0.02
    assert 0.5 < max(shares) < 0.9
    assert read_cloud_masks(DATA / "open/cloud_masks/cloud_masks.npz").shape[0] >= 15


def test_holes_need_no_clouds() -> None:
    rng = np.random.default_rng(1)
    assert all(0 < Holes().draw(rng, 64).mean() < 0.9 for _ in range(100))


def test_patterns_are_the_non_empty_sets() -> None:
    assert len(patterns(("a", "b", "c"))) == len(set(patterns(("a", "b", "c")))) == 7


@needs_data
def test_world_pixels_are_read_in_our_units() -> None:
    world = read_world_pixels(DATA / "train_only/world_pixels/world_pixels.npz")
    vv = world.data["sar"][..., 0][world.usable["sar"]]
    assert -25 < np.median(vv) < -5
    assert world.data["optical"].shape[1:] == (12, 9)


@needs_data
@pytest.mark.parametrize("name", builtin_bundles())
def test_bundles_that_ship_say_which_squares_trained_them(name: str) -> None:
    wanted = [training_of(DATA / "open/terramesh" / scene) for scene in BLOCKS]
    assert open_bundle(name).item["properties"]["mmedge:training"] == {"scenes": wanted}
