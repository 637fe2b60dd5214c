"""The Lee filters against the papers' formulas, written pixel by pixel."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio

from mmedge.errors import UsageError
from mmedge.geo_io.gather import SceneOptions
from mmedge.geo_io.refined_lee import refined_lee
from mmedge.geo_io.scene import open_scene
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


def slow_refined_lee(power: Any, valid: Any, looks: float) -> Any:
    """One pixel at a time, on a window of 7 x 7: nine means of 3 x 3, four gradients, the half that is alike."""
    out, rows, cols = power.astype(np.float64).copy(), *np.mgrid[-3:4, -3:4]
    halves = {
        "left": cols <= 0, "right": cols >= 0, "up": rows <= 0, "down": rows >= 0,
        "up left": rows + cols <= 0, "down right": rows + cols >= 0,
        "up right": cols - rows >= 0, "down left": cols - rows <= 0,
    }  # fmt: skip
    places = {"left": (-2, 0), "right": (2, 0), "up": (0, -2), "down": (0, 2)}  # col, row of the middle area
    places |= {f"{v} {h}": (places[h][0], places[v][1]) for v in ("up", "down") for h in ("left", "right")}
    pairs = [("left", "right"), ("up left", "down right"), ("up", "down"), ("up right", "down left")]
    for band, r, c in np.ndindex(power.shape):
        if not valid[r, c]:
            continue
        z, seen = np.zeros((7, 7)), np.zeros((7, 7), bool)
        for i, j in np.ndindex(7, 7):
            row, col = r + i - 3, c + j - 3
            if 0 <= row < valid.shape[0] and 0 <= col < valid.shape[1] and valid[row, col]:
                z[i, j], seen[i, j] = power[band, row, col], True

        def area(col: int, row: int, z: Any = z, seen: Any = seen) -> float:
            cut = np.s_[row + 2 : row + 5, col + 2 : col + 5]
            return float(z[cut][seen[cut]].mean() if seen[cut].any() else z[seen].mean())

        def side(name: str) -> float:
            x, y = places[name]
            three = [(x, y), *([(x, -2), (x, 2)] if y == 0 else [(-2, y), (2, y)] if x == 0 else [(x, 0), (0, y)])]
            return sum(area(*place) for place in three)

        pair = max(pairs, key=lambda p: abs(side(p[0]) - side(p[1])))
        half = seen & halves[min(pair, key=lambda name: abs(area(*places[name]) - area(0, 0)))]
        m, v = z[half].mean(), z[half].var()
        b = max(0.0, (v - m**2 / looks) / (1 + 1 / looks)) / v if v > 0 else 0.0
        out[band, r, c] = m + b * (power[band, r, c] - m)
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


@pytest.mark.parametrize("looks", [1.0, 4.4, 30.0])
def test_the_refined_one_is_its_formula(power: Any, looks: float) -> None:
    part = power[:, 100:124, 60:90]
    valid = np.random.default_rng(1).random(part.shape[1:]) > 0.2
    valid[5:12, 8:15] = False
    found = refined_lee(part, valid, looks=looks)
    np.testing.assert_allclose(found, slow_refined_lee(part, valid, looks), rtol=1e-5)
    np.testing.assert_array_equal(found[:, ~valid], part[:, ~valid])


def test_the_refined_one_keeps_edges_where_the_plain_one_blurs_them() -> None:
    """Two fields, 10 dB apart, under speckle of 4 looks."""
    rng, cols = np.random.default_rng(5), np.arange(120)
    truth = np.broadcast_to(np.where(cols < 60, 0.01, 0.1), (1, 120, 120))
    speckle = (truth * rng.gamma(4, 1 / 4, truth.shape)).astype(np.float32)
    whole = np.ones((120, 120), bool)
    plain, refined = lee(speckle, whole, size=7, looks=4), refined_lee(speckle, whole, looks=4)
    beside, within = np.s_[0, :, 57:60], np.s_[0, :, 10:40]
    assert refined[within].std() < 0.5 * speckle[within].std()
    assert np.abs(refined[beside] / 0.01 - 1).mean() < 0.5 * np.abs(plain[beside] / 0.01 - 1).mean()
    assert refined.mean() == pytest.approx(truth.mean(), rel=0.03)


def test_a_window_with_its_margin_filters_as_the_whole_scene_does(power: Any) -> None:
    valid = power[0] > np.percentile(power[0], 3)
    whole = lee(power, valid, size=5)
    part = lee(power[:, 38:142, 58:162], valid[38:142, 58:162], size=5)
    np.testing.assert_array_equal(part[:, 2:-2, 2:-2], whole[:, 40:140, 60:160])
    whole, part = refined_lee(power, valid), refined_lee(power[:, 38:142, 58:162], valid[38:142, 58:162])
    np.testing.assert_array_equal(part[:, 3:-3, 3:-3], whole[:, 41:139, 61:159])


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


def test_the_refined_filter_of_a_scene(chile: Path, power: Any) -> None:
    expected = 10 * np.log10(refined_lee(power, np.ones(power.shape[1:], bool), looks=3))
    options = SceneOptions(speckle=Speckle(kind="refined-lee", size=7, looks=3))
    with open_scene(chile / "scene.tif", None, options) as scene:
        part = scene.read(Window(50, 60, 40, 30))
        assert scene.assumptions == ("speckle filtered: refined Lee, 7 x 7 pixels, 3 looks",)
    np.testing.assert_allclose(part.data["sar"], expected[:, 50:90, 60:90], atol=1e-4)


@pytest.mark.parametrize("kind", [Speckle(size=5), Speckle(kind="refined-lee", size=7)])
def test_failures_are_found_before_the_filter_smears_them(chile: Path, tmp_path: Path, kind: Speckle) -> None:
    """A dead line is found, and what is left is what the filter makes of the scene without it."""
    reach = kind.size // 2
    with rasterio.open(chile / "sar.tif") as src:
        data = src.read()
        data[:, 70] = -60
        with rasterio.open(tmp_path / "dead.tif", "w", **src.profile) as out:
            out.write(data)
            out.descriptions = src.descriptions
    both = SceneOptions(sources={"sar": [tmp_path / "dead.tif"]}, speckle=kind, screen=True)
    alone = SceneOptions(sources={"sar": [chile / "sar.tif"]}, speckle=kind)
    with open_scene(None, None, both) as scene, open_scene(None, None, alone) as clean:
        found, right = scene.read(scene.grid.window), clean.read(clean.grid.window)
        part = scene.read(Window(60, 30, 30, 40))
    lost = ~found.valid["sar"].any(axis=1)
    assert np.flatnonzero(lost).tolist() == list(range(70 - reach, 71 + reach))
    assert found.valid["sar"].all(axis=1).sum() == len(lost) - lost.sum()
    assert found.lost["sar"]["dead_line"][70].all()
    np.testing.assert_array_equal(found.data["sar"][:, ~lost], right.data["sar"][:, ~lost])
    np.testing.assert_array_equal(part.valid["sar"], found.valid["sar"][60:90, 30:70])
    np.testing.assert_array_equal(part.data["sar"], found.data["sar"][:, 60:90, 30:70])


def test_a_complex_image_has_one_look(shared_data: Path) -> None:
    path = shared_data / "open/readers/spacenet6/sar_hh.tif"
    with open_scene(None, None, SceneOptions(sources={"sar": [path]}, bands={"sar": ["HH"]}, speckle=Speckle())) as s:
        assert any("5 x 5 pixels, 1 looks" in text for text in s.assumptions)


def test_settings_are_refused_before_anything_is_read() -> None:
    for wrong in ({"size": 4}, {"size": 1}, {"looks": 0.0}, {"kind": "refined-lee"}):
        with pytest.raises(UsageError):
            Speckle(**wrong)
