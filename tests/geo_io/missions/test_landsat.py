"""Landsat Collection 2 folders and single bands. SYNTHETIC folders of real pixels: see synthetic_products."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
from synthetic_products import chile_dn, coarser, write_landsat

from mmedge.errors import BandError, SceneError
from mmedge.geo_io.gather import SceneOptions
from mmedge.geo_io.scene import open_scene
from mmedge.grid import Window
from mmedge.modality import Modality

L8, L8_L1 = "LC08_L2SP_232089_20200412_20200822_02_T1", "LC08_L1TP_232089_20200412_20200822_02_T1"
L7 = "LE07_L2SP_232089_20100412_20200822_02_T1"
WHOLE = Window(0, 0, 72, 72)
SENTINEL2 = {"B01": 443, "B02": 482, "B03": 561, "B04": 655, "B8A": 865, "B11": 1609, "B12": 2201}


def optical(*bands: str) -> Modality:
    return Modality(name="optical", bands=bands, unit="reflectance", gsd_m=30)


@pytest.fixture(scope="module")
def surface(chile: Path) -> dict[str, Any]:
    """Surface reflectance of the example scene at 30 m by Sentinel-2 band: (72, 72)."""
    return {band: (coarser(dn, 3).astype(np.float64) - 1000) / 10000 for band, dn in chile_dn(chile).items()}


def digital(reflectance: Any) -> Any:
    return np.rint((reflectance + 0.2) / 2.75e-5).astype(np.uint16)


def facts(**image: str) -> dict[str, dict[str, str]]:
    scaling = {f"REFLECTANCE_{k}_BAND_{n}": v for n in range(1, 10) for k, v in (("MULT", "2.75e-05"), ("ADD", "-0.2"))}
    first = {f"REFLECTANCE_{k}_BAND_{n}": v for n in range(1, 10) for k, v in (("MULT", "2.0E-05"), ("ADD", "-0.1"))}
    return {
        "IMAGE_ATTRIBUTES": {
            "SPACECRAFT_ID": "LANDSAT_8",
            "DATE_ACQUIRED": "2020-04-12",
            "SCENE_CENTER_TIME": "14:27:41.1234560Z",
            "SUN_ELEVATION": "30.0",
            **image,
        },
        "LEVEL2_SURFACE_REFLECTANCE_PARAMETERS": scaling,
        "LEVEL1_RADIOMETRIC_RESCALING": first,
    }


OLI = {1: "B01", 2: "B02", 3: "B03", 4: "B04", 5: "B8A", 6: "B11", 7: "B12"}
ETM = {1: "B02", 2: "B03", 3: "B04", 4: "B08", 5: "B11", 7: "B12"}
CLEAR = np.full((72, 72), 1 << 6)


@pytest.fixture(scope="module")
def landsat8(surface: dict[str, Any], tmp_path_factory: pytest.TempPathFactory) -> Path:
    bands = {number: digital(surface[name]) for number, name in OLI.items()}
    layers = {"QA_PIXEL": CLEAR, "QA_RADSAT": np.zeros((72, 72))}
    return write_landsat(tmp_path_factory.mktemp("l8"), L8, bands, mtl=facts(), layers=layers)


@pytest.mark.parametrize("text", [False, True])
def test_level_2_is_surface_reflectance_by_the_light_that_bands_see(
    surface: dict[str, Any], tmp_path: Path, text: bool
) -> None:
    bands = {number: digital(surface[name]) for number, name in OLI.items()}
    folder = write_landsat(tmp_path, L8, bands, mtl=facts(), text=text)
    with open_scene(folder, [optical(*OLI.values())]) as scene:
        found = scene.read(WHOLE)
        assert str(scene.sources["optical"].info.acquired) == "2020-04-12T14:27:41Z"
        assert scene.assumptions == scene.warnings == ()
    for i, name in enumerate(OLI.values()):
        np.testing.assert_allclose(found.data["optical"][i], surface[name], atol=2e-5)
    assert found.valid["optical"].all()


def test_band_5_is_near_infrared_and_never_red_edge(landsat8: Path, surface: dict[str, Any]) -> None:
    with open_scene(landsat8, [optical("B04", "B08")]) as scene:
        np.testing.assert_allclose(scene.read(WHOLE).data["optical"][1], surface["B8A"], atol=2e-5)
        assert scene.assumptions == (f"B08 (832.8 nm) is read from `{L8}_SR_B5.TIF` band 1 at 864.7 nm",)
    with pytest.raises(BandError, match="lacks B05"):
        open_scene(landsat8, [optical("B04", "B05")])
    alone = SceneOptions(sources={"optical": [landsat8 / f"{L8}_SR_B5.TIF"]})
    with open_scene(None, None, alone) as scene:
        assert scene.sources["optical"].info.bands == ("B8A",)


def test_landsat_7_has_a_broad_infrared_band_and_other_numbers(surface: dict[str, Any], tmp_path: Path) -> None:
    bands = {number: digital(surface[name]) for number, name in ETM.items()}
    folder = write_landsat(tmp_path, L7, bands, mtl=facts(), layers={"QA_PIXEL": CLEAR})
    with open_scene(folder, [optical("B08", "B11")]) as scene:
        found = scene.read(WHOLE).data["optical"]
        assert scene.assumptions == ()
    np.testing.assert_allclose(found, np.stack([surface["B08"], surface["B11"]]), atol=2e-5)
    with pytest.raises(BandError, match="lacks B8A"):
        open_scene(folder, [optical("B04", "B8A")])


def test_level_1_is_divided_by_the_sun_and_says_what_it_is(surface: dict[str, Any], tmp_path: Path) -> None:
    sine = np.sin(np.radians(30.0))
    bands = {n: np.rint((surface[b] * sine + 0.1) / 2e-5) for n, b in OLI.items()}
    folder = write_landsat(tmp_path, L8_L1, bands, mtl=facts(), layers={"QA_PIXEL": CLEAR})
    with open_scene(folder, [optical("B02", "B11")]) as scene:
        found = scene.read(WHOLE).data["optical"]
        assert "top of the atmosphere" in scene.assumptions[0]
    np.testing.assert_allclose(found, np.stack([surface["B02"], surface["B11"]]), atol=4e-5)


def test_level_1_at_night_or_without_its_metadata_is_refused(surface: dict[str, Any], tmp_path: Path) -> None:
    bands = {4: digital(surface["B04"])}
    with pytest.raises(SceneError, match="taken at night"):
        open_scene(write_landsat(tmp_path / "night", L8_L1, bands, mtl=facts(SUN_ELEVATION="-12.5")), [optical("B04")])
    with pytest.raises(SceneError, match="no MTL file beside it") as caught:
        open_scene(write_landsat(tmp_path / "bare", L8_L1, bands), [optical("B04")])
    assert f"{L8_L1}_MTL.json" in caught.value.hint
    with open_scene(write_landsat(tmp_path / "level2", L8, bands), [optical("B04")]) as scene:
        assert "scaled by 2.75e-05 and -0.2" in scene.assumptions[0]
        np.testing.assert_allclose(scene.read(WHOLE).data["optical"][0], surface["B04"], atol=2e-5)


@pytest.mark.parametrize(
    ("bit", "usable"), [(0, False), (1, False), (2, False), (3, False), (4, False), (5, True), (6, True), (7, True)]
)
def test_pixel_quality_bits(landsat8: Path, tmp_path: Path, bit: int, usable: bool) -> None:
    folder = shutil.copytree(landsat8, tmp_path / L8)
    with rasterio.open(folder / f"{L8}_QA_PIXEL.TIF", "r+") as out:
        quality = np.full((72, 72), (1 << 6) | (1 << 8), np.uint16)  # clear, low confidence of a cloud
        quality[5:9, 10:30] = 1 << bit
        out.write(quality, 1)
    with open_scene(folder, [optical("B04")]) as scene:
        valid = scene.read(WHOLE).valid["optical"]
    assert valid[5:9, 10:30].all() == usable
    assert valid.sum() == 72 * 72 - (0 if usable else 80)


def test_saturation_counts_for_its_own_band_only(landsat8: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(landsat8, tmp_path / L8)
    with rasterio.open(folder / f"{L8}_QA_RADSAT.TIF", "r+") as out:
        saturated = np.zeros((72, 72), np.uint16)
        saturated[0], saturated[1], saturated[2] = 1 << 3, 1 << 4, 1 << 11  # B4, B5, hidden behind terrain
        out.write(saturated, 1)
    with open_scene(folder, [optical("B04")]) as scene:
        assert (~scene.read(WHOLE).valid["optical"]).sum(axis=1).nonzero()[0].tolist() == [0]
    with open_scene(folder, [optical("B04", "B8A")]) as scene:
        assert (~scene.read(WHOLE).valid["optical"]).sum(axis=1).nonzero()[0].tolist() == [0, 1]


def test_real_slc_off_gaps_stay_gaps(shared_data: Path, tmp_path: Path) -> None:
    """Gaps of a real Landsat 7 scene (Geoscience Australia, CC-BY-3.0-AU), put into a SYNTHETIC Collection 2 folder."""
    real = shared_data / "open/readers/landsat7_slcoff/LS7_ETM_095_082_20100201_B40.nc"
    with rasterio.open(real) as src:
        part = src.read(1, window=((0, 600), (900, 1500)))
    gap = part == -999
    assert 0.05 < gap.mean() < 0.95
    dn = np.where(gap, 0, digital(np.clip(part, 1, 10000) / 10000))
    layers = {"QA_PIXEL": np.where(gap, 1, 1 << 6)}
    folder = write_landsat(tmp_path, L7, {3: dn, 4: dn}, mtl=facts(), layers=layers)
    with open_scene(folder, [optical("B04", "B08")]) as scene:
        np.testing.assert_array_equal(scene.read(Window(0, 0, 600, 600)).valid["optical"], ~gap)


def test_a_quality_file_may_be_named_by_itself(landsat8: Path, surface: dict[str, Any], tmp_path: Path) -> None:
    shutil.copy(landsat8 / f"{L8}_SR_B4.TIF", tmp_path)
    elsewhere = tmp_path / "qa"
    elsewhere.mkdir()
    quality = elsewhere / f"{L8}_QA_PIXEL.TIF"
    shutil.copy(landsat8 / quality.name, quality)
    with rasterio.open(quality, "r+") as out:
        out.write(np.full((72, 72), 1 << 3, np.uint16), 1)
    options = SceneOptions(sources={"optical": [tmp_path / f"{L8}_SR_B4.TIF", quality]})
    with open_scene(None, [optical("B04")], options) as scene:
        assert not scene.read(WHOLE).valid["optical"].any()


def test_what_is_no_reflectance_is_refused(landsat8: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(landsat8, tmp_path / L8)
    (folder / f"{L8}_MTL.json").write_text('{"LANDSAT_METADATA_FILE": {}}')
    with pytest.raises(SceneError, match="no Collection 2 MTL"):
        open_scene(folder, [optical("B04")])
    (folder / f"{L8}_MTL.json").write_text('{"LANDSAT_METADATA_FILE": {"IMAGE_ATTRIBUTES": {}}}')
    with pytest.raises(SceneError, match="no REFLECTANCE_MULT_BAND"):
        open_scene(folder, [optical("B04")])
    panchromatic = folder / f"{L8_L1}_B8.TIF"
    shutil.copy(folder / f"{L8}_SR_B4.TIF", panchromatic)
    with pytest.raises(SceneError, match="thermal or panchromatic"):
        open_scene(None, None, SceneOptions(sources={"optical": [panchromatic]}))


def test_two_scenes_in_a_folder_are_refused(landsat8: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(landsat8, tmp_path / L8)
    shutil.copy(folder / f"{L8}_SR_B4.TIF", folder / f"{L7}_SR_B4.TIF")
    with pytest.raises(SceneError, match="several Landsat scenes"):
        open_scene(folder, [optical("B04")])
