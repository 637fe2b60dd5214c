"""Blocks: every square in one part, every class in every part where it can be, the same on any grid."""

from __future__ import annotations

import json

import numpy as np
import pytest
from rasterio.crs import CRS

from mmedge.edge.evaluation.blocks import ELSEWHERE, TEST, TRAIN, VALIDATE, Blocks, deal_scenes
from mmedge.errors import UsageError
from mmedge.grid import Grid, Window

UTM = CRS.from_epsg(32718).to_wkt()
GRID = Grid(200, 170, (10.0, 0.0, 700_000.0, 0.0, -10.0, 5_700_000.0), UTM)
ELSE = Grid(200, 170, (10.0, 0.0, 800_000.0, 0.0, -10.0, 5_700_000.0), UTM)
SHARES = (0.6, 0.2, 0.2)


def scene(seed: int) -> np.ndarray:
    """Two classes, a third that lies in four squares alone."""
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, 2, GRID.shape)
    for corner in ((0, 0), (60, 90), (120, 30), (160, 150)):
        labels[corner[0] : corner[0] + 10, corner[1] : corner[1] + 10] = 2
    return labels


def dealt(labels: np.ndarray, seed: int = 0) -> Blocks:
    (blocks,), (left,) = deal_scenes([labels], [GRID], [None], 20, SHARES, 3, seed)
    np.testing.assert_array_equal(left, labels)
    return blocks


@pytest.mark.parametrize("seed", range(5))
def test_every_part_has_its_share_of_every_class(seed: int) -> None:
    labels = scene(seed)
    pixels = dealt(labels, seed=seed).pixels()
    for part, share in zip((TRAIN, VALIDATE, TEST), SHARES, strict=True):
        assert abs((pixels == part).mean() - share) < 0.08
        assert set(np.unique(labels[pixels == part])) == {0, 1, 2}


def test_the_seed_decides() -> None:
    deals = [dealt(scene(0), seed=seed).parts for seed in (1, 1, 2)]
    np.testing.assert_array_equal(deals[0], deals[1])
    assert (deals[0] != deals[2]).any()


def test_a_scene_whose_part_is_given_keeps_it() -> None:
    (given, free), left = deal_scenes([scene(0), scene(1)], [GRID, ELSE], [TEST, None], 20, SHARES, 3, 0)
    assert (given.parts == TEST).all()
    assert {TRAIN, VALIDATE} <= set(np.unique(free.parts))
    for labels, seed in zip(left, (0, 1), strict=True):
        np.testing.assert_array_equal(labels, scene(seed))


def test_dates_of_one_place_have_one_split() -> None:
    (first, second), left = deal_scenes([scene(0), scene(1)], [GRID, GRID], [None, None], 20, SHARES, 3, 0)
    np.testing.assert_array_equal(first.parts, second.parts)
    np.testing.assert_array_equal(left[1], scene(1))


@pytest.mark.parametrize("fixed", [(None, None, None), (None, TEST, None), (TRAIN, TEST, None), (None, None, TRAIN)])
def test_ground_that_trains_in_one_scene_is_judged_in_none(fixed: tuple[int | None, ...]) -> None:
    """Grids that overlap by half, moved by no whole number of squares."""
    grids = [GRID, GRID.crop(Window(77, 33, 200, 170)), GRID.crop(Window(-51, 65, 150, 150))]
    whole = GRID.crop(Window(-60, 0, 400, 300))
    blocks, left = deal_scenes([np.ones(g.shape, int) for g in grids], grids, fixed, 20, SHARES, 3, 0)
    uses = np.zeros((3, *whole.shape), bool)  # which parts use each pixel of the ground
    for grid, part, labels, given in zip(grids, blocks, left, fixed, strict=True):
        assert given is None or (part.parts == given).all()
        row, col = (round(v) for v in whole.rowcol(grid.transform[2], grid.transform[5]))
        pixels = part.pixels()
        for p in (TRAIN, VALIDATE, TEST):
            where = uses[p, row : row + grid.rows, col : col + grid.cols]
            where |= (pixels == p) & (labels >= 0)
    assert uses.any((1, 2)).all()
    assert uses.sum(0).max() == 1
    shown = np.logical_or.reduce([b.on(whole) != ELSEWHERE for b in blocks])
    assert uses.any(0).sum() > 0.8 * shown.sum()


def test_too_few_squares_are_refused() -> None:
    with pytest.raises(UsageError, match="2 squares of 170 px hold labels"):
        deal_scenes([scene(0)], [GRID], [None], 170, SHARES, 3, 0)


def test_blocks_on_other_grids() -> None:
    made = dealt(scene(0))
    blocks = Blocks.parse(json.loads(json.dumps(made.document())))
    np.testing.assert_array_equal(blocks.pixels(), made.pixels())
    window = Window(-5, 40, 60, 50)
    shifted = blocks.on(GRID.crop(window))
    assert (shifted[:5] == ELSEWHERE).all()
    np.testing.assert_array_equal(shifted[5:], blocks.pixels()[:55, 40:90])
    a, b, c, d, e, f = GRID.transform
    finer = Grid(400, 340, (a / 2, b, c, d, e / 2, f), UTM)
    np.testing.assert_array_equal(blocks.on(finer), blocks.pixels().repeat(2, 0).repeat(2, 1))


def test_blocks_in_another_crs() -> None:
    from rasterio.warp import transform

    blocks = dealt(scene(0))
    lon, lat = transform(UTM, "EPSG:4326", [700_000.0, 701_000.0], [5_700_000.0, 5_698_900.0])
    other = Grid(90, 80, (1e-4, 0, lon[0] + 1e-4, 0, -1e-4, lat[0] - 1e-4), CRS.from_epsg(4326).to_wkt())
    found = blocks.on(other)
    xs, ys = other.xy(np.array([3.5, 40.5, 70.5]), np.array([2.5, 33.5, 60.5]))
    x, y = transform("EPSG:4326", UTM, xs, ys)
    row, col = GRID.rowcol(np.array(x), np.array(y))
    expected = blocks.pixels()[row.astype(int), col.astype(int)]
    np.testing.assert_array_equal(found[[3, 40, 70], [2, 33, 60]], expected)
