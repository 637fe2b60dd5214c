"""The Lee filter against the paper's formula, written pixel by pixel."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio

from mmedge.errors import UsageError
from mmedge.geo_io.scene import SceneOptions, open_scene
from mmedge.geo_io.speckle import Speckle, lee
from mmedge.grid import Window


def slow_lee(power: Any, valid: Any, size: int, looks: float) -> Any:
    """One pixel at a time: x' = m + w (x - m), w = 1 - cu^2 / ci^2."""
    half, out = size // 2, power.astype(np.float64).copy()
    for band in range(len(power)):
        for r, c in zip(*np.nonzero(valid), strict=True):
            cut = slice(max(0, r - half), r + half + 1), slice(max(0, c - half), c + half + 1)
            seen = power[band][cut][valid[cut]].astype(np.float64)
            m, ci2 = seen.mean(), seen.var() / seen.mean() ** 2
            w = max(0.0, 1 - 1 / looks / ci2) if ci2 > 0 else 0.0
            out[band, r, c] = m + w * (power[band, r, c] - m)
    return out


@pytest.fixture(scope="module")
def power(chile: Path) -> Any:
    with rasterio.open(chile / "sar.tif") as src:
        return (10 ** (src.read() / 10)).astype(np.float32)


@pytest.mark.parametrize(("size", "looks"), [(3, 1.0), (5, 4.4), (7, 50.0)])
def test_it_is_the_formula(power: Any, size: int, looks: float) -> None:
    part = power[:, :48, :40]
    valid = np.random.default_rng(1).random(part.shape[1:]) > 0.2
    found = lee(part, valid, size=size, looks=looks)
    np.testing.assert_allclose(found, slow_lee(part, valid, size, looks), rtol=2e-6)
    np.testing.assert_array_equal(found[:, ~valid], part[:, ~valid])


def test_a_window_with_its_margin_filters_as_the_whole_scene_does(power: Any) -> None:
    valid = power[0] > np.percentile(power[0], 3)
    whole = lee(power, valid, size=5)
    part = lee(power[:, 38:142, 58:162], valid[38:142, 58:162], size=5)
    np.testing.assert_array_equal(part[:, 2:-2, 2:-2], whole[:, 40:140, 60:160])


def test_speckle_goes_and_the_mean_stays() -> None:
    """Speckle of 4 looks over even ground, and a corner reflector: the ground becomes smooth, the reflector stays."""
    speckle = np.random.default_rng(2).gamma(4, 1 / 4, (1, 200, 200)).astype(np.float32)
    speckle[0, 100, 100] = 500
    found = lee(speckle, np.ones((200, 200), bool), size=7, looks=4)
    ground = found[0, :90, :90]
    assert ground.std() < 0.4 * speckle[0, :90, :90].std()
    assert ground.mean() == pytest.approx(speckle[0, :90, :90].mean(), rel=0.01)
    assert found[0, 100, 100] > 490


def test_even_ground_and_nothing_at_all() -> None:
    flat = np.full((1, 9, 9), 0.25, np.float32)
    np.testing.assert_array_equal(lee(flat, np.ones((9, 9), bool)), flat)
    np.testing.assert_array_equal(lee(flat, np.zeros((9, 9), bool)), flat)


@pytest.mark.parametrize(("size", "looks"), [(4, 4.4), (1, 4.4), (5, 0)])
def test_senseless_settings_are_refused(size: int, looks: float) -> None:
    with pytest.raises(ValueError, match="must be"):
        lee(np.ones((1, 9, 9), np.float32), np.ones((9, 9), bool), size=size, looks=looks)


def test_radar_of_a_scene_is_filtered_on_its_own_grid(chile: Path, power: Any) -> None:
    """In linear power, before anything is resampled; a window as the whole scene, another sensor not at all."""
    expected = 10 * np.log10(lee(power, np.ones(power.shape[1:], bool), size=7, looks=3))
    options = SceneOptions(speckle=Speckle(size=7, looks=3))
    with open_scene(chile / "scene.tif", None, options) as scene, open_scene(chile / "scene.tif") as plain:
        whole = scene.read(scene.grid.window)
        part = scene.read(Window(50, 60, 40, 30))
        before = plain.read(plain.grid.window)
        assert scene.assumptions == ("speckle filtered: Lee, 7 x 7 pixels, 3 looks",)
    np.testing.assert_allclose(whole.data["sar"], expected, atol=1e-4)
    np.testing.assert_array_equal(part.data["sar"], whole.data["sar"][:, 50:90, 60:90])
    for sensor in ("optical", "elevation"):
        np.testing.assert_array_equal(whole.data[sensor], before.data[sensor])


def test_a_complex_image_has_one_look(shared_data: Path) -> None:
    path = shared_data / "open/readers/spacenet6/sar_hh.tif"
    with open_scene(None, None, SceneOptions(sources={"sar": [path]}, bands={"sar": ["HH"]}, speckle=Speckle())) as s:
        assert any("5 x 5 pixels, 1 looks" in text for text in s.assumptions)


def test_settings_are_refused_before_anything_is_read() -> None:
    for wrong in ({"size": 4}, {"size": 1}, {"looks": 0.0}):
        with pytest.raises(UsageError):
            Speckle(**wrong)
