"""Calibration windows: real crops, sampled evenly; what cannot be calibrated on is an error."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import rasterio

from mmedge.bundle import Bundle, open_bundle
from mmedge.calibration.windows import (
    CalibrationError,
    LabelledWindow,
    SceneFiles,
    check_calibration,
    holed,
    read_windows,
    sample,
)
from mmedge.edge.runtime.session import GraphKey
from mmedge.geo_io.tiling import narrowed
from mmedge.modality import Availability


@pytest.fixture(scope="module")
def bundle() -> Bundle:
    return open_bundle()


@pytest.fixture(scope="module")
def windows(bundle: Bundle, chile: Path) -> list[LabelledWindow]:
    scenes = [SceneFiles(chile / "scene.tif", chile / "landcover.tif")]
    availability = Availability.of(["optical", "sar"], bundle.order)
    found = read_windows(scenes, bundle, availability, np.random.default_rng(0), crops=40)
    return [w for w in found if w.key == GraphKey(availability, False)]


def test_labels_are_those_of_the_core(bundle: Bundle, windows: list[LabelledWindow], chile: Path) -> None:
    with rasterio.open(chile / "landcover.tif") as src, rasterio.open(chile / "scene.tif") as scene:
        codes, sar = src.read(1), scene.read(scene.descriptions.index("sar:VV") + 1)
    window = windows[3]
    vv = window.feeds["sar"][0, 0]
    corners = np.argwhere(sar[:-63, :-63] == vv[0, 0])
    row, col = next((r, c) for r, c in corners if np.array_equal(sar[r : r + 64, c : c + 64], vv))
    values = np.array([c.value for c in bundle.classes])
    np.testing.assert_array_equal(values[window.labels], codes[row + 8 : row + 56, col + 8 : col + 56])


def test_strata_are_sampled_evenly(windows: list[LabelledWindow]) -> None:
    drawn = sample(windows, 12, np.random.default_rng(1))
    have, found = Counter(w.main_class for w in windows), Counter(w.main_class for w in drawn)
    assert len(have) >= 3
    assert max(found.values()) - min(min(have[c], found[c]) for c in have) <= max(1, 12 // len(have))
    assert set(found) == set(have)  # the rare classes are there
    again = sample(windows, 12, np.random.default_rng(1))
    assert [id(w) for w in again] == [id(w) for w in drawn]


def test_a_hole_makes_a_window_mixed(windows: list[LabelledWindow]) -> None:
    found = holed(windows[0], np.random.default_rng(0))
    lost = {m: (~found.feeds[f"{m}_valid"]).mean() for m in found.key.availability}
    assert found.key.mixed
    assert sorted(share > 0 for share in lost.values()) == [False, True]
    assert windows[0].feeds["sar_valid"].all()  # the window itself is as it was


def spoilt(window: LabelledWindow, **feeds: np.ndarray) -> LabelledWindow:
    return replace(window, feeds={**window.feeds, **feeds})


def test_bad_windows_are_errors(bundle: Bundle, windows: list[LabelledWindow]) -> None:
    key, good = windows[0].key, windows[:10]
    check_calibration(good, key, bundle)
    with pytest.raises(CalibrationError, match=r"only 7 windows show `optical\+sar`"):
        check_calibration(good[:7], key, bundle)
    sar = np.array(good[0].feeds["sar"])
    with pytest.raises(CalibrationError, match=r"float32 \(1, 2, 64, 63\), not float32"):
        check_calibration([*good, spoilt(good[0], sar=sar[..., :-1])], key, bundle)
    with pytest.raises(CalibrationError, match="float64"):
        check_calibration([*good, spoilt(good[0], sar=sar.astype(np.float64))], key, bundle)
    sar[0, 1, 20, 20] = np.inf
    with pytest.raises(CalibrationError, match="marked valid"):
        check_calibration([*good, spoilt(good[0], sar=sar)], key, bundle)
    mask = np.array(good[0].feeds["sar_valid"])
    mask[..., 20, 20] = False
    check_calibration([*good, spoilt(good[0], sar=sar, sar_valid=mask)], key, bundle)


def test_labels_are_read_as_everywhere(bundle: Bundle, chile: Path, tmp_path: Path) -> None:
    """16-bit values are no bytes that wrapped around, and nodata is no class."""
    with rasterio.open(chile / "landcover.tif") as src:
        codes, crs, transform = src.read(1).astype(np.int16), src.crs, src.transform
    water = codes == bundle.classes[0].value
    trees = codes == bundle.classes[1].value
    codes[water] = bundle.classes[0].value + 256
    profile = {"count": 1, "dtype": "int16", "crs": crs, "transform": transform, "nodata": bundle.classes[1].value}
    with rasterio.open(tmp_path / "wide.tif", "w", height=codes.shape[0], width=codes.shape[1], **profile) as out:
        out.write(codes, 1)
    assert water.any()
    assert trees.any()
    sar = Availability.of(["sar"], bundle.order)
    found = []
    for path in (chile / "landcover.tif", tmp_path / "wide.tif"):
        windows = read_windows([SceneFiles(chile / "scene.tif", path)], bundle, sar, np.random.default_rng(0))
        found.append(np.stack([w.labels for w in windows]))
    np.testing.assert_array_equal(found[1], np.where(found[0] < 2, -1, found[0]))


def test_windows_larger_than_a_scene_are_mirrored(chile: Path) -> None:
    """mamol-conv is quantized on windows of 320 px, the example has 224: real pixels, no window without a judge."""
    bundle = open_bundle("mamol-conv")
    bundle = replace(bundle, tiling=narrowed(bundle.tiling))
    assert bundle.tiling.window_px == 320
    availability = Availability.of(["sar"], bundle.order)
    scenes = [SceneFiles(chile / "scene.tif", chile / "landcover.tif")]
    crop, *_ = read_windows(scenes, bundle, availability, np.random.default_rng(0), crops=1)
    assert not crop.key.mixed
    inside = crop.feeds["sar"][0, :, 128:192, 128:192]
    np.testing.assert_array_equal(crop.feeds["sar"][0, :, 128:192, 64:128], inside[:, :, ::-1])
    np.testing.assert_array_equal(crop.feeds["sar"][0, :, 192:256, 128:192], inside[:, ::-1])
    core = bundle.tiling.stride_px
    assert (crop.labels >= 0).sum() <= 64 * 64 < core * core  # what is mirrored has no label

    lattice = read_windows(scenes, bundle, availability, np.random.default_rng(0))
    kinds = Counter(w.key.mixed for w in lattice)
    assert kinds[False] == kinds[True] > 0
    with rasterio.open(chile / "landcover.tif") as src:
        known = np.isin(src.read(1), [c.value for c in bundle.classes]).sum()
    for mixed in (False, True):  # each pixel of the scene is judged once in either kind of graph
        assert sum((w.labels >= 0).sum() for w in lattice if w.key.mixed == mixed) == known
