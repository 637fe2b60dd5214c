"""Blocks: every square in one part, every class in every part where it can be, the same on any grid."""

from __future__ import annotations

import json

import numpy as np
import pytest
from rasterio.crs import CRS

from mmedge.edge.evaluation.blocks import ELSEWHERE, TEST, TRAIN, VALIDATE, Blocks, deal_blocks
from mmedge.errors import UsageError
from mmedge.grid import Grid, Window

UTM = CRS.from_epsg(32718).to_wkt()
GRID = Grid(200, 170, (10.0, 0.0, 700_000.0, 0.0, -10.0, 5_700_000.0), UTM)
SHARES = (0.6, 0.2, 0.2)


def scene(seed: int) -> np.ndarray:
    """Two classes, a third that lies in four squares alone."""
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, 2, GRID.shape)
    for corner in ((0, 0), (60, 90), (120, 30), (160, 150)):
        labels[corner[0] : corner[0] + 10, corner[1] : corner[1] + 10] = 2
    return labels


@pytest.mark.parametrize("seed", range(5))
def test_every_part_has_its_share_of_every_class(seed: int) -> None:
    labels = scene(seed)
    (parts,) = deal_blocks([labels], [None], 20, SHARES, 3, seed)
    pixels = Blocks(grid=GRID, block_px=20, parts=parts).pixels()
    for part, share in zip((TRAIN, VALIDATE, TEST), SHARES, strict=True):
        assert abs((pixels == part).mean() - share) < 0.08
        assert set(np.unique(labels[pixels == part])) == {0, 1, 2}


def test_the_seed_decides() -> None:
    deals = [deal_blocks([scene(0)], [None], 20, SHARES, 3, seed)[0] for seed in (1, 1, 2)]
    np.testing.assert_array_equal(deals[0], deals[1])
    assert (deals[0] != deals[2]).any()


def test_a_scene_whose_part_is_given_keeps_it() -> None:
    labels = [scene(0), scene(1)]
    parts = deal_blocks(labels, [TEST, None], 20, SHARES, 3, 0)
    assert (parts[0] == TEST).all()
    assert {TRAIN, VALIDATE} <= set(np.unique(parts[1]))


def test_too_few_squares_are_refused() -> None:
    with pytest.raises(UsageError, match="2 squares of 170 px hold labels"):
        deal_blocks([scene(0)], [None], 170, SHARES, 3, 0)


def test_blocks_on_other_grids() -> None:
    (parts,) = deal_blocks([scene(0)], [None], 20, SHARES, 3, 0)
    blocks = Blocks.parse(json.loads(json.dumps(Blocks(grid=GRID, block_px=20, parts=parts).document())))
    np.testing.assert_array_equal(blocks.pixels(), Blocks(grid=GRID, block_px=20, parts=parts).pixels())
    window = Window(-5, 40, 60, 50)
    shifted = blocks.on(GRID.crop(window))
    assert (shifted[:5] == ELSEWHERE).all()
    np.testing.assert_array_equal(shifted[5:], blocks.pixels()[:55, 40:90])
    a, b, c, d, e, f = GRID.transform
    finer = Grid(400, 340, (a / 2, b, c, d, e / 2, f), UTM)
    np.testing.assert_array_equal(blocks.on(finer), blocks.pixels().repeat(2, 0).repeat(2, 1))


def test_blocks_in_another_crs() -> None:
    from rasterio.warp import transform

    (parts,) = deal_blocks([scene(0)], [None], 20, SHARES, 3, 0)
    blocks = Blocks(grid=GRID, block_px=20, parts=parts)
    lon, lat = transform(UTM, "EPSG:4326", [700_000.0, 701_000.0], [5_700_000.0, 5_698_900.0])
    other = Grid(90, 80, (1e-4, 0, lon[0] + 1e-4, 0, -1e-4, lat[0] - 1e-4), CRS.from_epsg(4326).to_wkt())
    found = blocks.on(other)
    xs, ys = other.xy(np.array([3.5, 40.5, 70.5]), np.array([2.5, 33.5, 60.5]))
    x, y = transform("EPSG:4326", UTM, xs, ys)
    row, col = GRID.rowcol(np.array(x), np.array(y))
    expected = blocks.pixels()[row.astype(int), col.astype(int)]
    np.testing.assert_array_equal(found[[3, 40, 70], [2, 33, 60]], expected)
