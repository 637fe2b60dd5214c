"""What is said of sensors that do not belong together, and that nothing is said of those that do."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
from rasterio.transform import Affine

from mmedge.geo_io.agreement import _edges, measure_shift
from mmedge.geo_io.gather import SceneOptions
from mmedge.geo_io.scene import open_scene

SHIFTS = [(0.5, 0), (0, 0.5), (1, 0), (0, -1), (0.3, -0.7), (1.5, 1.5), (-2, 1), (3, -2.4), (-0.25, 0.25)]


def pixels(path: Path) -> Any:
    with rasterio.open(path) as src:
        return src.read().astype(np.float64)


def moved(bands: Any, down: float, right: float) -> Any:
    """Bands shifted by fractions of a pixel in the frequency domain; the edges wrap."""
    frequency = np.fft.fftfreq(bands.shape[1])[:, None], np.fft.fftfreq(bands.shape[2])[None]
    turn = np.exp(-2j * np.pi * (frequency[0] * down + frequency[1] * right))
    return np.fft.ifft2(np.fft.fft2(bands) * turn).real


def copied(source: Path, target: Path, data: Any = None, **changes: Any) -> Path:
    with rasterio.open(source) as src:
        bands = src.read() if data is None else data.astype(src.dtypes[0])
        tags, names = src.tags(), src.descriptions
        with rasterio.open(target, "w", **{**src.profile, "predictor": 1, **changes}) as out:
            out.write(bands)
            out.descriptions, out.scales, out.offsets = names, src.scales, src.offsets
            out.update_tags(**tags)
    return target


def windows(first: Any, second: Any) -> list[tuple[Any, Any]]:
    """Edges of the middle of both, clear of the wrapped margin."""
    places = [slice(8 + i, 8 + i + 96) for i in (0, 56, 112)]
    valid = np.ones((96, 96), bool)
    pairs = [(_edges(first[:, r, c], valid), _edges(second[:, r, c], valid)) for r in places for c in places]
    return [(a, b) for a, b in pairs if a is not None and b is not None]


def test_injected_shifts_between_radar_and_optics_are_found_within_a_tenth_of_a_pixel(chile: Path) -> None:
    optical, sar = pixels(chile / "optical.tif")[[1, 2, 3, 7]], pixels(chile / "sar.tif")
    own = np.array(measure_shift(windows(optical, sar))[:2])
    found = np.array([measure_shift(windows(optical, moved(sar, *shift)))[:2] for shift in SHIFTS]) - own
    rms = float(np.sqrt(((found - np.array(SHIFTS)) ** 2).mean()))
    assert rms < 0.12


def test_two_bands_of_one_sensor_lie_on_each_other(chile: Path) -> None:
    optical = pixels(chile / "optical.tif")
    down, right, peak = measure_shift(windows(optical[1:2], optical[7:8]))
    assert np.hypot(down, right) < 0.3
    assert peak > 12


def test_a_radar_scene_that_lies_off_is_reported_with_its_shift(chile: Path, tmp_path: Path) -> None:
    with rasterio.open(chile / "sar.tif") as src:
        a = src.transform
    off = copied(chile / "sar.tif", tmp_path / "sar.tif", transform=Affine(10, 0, a.c - 30, 0, -10, a.f - 40))
    sources = {"optical": [chile / "optical.tif"], "sar": [off]}
    with open_scene(None, None, SceneOptions(sources=sources, reference="optical")) as scene:
        assert [w for w in scene.warnings if "`sar` lies" in w and "off `optical`" in w]
        assert scene.only(["optical", "sar"]).warnings == scene.warnings
        assert not [w for w in scene.only(["sar"]).warnings if "lies" in w]  # nothing is left that it lies off


def test_scenes_as_they_are_published_are_not_warned_about(chile: Path, shared_data: Path) -> None:
    with open_scene(chile / "scene.tif") as scene:
        assert scene.warnings == ()
    for folder in sorted((shared_data / "open/terramesh").iterdir()):
        if folder.is_dir():
            sources = {
                "optical": [folder / "S2L2A.tif"],
                "sar": [folder / "S1RTC.tif"],
                "elevation": [folder / "DEM.tif"],
            }
            with open_scene(None, None, SceneOptions(sources=sources)) as scene:
                assert not [w for w in scene.warnings if "lies" in w or "overlap" in w]


def test_sensors_that_barely_overlap_are_warned_about(chile: Path, tmp_path: Path) -> None:
    with rasterio.open(chile / "sar.tif") as src:
        a = src.transform
    for metres, said in ((0, None), (2100, "covers 6.2% of"), (9000, "does not touch")):
        away = copied(chile / "sar.tif", tmp_path / "sar.tif", transform=Affine(10, 0, a.c + metres, 0, -10, a.f))
        sources = {"optical": [chile / "optical.tif"], "sar": [away]}
        with open_scene(None, None, SceneOptions(sources=sources, reference="optical")) as scene:
            found = [w for w in scene.warnings if "the grid that is mapped" in w]
        assert found == [] if said is None else said in found[0]


@pytest.mark.parametrize(("day", "days"), [("2020-04-20", None), ("2020-08-30", 139)])
def test_sensors_of_two_seasons_are_warned_about(chile: Path, tmp_path: Path, day: str, days: int | None) -> None:
    other, optical = tmp_path / "sar.tif", tmp_path / "optical.tif"
    for source, target, date in ((chile / "sar.tif", other, day), (chile / "optical.tif", optical, "2020-04-12")):
        copied(source, target)
        with rasterio.open(target, "r+") as out:
            out.update_tags(ACQUISITION_DATE=date)
    old = copied(chile / "elevation.tif", tmp_path / "DEM_20100101.tif")
    sources = {"optical": [optical], "sar": [other], "elevation": [old]}
    with open_scene(None, None, SceneOptions(sources=sources)) as scene:
        found = [w for w in scene.warnings if "days apart" in w]
    assert len(found) == (0 if days is None else 1)
    assert all(f"{days} days apart" in w and "elevation" not in w for w in found)
