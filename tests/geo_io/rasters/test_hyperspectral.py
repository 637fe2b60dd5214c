"""Cubes with wavelengths, and pictures with colours: bands by the light that they see."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
from rasterio.enums import ColorInterp
from synthetic_products import chile_dn, write

from mmedge.errors import BandError, UnitError
from mmedge.geo_io.gather import SceneOptions
from mmedge.geo_io.rasters.spectral import SENTINEL2_NM
from mmedge.geo_io.scene import open_scene
from mmedge.grid import Window
from mmedge.modality import Modality

WHOLE = Window(0, 0, 20, 20)


def optical(*bands: str, gsd_m: float = 1) -> Modality:
    return Modality(name="optical", bands=bands, unit="reflectance", gsd_m=gsd_m)


def envi(path: Path, pixels: Any, wavelengths: list[float], *, unit: str = "Nanometers", extra: str = "") -> Path:
    """An ENVI cube; the header gets wavelengths as spectrometers' processors write them."""
    write(path, pixels, 1, driver="ENVI")
    listed = ", ".join(f"{w:g}" for w in wavelengths)
    header = path.with_suffix(".hdr")
    text = re.sub(r"band names = \{.*?\}\n", "", header.read_text(), flags=re.DOTALL)
    header.write_text(f"{text}wavelength units = {unit}\nwavelength = {{{listed}}}\n{extra}")
    return path


@pytest.fixture(scope="module")
def cube(shared_data: Path) -> tuple[Any, list[float]]:
    """A real NEON cube (IDTReeS, CC-BY-4.0): 369 bands x 20 x 20, reflectance x 10000. The file has no wavelengths:
    SYNTHETIC ones, 5 nm apart from 380 nm on, without the two windows that water vapour closes.
    """
    with rasterio.open(shared_data / "open/idtrees/plots/MLBS_1/HSI.tif") as src:
        pixels = src.read()
    steps = [380 + 5.0 * i for i in range(426)]
    return pixels, [nm for nm in steps if not (1340 <= nm <= 1445 or 1790 <= nm <= 1955)][: len(pixels)]


@pytest.mark.parametrize(("unit", "factor"), [("Nanometers", 1.0), ("Micrometers", 1e-3)])
def test_bands_are_chosen_by_the_nearest_wavelength(
    cube: tuple[Any, list[float]], tmp_path: Path, unit: str, factor: float
) -> None:
    pixels, wavelengths = cube
    path = envi(tmp_path / "cube.img", pixels, [w * factor for w in wavelengths], unit=unit)
    wanted = ("B02", "B04", "B8A", "B11")
    with open_scene(path, [optical(*wanted)]) as scene:
        found = scene.read(WHOLE).data["optical"]
        said = scene.assumptions
    for i, name in enumerate(wanted):
        nearest = int(np.argmin(np.abs(np.array(wavelengths) - SENTINEL2_NM[name][0])))
        np.testing.assert_allclose(found[i], pixels[nearest] / 10000, atol=1e-6)
        assert any(
            f"{name} (" in text and f"band {nearest + 1} at {wavelengths[nearest]:g} nm" in text for text in said
        )


def test_a_wavelength_too_far_is_not_taken(cube: tuple[Any, list[float]], tmp_path: Path) -> None:
    pixels, wavelengths = cube
    path = envi(tmp_path / "cube.img", pixels, wavelengths)  # no band between 1335 and 1450 nm
    with pytest.raises(BandError, match="lacks B10"):
        open_scene(path, [optical("B04", "B10")])


def test_bad_bands_are_never_taken(cube: tuple[Any, list[float]], tmp_path: Path) -> None:
    pixels, wavelengths = cube
    nearest = int(np.argmin(np.abs(np.array(wavelengths) - SENTINEL2_NM["B04"][0])))
    good = ["0" if i == nearest else "1" for i in range(len(pixels))]
    extra = f"bbl = {{{', '.join(good)}}}\nreflectance scale factor = 5000\n"
    with open_scene(envi(tmp_path / "cube.img", pixels, wavelengths, extra=extra), [optical("B04")]) as scene:
        found = scene.read(WHOLE).data["optical"][0]
        assert not any("no scale tag" in text for text in scene.assumptions)
    assert any(np.allclose(found, pixels[i] / 5000) for i in (nearest - 1, nearest + 1))
    assert not np.allclose(found, pixels[nearest] / 5000)


def test_wavelengths_in_descriptions_and_tags(chile: Path, tmp_path: Path) -> None:
    dn = chile_dn(chile)
    pixels = np.stack([dn["B04"], dn["B03"], dn["B02"]])[:, :20, :20] - 1000
    described = write(tmp_path / "described.tif", pixels, 10)
    with rasterio.open(described, "r+") as out:
        out.descriptions = ("Band 1 (665.2 nm)", "Band 2 (559.9 Nanometers)", "0.4927 um")
    tagged = write(tmp_path / "tagged.tif", pixels, 10)
    with rasterio.open(tagged, "r+") as out:
        for i, nm in enumerate((665.2, 559.9, 492.7), start=1):
            out.update_tags(i, ns="IMAGERY", CENTRAL_WAVELENGTH_UM=str(nm / 1000))
    for path in (described, tagged):
        with open_scene(path, [optical("B02", "B04", gsd_m=10)]) as scene:
            np.testing.assert_allclose(scene.read(WHOLE).data["optical"][1], pixels[0] / 10000, atol=1e-6)
            assert "B02 (492.7 nm) is read from" in scene.assumptions[0]


def test_without_wavelengths_nothing_is_guessed(shared_data: Path) -> None:
    path = shared_data / "open/idtrees/plots/MLBS_1/HSI.tif"
    with pytest.raises(BandError, match="unnamed band 1"):
        open_scene(path, [optical("B04")])


def test_an_aerial_picture_has_its_colours(shared_data: Path) -> None:
    path = shared_data / "open/idtrees/plots/MLBS_1/RGB.tif"
    with rasterio.open(path) as src:
        picture = src.read()
    with open_scene(path, [optical("B02", "B03", "B04", gsd_m=0.1)]) as scene:
        found = scene.read(Window(0, 0, 200, 200)).data["optical"]
        assert scene.assumptions == (
            "`RGB.tif` has no scale tag: reflectance read as DN / 255, as in a picture: not calibrated",
        )
    np.testing.assert_allclose(found, picture[::-1] / 255, atol=1e-6)


def test_near_infrared_is_a_colour_too_and_an_unknown_fourth_band_is_none(chile: Path, tmp_path: Path) -> None:
    dn = chile_dn(chile)
    pixels = np.stack([dn[b] for b in ("B04", "B03", "B02", "B08")]) - 1000
    path = write(tmp_path / "rgbn.tif", pixels, 10, photometric="RGB")
    with open_scene(path, None) as scene:
        assert scene.sources["optical"].info.bands == ("B04", "B03", "B02")
    with rasterio.open(path, "r+") as out:
        out.colorinterp = [ColorInterp.red, ColorInterp.green, ColorInterp.blue, ColorInterp.nir]
    with open_scene(path, [optical("B08", gsd_m=10)]) as scene:
        np.testing.assert_allclose(scene.read(WHOLE).data["optical"][0], pixels[3, :20, :20] / 10000, atol=1e-6)


def test_colours_of_a_radar_picture_are_no_bands(chile: Path, tmp_path: Path) -> None:
    path = write(tmp_path / "quicklook.tif", np.full((3, 20, 20), 7, np.uint8), 10)
    with pytest.raises(BandError, match="sar:band 1"):
        open_scene(
            None,
            [Modality(name="sar", bands=("VV",), unit="dB", gsd_m=10)],
            SceneOptions(sources={"sar": [path]}),
        )


def test_radar_is_no_reflectance(shared_data: Path) -> None:
    path = shared_data / "open/readers/spacenet6/sar_hh.tif"
    with pytest.raises(UnitError, match="complex numbers, no reflectance"):
        open_scene(None, None, SceneOptions(sources={"optical": [path]}, bands={"optical": ["B04"]}))
