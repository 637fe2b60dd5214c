"""Relief: percentile against numpy's, slope against planes, and nothing of what lies under invalid pixels."""

from __future__ import annotations

import numpy as np
import pytest

from mmedge.edge.relief import TERRAIN_REACH_PX, relief, terrain


def hills(batch: int, size: int = 64) -> np.ndarray:
    rng = np.random.default_rng(3)
    return rng.normal(300, 40, (batch, 1, size, size)).astype(np.float32)


@pytest.mark.parametrize("share_valid", [1.0, 0.6, 0.02])
def test_height_is_above_the_5th_percentile_of_the_valid_pixels(share_valid: float) -> None:
    dem = hills(4)
    valid = np.random.default_rng(0).random(dem.shape) < share_valid
    height = relief(dem, valid, 10.0)[:, 0]
    for d, v, h in zip(dem[:, 0], valid[:, 0], height, strict=True):
        np.testing.assert_allclose(h[v], d[v] - np.percentile(d[v], 5), atol=1e-3)
        assert not h[~v].any()


@pytest.mark.parametrize("pixel_m", [10.0, (10.0, 20.0)])
def test_slope_of_a_plane(pixel_m: float | tuple[float, float]) -> None:
    row_m, col_m = pixel_m if isinstance(pixel_m, tuple) else (pixel_m, pixel_m)
    rows, cols = np.mgrid[:32, :32].astype(np.float32)
    dem = (0.3 * rows * row_m + 0.4 * cols * col_m)[None, None]
    slope = relief(dem, np.ones(dem.shape, bool), pixel_m)[0, 1]
    np.testing.assert_allclose(slope, np.degrees(np.arctan(0.5)), atol=1e-3)


def test_slope_beside_voids_is_one_sided_and_isolated_pixels_have_none() -> None:
    cols = np.mgrid[:16, :16][1].astype(np.float32)[None, None] * 10
    valid = np.ones(cols.shape, bool)
    valid[..., 7] = False
    slope = relief(cols, valid, 10.0)[0, 1]
    np.testing.assert_allclose(slope[:, [6, 8]], 45, atol=1e-3)
    assert not slope[:, 7].any()
    alone = np.zeros(cols.shape, bool)
    alone[..., 5, 5] = True
    assert not relief(cols, alone, 10.0).any()


def test_invalid_pixels_do_not_leak() -> None:
    dem, valid = hills(3), np.random.default_rng(1).random((3, 1, 64, 64)) < 0.7
    poisoned = np.where(valid, dem, np.float32(np.nan))
    out = relief(poisoned, valid, 10.0)
    assert np.isfinite(out).all()
    np.testing.assert_array_equal(out, relief(np.where(valid, dem, np.float32(1e9)), valid, 10.0))


def test_no_valid_pixel_gives_zeros() -> None:
    assert not relief(np.full((2, 1, 8, 8), np.nan, np.float32), np.zeros((2, 1, 8, 8), bool), 10.0).any()


def test_a_window_does_not_depend_on_its_batch() -> None:
    dem, valid = hills(5), np.random.default_rng(2).random((5, 1, 64, 64)) < 0.9
    together = relief(dem, valid, 10.0)
    for i in range(5):
        np.testing.assert_array_equal(together[i : i + 1], relief(dem[i : i + 1], valid[i : i + 1], 10.0))


def test_topographic_position_is_the_height_above_the_mean_around() -> None:
    dem, valid = hills(1, 24), np.random.default_rng(4).random((1, 1, 24, 24)) < 0.8
    index = terrain(dem, valid, 10.0)[0, 0]
    reach = TERRAIN_REACH_PX
    for row, col in np.argwhere(valid[0, 0]):
        around = np.s_[max(0, row - reach) : row + reach + 1, max(0, col - reach) : col + reach + 1]
        mean = dem[0, 0][around][valid[0, 0][around]].mean(dtype=np.float64)
        assert index[row, col] == pytest.approx(dem[0, 0, row, col] - mean, abs=1e-2)


def test_terrain_comes_to_the_same_bits_wherever_its_window_lies() -> None:
    dem, valid = hills(1, 80), np.random.default_rng(5).random((1, 1, 80, 80)) < 0.9
    whole, reach = terrain(dem, valid, 10.0), TERRAIN_REACH_PX
    for row, col in ((0, 0), (3, 11), (16, 16)):
        window = np.s_[..., row : row + 64, col : col + 64]
        part, inside = terrain(dem[window], valid[window], 10.0), np.s_[..., reach:-reach, reach:-reach]
        np.testing.assert_array_equal(part[inside], whole[window][inside])


def test_what_lies_under_invalid_pixels_does_not_reach_terrain() -> None:
    dem, valid = hills(2), np.random.default_rng(6).random((2, 1, 64, 64)) < 0.7
    out = terrain(np.where(valid, dem, np.float32(np.nan)), valid, 10.0)
    np.testing.assert_array_equal(out, terrain(np.where(valid, dem, np.float32(1e9)), valid, 10.0))
