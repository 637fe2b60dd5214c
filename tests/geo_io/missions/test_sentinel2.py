"""Sentinel-2 SAFE folders and single bands. SYNTHETIC folders of real pixels: see synthetic_products."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from synthetic_products import S2_TILE, chile_dn, coarser, write, write_sentinel2

from mmedge.errors import SceneError
from mmedge.geo_io.gather import SceneOptions
from mmedge.geo_io.missions.xmlfile import MAX_XML_BYTES
from mmedge.geo_io.scene import open_scene
from mmedge.grid import Window
from mmedge.modality import Modality

OPTICAL = Modality(name="optical", bands=("B02", "B04", "B08"), unit="reflectance", gsd_m=10)
WHOLE = Window(0, 0, 216, 216)
CLEAR = np.full((1, 108, 108), 4)


@pytest.fixture(scope="module")
def dn(chile: Path) -> dict[str, Any]:
    return chile_dn(chile)


@pytest.fixture(scope="module")
def safe(dn: dict[str, Any], tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_sentinel2(tmp_path_factory.mktemp("s2"), dn, layers={"SCL": CLEAR})


def test_the_offset_and_the_scale_come_from_the_metadata(safe: Path, dn: dict[str, Any]) -> None:
    with open_scene(safe, [OPTICAL]) as scene:
        tile = scene.read(WHOLE)
        assert scene.assumptions == scene.warnings == ()
        assert scene.name == safe.stem
        assert str(scene.sources["optical"].info.acquired) == "2022-04-12T14:17:41Z"
        assert "MTD_MSIL2A.xml" in {file.name for file in scene.files}
        assert f"{S2_TILE}_SCL_20m.jp2" in {file.name for file in scene.files}
    expected = np.stack([dn[band].astype(np.float64) for band in OPTICAL.bands])
    np.testing.assert_allclose(tile.data["optical"], (expected - 1000) / 10000, atol=1e-6)
    assert tile.valid["optical"].all()


def test_every_band_is_there_and_the_finest_grid_is_the_reference(safe: Path, dn: dict[str, Any]) -> None:
    with open_scene(safe) as scene, open_scene(None, None, SceneOptions(sources={"optical": [safe]})) as named:
        assert scene.sources["optical"].info.bands == tuple(sorted(dn, key=list(dn).index))
        assert scene.grid == named.grid
        assert scene.grid.shape == (216, 216)
        np.testing.assert_array_equal(scene.read(WHOLE).data["optical"], named.read(WHOLE).data["optical"])


def test_a_20_m_band_lies_on_the_10_m_grid_half_pixel_exact(safe: Path, dn: dict[str, Any]) -> None:
    wanted = Modality(name="optical", bands=("B04", "B05"), unit="reflectance", gsd_m=10)
    with open_scene(safe, [wanted]) as scene:
        found = scene.read(WHOLE).data["optical"][1]
    coarse = (coarser(dn["B05"], 2).astype(np.float64) - 1000) / 10000
    for axis in (0, 1):  # a 10 m centre lies a quarter of a 20 m pixel from the centre of its own
        own, lower = coarse.repeat(2, axis), np.roll(coarse, 1, axis).repeat(2, axis)
        upper, odd = np.roll(coarse, -1, axis).repeat(2, axis), np.arange(2 * coarse.shape[axis]) % 2 == 1
        coarse = 0.75 * own + 0.25 * np.where(odd[:, None] if axis == 0 else odd, upper, lower)
    np.testing.assert_allclose(found[2:-2, 2:-2], coarse[2:-2, 2:-2], atol=1e-6)


def test_offsets_belong_to_bands_by_id(dn: dict[str, Any], tmp_path: Path) -> None:
    offsets = [-1000 - 10 * i for i in range(13)]
    safe = write_sentinel2(tmp_path, dn, offsets=offsets, layers={"SCL": CLEAR}, quantification="20000")
    with open_scene(safe, [OPTICAL]) as scene:
        found = scene.read(WHOLE).data["optical"]
    for i, (band, band_id) in enumerate([("B02", 1), ("B04", 3), ("B08", 7)]):
        np.testing.assert_allclose(found[i], (dn[band] + np.float64(offsets[band_id])) / 20000, atol=1e-6)


def test_before_baseline_4_there_is_no_offset(dn: dict[str, Any], tmp_path: Path) -> None:
    old = {band: pixels - 1000 for band, pixels in dn.items()}
    safe = write_sentinel2(tmp_path, old, baseline="02.14", offsets=None, layers={"SCL": CLEAR})
    with open_scene(safe, [OPTICAL]) as scene:
        np.testing.assert_allclose(scene.read(WHOLE).data["optical"][0], old["B02"] / 10000, atol=1e-6)
        assert scene.warnings == ()


def test_metadata_without_the_offsets_that_its_baseline_has_are_refused(dn: dict[str, Any], tmp_path: Path) -> None:
    safe = write_sentinel2(tmp_path, dn, offsets=[-1000] * 12)
    with pytest.raises(SceneError, match="offsets for 12 of 13 bands"):
        open_scene(safe, [OPTICAL])


def test_the_trap_still_works_where_the_metadata_lie(dn: dict[str, Any], tmp_path: Path) -> None:
    safe = write_sentinel2(tmp_path, dn, offsets=[0] * 13, layers={"SCL": CLEAR})
    with open_scene(safe, [OPTICAL]) as scene:
        assert "+1000 offset" in scene.warnings[0]


def test_scene_classes_decide_what_is_valid(dn: dict[str, Any], tmp_path: Path) -> None:
    classes = np.arange(108) // 9  # columns of class 0, 1, ... 11
    safe = write_sentinel2(tmp_path, dn, layers={"SCL": np.broadcast_to(classes, (1, 108, 108))})
    with open_scene(safe, [OPTICAL]) as scene:
        valid = scene.read(WHOLE).valid["optical"]
    usable = np.isin(classes, [2, 4, 5, 6, 7, 11]).repeat(2)
    np.testing.assert_array_equal(valid, np.broadcast_to(usable, (216, 216)))


@pytest.mark.parametrize("layer", range(1, 9))
def test_lost_defective_and_saturated_pixels_are_invalid(dn: dict[str, Any], tmp_path: Path, layer: int) -> None:
    mask = np.zeros((8, 108, 108))
    mask[layer - 1, 10:20, 30:50] = 1
    safe = write_sentinel2(tmp_path, dn, layers={"SCL": CLEAR, "MSK_QUALIT_B04": mask})
    with open_scene(safe, [OPTICAL]) as scene:
        valid = scene.read(WHOLE).valid["optical"]
    if layer in (1, 3, 5, 6, 8):
        assert not valid[20:40, 60:100].any()
        assert (~valid).sum() == 20 * 40
    else:  # degraded, or corrected in part: still a measurement
        assert valid.all()


def test_a_mask_of_a_band_that_is_not_used_costs_no_pixel(dn: dict[str, Any], tmp_path: Path) -> None:
    safe = write_sentinel2(tmp_path, dn, layers={"SCL": CLEAR, "MSK_QUALIT_B05": np.ones((8, 108, 108))})
    with open_scene(safe, [OPTICAL]) as scene:
        assert scene.read(WHOLE).valid["optical"].all()


def test_no_data_and_saturated_numbers_are_invalid(dn: dict[str, Any], tmp_path: Path) -> None:
    holed = {band: pixels.copy() for band, pixels in dn.items()}
    holed["B02"][:5], holed["B08"][:, :7] = 0, 65535
    with open_scene(write_sentinel2(tmp_path, holed, layers={"SCL": CLEAR}), [OPTICAL]) as scene:
        valid = scene.read(WHOLE).valid["optical"]
    assert not valid[:5].any()
    assert not valid[:, :7].any()
    assert valid[5:, 7:].all()


def test_level_1c(dn: dict[str, Any], tmp_path: Path) -> None:
    clouds = np.zeros((3, 36, 36))
    clouds[0, :6], clouds[1, 6:12], clouds[2, 12:18] = 1, 1, 1
    safe = write_sentinel2(tmp_path, dn, level="1C", layers={"MSK_CLASSI_B00": clouds})
    with open_scene(safe, [OPTICAL]) as scene:
        tile = scene.read(WHOLE)
        assert scene.assumptions == (
            "Level-1C is reflectance at the top of the atmosphere, taken for surface reflectance",
        )
    np.testing.assert_allclose(tile.data["optical"][1], (dn["B04"] - 1000.0) / 10000, atol=1e-6)
    assert not tile.valid["optical"][:72].any()
    assert tile.valid["optical"][72:].all()  # snow is ground


def test_level_1c_of_old_says_that_clouds_are_not_masked(dn: dict[str, Any], tmp_path: Path) -> None:
    safe = write_sentinel2(tmp_path, dn, level="1C", baseline="02.09", offsets=None)
    with open_scene(safe, [OPTICAL]) as scene:
        assert any("clouds are not masked" in text for text in scene.assumptions)


def test_single_bands_inside_their_folder_know_their_metadata(safe: Path, dn: dict[str, Any]) -> None:
    bands = [next(safe.glob(f"GRANULE/*/IMG_DATA/R10m/*_{band}_10m.jp2")) for band in OPTICAL.bands]
    with open_scene(None, [OPTICAL], SceneOptions(sources={"optical": bands})) as scene:
        np.testing.assert_allclose(scene.read(WHOLE).data["optical"][2], (dn["B08"] - 1000.0) / 10000, atol=1e-6)
        assert scene.assumptions == ()


@pytest.mark.parametrize("suffix", ["jp2", "tif"])
def test_single_bands_on_their_own_are_named_and_warned_about(dn: dict[str, Any], tmp_path: Path, suffix: str) -> None:
    files = [write(tmp_path / f"{S2_TILE}_{band}_10m.{suffix}", dn[band][None], 10) for band in OPTICAL.bands]
    scl = write(tmp_path / f"{S2_TILE}_SCL_20m.{suffix}", np.full((1, 108, 108), 4, np.uint8), 20)
    cloud = np.full((1, 108, 108), 4, np.uint8)
    cloud[0, :3] = 9
    with open_scene(None, [OPTICAL], SceneOptions(sources={"optical": [*files, scl]})) as scene:
        assert scene.read(WHOLE).valid["optical"].all()
        assert "+1000 offset" in scene.warnings[0]
        assert any("has no MTD_MSIL*.xml beside it" in text for text in scene.assumptions)
        assert str(scene.sources["optical"].info.acquired) == "2022-04-12T14:17:41Z"
    write(scl, cloud, 20)
    fixed = SceneOptions(sources={"optical": [*files, scl]}, scale={"optical": (1e-4, -0.1)})
    with open_scene(None, [OPTICAL], fixed) as scene:
        tile = scene.read(WHOLE)
    assert not tile.valid["optical"][:6].any()
    assert tile.valid["optical"][6:].all()
    np.testing.assert_allclose(tile.data["optical"][0], (dn["B02"] - 1000.0) / 10000, atol=1e-6)


def test_qa60_as_a_band_of_the_same_file_is_a_mask_not_data(dn: dict[str, Any], tmp_path: Path) -> None:
    qa60 = np.zeros((216, 216), np.uint16)
    qa60[:4], qa60[4:8], qa60[8:12] = 1 << 10, 1 << 11, 1 << 9  # opaque, cirrus, a bit that means nothing
    pixels = np.stack([dn["B02"] - 1000, dn["B04"] - 1000, dn["B08"] - 1000, qa60])
    path = write(tmp_path / "gee.tif", pixels.astype(np.uint16), 10)
    options = SceneOptions(bands={"optical": ["B2", "B4", "B8", "QA60"]})
    with open_scene(path, None, options) as scene:
        assert scene.sources["optical"].info.bands == ("B02", "B04", "B08")
        valid = scene.read(WHOLE).valid["optical"]
    assert not valid[:8].any()
    assert valid[8:].all()


BOMB = '<?xml version="1.0"?><!DOCTYPE x [<!ENTITY a "aaaaaaaaaa"><!ENTITY b "&a;&a;&a;&a;">]><x>&b;</x>'
OUTSIDE = '<?xml version="1.0"?><!DOCTYPE x [<!ENTITY a SYSTEM "file:///etc/passwd">]><x>&a;</x>'


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (BOMB, "declares a document type"),
        (OUTSIDE, "declares a document type"),
        ("<a><b></a>", "is no XML"),
        ("", "is no XML"),
        ("<a>" * 100 + "</a>" * 100, "nested deeper"),
        ("<a/>", "has no PROCESSING_BASELINE"),
        ("<a><PROCESSING_BASELINE>new</PROCESSING_BASELINE></a>", "no processing baseline"),
    ],
)
def test_hostile_and_damaged_metadata_are_refused(safe: Path, tmp_path: Path, text: str, said: str) -> None:
    mine = shutil.copytree(safe, tmp_path / safe.name)
    (mine / "MTD_MSIL2A.xml").write_text(text)
    with pytest.raises(SceneError, match=said):
        open_scene(mine, [OPTICAL])


def test_metadata_that_are_too_long_are_not_parsed(safe: Path, tmp_path: Path) -> None:
    mine = shutil.copytree(safe, tmp_path / safe.name)
    with (mine / "MTD_MSIL2A.xml").open("wb") as file:
        file.truncate(MAX_XML_BYTES + 1)
    with pytest.raises(SceneError, match="longer than 32 MiB"):
        open_scene(mine, [OPTICAL])


def test_numbers_that_are_none_are_refused(dn: dict[str, Any], tmp_path: Path) -> None:
    for quantification, said in [("0", "quantification value 0"), ("ten", "no list of numbers"), ("1 2", "2 numbers")]:
        safe = write_sentinel2(tmp_path / quantification, dn, quantification=quantification)
        with pytest.raises(SceneError, match=said):
            open_scene(safe, [OPTICAL])


def test_a_folder_without_bands_is_refused(safe: Path, tmp_path: Path) -> None:
    mine = shutil.copytree(safe, tmp_path / safe.name, ignore=shutil.ignore_patterns("*.jp2"))
    with pytest.raises(SceneError, match="holds no band"):
        open_scene(mine, [OPTICAL])
    shutil.rmtree(mine / "GRANULE")
    with pytest.raises(SceneError, match="holds 0 granules"):
        open_scene(mine, [OPTICAL])
