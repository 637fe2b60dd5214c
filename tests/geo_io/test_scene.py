"""Scenes as people give them: one file, a file per sensor, a STAC Item; matched by name, with units and validity."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
from rasterio.enums import ColorInterp
from rasterio.transform import Affine

from mmedge.errors import BandError, GeoreferenceError, SceneError, UnitError, UsageError
from mmedge.geo_io.crs import known_crs
from mmedge.geo_io.gather import SceneOptions
from mmedge.geo_io.scene import Scene, choose_sensors, open_scene
from mmedge.grid import Window
from mmedge.modality import Modality

OPTICAL = Modality(name="optical", bands=("B02", "B03", "B04", "B08"), unit="reflectance", gsd_m=10)
SAR = Modality(name="sar", bands=("VV", "VH"), unit="dB", gsd_m=10)
ELEVATION = Modality(name="elevation", bands=("DEM",), unit="m", gsd_m=10, derive="relief")
WANTED = (OPTICAL, SAR, ELEVATION)
WHOLE = Window(0, 0, 224, 224)


def rewritten(source: Path, target: Path, *, data: Any = None, **changes: Any) -> Path:
    """A copy of a raster with other pixels, profile entries, descriptions, scales or tags."""
    with rasterio.open(source) as src:
        pixels = src.read() if data is None else data
        descriptions = changes.pop("descriptions", src.descriptions[: len(pixels)])
        scales, offsets = changes.pop("scales", None), changes.pop("offsets", None)
        profile = {**src.profile, "count": len(pixels), "dtype": pixels.dtype, **changes}
        profile.pop("predictor", None)
        with rasterio.open(target, "w", **profile) as out:
            out.write(pixels)
            out.descriptions = descriptions
            out.scales = scales or [1.0] * len(pixels)
            out.offsets = offsets or [0.0] * len(pixels)
    return target


def test_one_file_gives_every_sensor_in_model_units(chile: Path) -> None:
    with open_scene(chile / "scene.tif", WANTED) as scene:
        assert scene.sensors == ("optical", "sar", "elevation")
        assert scene.warnings == ()
        tile = scene.read(WHOLE)
    with rasterio.open(chile / "optical.tif") as src:
        digital = src.read([2, 3, 4, 8]).astype(np.float32)
    np.testing.assert_allclose(tile.data["optical"], digital * 1e-4 - 0.1, atol=1e-6)
    with rasterio.open(chile / "sar.tif") as src:
        np.testing.assert_array_equal(tile.data["sar"], src.read())
    assert all(valid.all() for valid in tile.valid.values())


def test_a_file_per_sensor_gives_the_same_pixels(chile: Path) -> None:
    sources = {name: [chile / f"{name}.tif"] for name in ("optical", "sar", "elevation")}
    with (
        open_scene(None, WANTED, SceneOptions(sources=sources)) as apart,
        open_scene(chile / "scene.tif", WANTED) as one,
    ):
        for name in apart.sensors:
            np.testing.assert_allclose(apart.read(WHOLE).data[name], one.read(WHOLE).data[name], atol=1e-6)


def test_bands_are_matched_by_name_whatever_their_order(chile: Path, tmp_path: Path) -> None:
    with rasterio.open(chile / "scene.tif") as src:
        order = list(reversed(range(src.count)))
        mixed = rewritten(
            chile / "scene.tif",
            tmp_path / "mixed.tif",
            data=src.read()[order],
            descriptions=[src.descriptions[i] for i in order],
        )
    with open_scene(mixed, WANTED) as scene, open_scene(chile / "scene.tif", WANTED) as straight:
        for name in straight.sensors:
            np.testing.assert_array_equal(scene.read(WHOLE).data[name], straight.read(WHOLE).data[name])


def test_outside_the_scene_nothing_is_valid(chile: Path) -> None:
    with open_scene(chile / "scene.tif", [SAR]) as scene:
        inside = scene.read(Window(0, 0, 24, 30))
        around = scene.read(Window(-40, -34, 64, 64))
        assert not scene.read(Window(500, 500, 8, 8)).valid["sar"].any()
    np.testing.assert_array_equal(around.data["sar"][:, 40:, 34:], inside.data["sar"])
    assert around.valid["sar"].sum() == 24 * 30


def test_a_missing_band_is_named_with_what_was_found(chile: Path) -> None:
    with pytest.raises(BandError, match=r"lacks B99: the model wants B02, B99, found .*optical:B12") as caught:
        open_scene(chile / "scene.tif", [Modality(name="optical", bands=("B02", "B99"), unit="reflectance", gsd_m=10)])
    assert "--bands" in caught.value.hint


def test_unnamed_bands_are_never_matched_by_position(chile: Path, tmp_path: Path) -> None:
    with rasterio.open(chile / "sar.tif") as src:
        bare = rewritten(chile / "sar.tif", tmp_path / "bare.tif", descriptions=[None] * src.count)
    with pytest.raises(BandError, match="unnamed band 1"):
        open_scene(bare, [SAR])
    with pytest.raises(BandError, match="lacks VV, VH"):
        open_scene(None, [SAR], SceneOptions(sources={"sar": [bare]}))
    with open_scene(bare, [SAR], SceneOptions(bands={"sar": ["VV", "VH"]})) as scene:
        assert scene.sensors == ("sar",)
    with pytest.raises(UsageError, match="names 1 bands, the files hold 2"):
        open_scene(bare, [SAR], SceneOptions(bands={"sar": ["VV"]}))


def test_a_band_that_is_there_twice_is_an_error(chile: Path, tmp_path: Path) -> None:
    shutil.copy(chile / "sar.tif", tmp_path / "again.tif")
    with pytest.raises(BandError, match="`sar:VV` is there 2 times"):
        open_scene(None, [SAR], SceneOptions(sources={"sar": [chile / "sar.tif", tmp_path / "again.tif"]}))


@pytest.mark.parametrize("nodata", [-9999.0, np.nan, -3.3999999521443642e38])
def test_nodata_of_any_kind_is_invalid(chile: Path, tmp_path: Path, nodata: float) -> None:
    with rasterio.open(chile / "sar.tif") as src:
        pixels = src.read()
    pixels[1, 10:20, 30:40] = np.float32(nodata)
    with open_scene(rewritten(chile / "sar.tif", tmp_path / "hole.tif", data=pixels, nodata=nodata), [SAR]) as scene:
        valid = scene.read(WHOLE).valid["sar"]
    assert not valid[10:20, 30:40].any()
    assert valid.sum() == 224 * 224 - 100


def test_a_mask_band_is_obeyed(chile: Path, tmp_path: Path) -> None:
    path = rewritten(chile / "sar.tif", tmp_path / "masked.tif")
    mask = np.full((224, 224), 255, np.uint8)
    mask[:7] = 0
    with rasterio.Env(GDAL_TIFF_INTERNAL_MASK=True), rasterio.open(path, "r+") as out:
        out.write_mask(mask)
    with open_scene(path, [SAR]) as scene:
        np.testing.assert_array_equal(scene.read(WHOLE).valid["sar"], mask > 0)


def test_integers_without_a_scale_are_divided_and_it_is_said(chile: Path, tmp_path: Path) -> None:
    with rasterio.open(chile / "optical.tif") as src:
        digital = src.read() - 1000  # free of the baseline's offset
    plain = rewritten(chile / "optical.tif", tmp_path / "plain.tif", data=np.clip(digital, 1, None).astype(np.uint16))
    with open_scene(plain, [OPTICAL]) as scene:
        assert scene.assumptions == ("`plain.tif` has no scale tag: reflectance read as DN / 10000",)
        assert scene.warnings == ()
        assert 0 < np.median(scene.read(WHOLE).data["optical"]) < 0.5


def test_the_offset_of_baseline_4_is_noticed_and_can_be_taken_out(chile: Path, tmp_path: Path) -> None:
    raw = rewritten(chile / "optical.tif", tmp_path / "raw.tif")  # DN as delivered, tags dropped
    with open_scene(raw, [OPTICAL]) as scene:
        assert len(scene.warnings) == 1
        assert "--scale optical=0.0001,-0.1" in scene.warnings[0]
    with open_scene(raw, [OPTICAL], SceneOptions(scale={"optical": (1e-4, -0.1)})) as scene:
        assert scene.warnings == ()
        fixed = scene.read(WHOLE).data["optical"]
    with open_scene(chile / "scene.tif", [OPTICAL]) as scene:
        np.testing.assert_allclose(fixed, scene.read(WHOLE).data["optical"], atol=1e-6)


def test_a_picture_of_small_pixels_is_not_taken_for_one_that_holds_the_offset(chile: Path, tmp_path: Path) -> None:
    finer = Affine(0.5, 0, 718000, 0, -0.5, 5700000)
    raw = rewritten(chile / "optical.tif", tmp_path / "raw.tif", transform=finer)
    with open_scene(raw) as scene:
        assert not [w for w in scene.warnings if "offset" in w]


def test_digital_numbers_stored_as_floats_are_refused(chile: Path, tmp_path: Path) -> None:
    with rasterio.open(chile / "optical.tif") as src:
        floats = src.read().astype(np.float32)
    with pytest.raises(UnitError, match="no reflectance") as caught:
        open_scene(rewritten(chile / "optical.tif", tmp_path / "floats.tif", data=floats), [OPTICAL])
    assert "--scale optical=0.0001" in caught.value.hint


def test_linear_radar_is_refused_and_can_be_converted(chile: Path, tmp_path: Path) -> None:
    with rasterio.open(chile / "sar.tif") as src:
        db = src.read()
    linear = rewritten(chile / "sar.tif", tmp_path / "linear.tif", data=(10 ** (db / 10)).astype(np.float32))
    with pytest.raises(UnitError, match="linear power") as caught:
        open_scene(linear, [SAR])
    assert "--unit sar=linear" in caught.value.hint
    with open_scene(linear, [SAR], SceneOptions(unit={"sar": "linear"})) as scene:
        np.testing.assert_allclose(scene.read(WHOLE).data["sar"], db, atol=1e-4)


def test_radar_border_noise_that_is_zero_is_invalid(chile: Path, tmp_path: Path) -> None:
    with rasterio.open(chile / "sar.tif") as src:
        power = (10 ** (src.read() / 10)).astype(np.float32)
    power[0, :, :5] = 0
    border = rewritten(chile / "sar.tif", tmp_path / "border.tif", data=power)
    with open_scene(border, [SAR], SceneOptions(unit={"sar": "linear"})) as scene:
        tile = scene.read(WHOLE)
    assert not tile.valid["sar"][:, :5].any()
    assert tile.valid["sar"][:, 5:].all()
    assert np.isfinite(tile.data["sar"]).all()


def test_no_crs_is_an_error_with_a_way_out(chile: Path, tmp_path: Path) -> None:
    path = rewritten(chile / "sar.tif", tmp_path / "nowhere.tif", crs=None)
    with pytest.raises(GeoreferenceError, match="has no CRS") as caught:
        open_scene(path, [SAR])
    assert "--crs SENSOR=" in caught.value.hint
    options = SceneOptions(crs={"radar": "EPSG:32718"})
    with open_scene(path, [SAR], options) as scene, open_scene(chile / "sar.tif", [SAR]) as told:
        assert known_crs(scene.grid.crs) == known_crs(told.grid.crs)
        assert scene.grid.transform == told.grid.transform
    with pytest.raises(UsageError, match="is no CRS"):
        open_scene(path, [SAR], SceneOptions(crs={"sar": "EPSG:nowhere"}))


def test_a_coarse_scene_is_warned_about(chile: Path, tmp_path: Path) -> None:
    coarse = rewritten(chile / "sar.tif", tmp_path / "coarse.tif", transform=Affine(30, 0, 7e5, 0, -30, 5.7e6))
    with open_scene(coarse, [SAR]) as scene:
        assert "30 m pixels, the model was trained at 10 m" in scene.warnings[0]


def test_what_is_no_scene_is_refused(chile: Path, tmp_path: Path) -> None:
    (tmp_path / "text.tif").write_text("not a raster")
    for path, said in [
        (tmp_path / "none.tif", "no such file"),
        (tmp_path / "text.tif", "not a raster"),
        (tmp_path, "folder"),
    ]:
        with pytest.raises(SceneError, match=said):
            open_scene(path, WANTED)
    with pytest.raises(UsageError, match="no scene given"):
        open_scene(None, WANTED)


def test_damaged_pixels_name_the_file_and_the_place(shared_data: Path) -> None:
    corrupt = shared_data / "open/readers/rasterio/corrupt.tif"
    with pytest.raises(SceneError, match=r"corrupt\.tif` at rows \d+-\d+, columns \d+-\d+"):
        open_scene(corrupt, None, SceneOptions(bands={"optical": ["B04", "B03", "B02"]}))


def test_available_names_and_aliases(chile: Path) -> None:
    with open_scene(chile / "scene.tif", WANTED) as scene:
        assert choose_sensors(scene, ["lidar", "sar"]) == ("sar", "elevation")
        with pytest.raises(SceneError, match="no such sensor, it has optical, sar, elevation"):
            choose_sensors(scene, ["thermal"])


def item(folder: Path, **assets: dict[str, Any]) -> Path:
    path = folder / "item.json"
    found = {"type": "Feature", "id": "chile", "properties": {"datetime": "2020-04-11T10:00:00Z"}, "assets": assets}
    path.write_text(json.dumps(found))
    return path


def test_a_stac_item_is_a_scene(chile: Path, tmp_path: Path) -> None:
    with rasterio.open(chile / "sar.tif") as src:
        rewritten(chile / "sar.tif", tmp_path / "s1.tif", descriptions=[None] * src.count)
    with rasterio.open(chile / "elevation.tif") as src:
        rewritten(chile / "elevation.tif", tmp_path / "dem.tif", descriptions=[None] * src.count)
    path = item(
        tmp_path,
        radar={"href": "./s1.tif", "type": "image/tiff", "bands": [{"name": "vv"}, {"name": "vh"}]},
        dem={"href": "dem.tif", "type": "image/tiff; application=geotiff"},
        thumbnail={"href": "x.png", "roles": ["thumbnail"]},
    )
    with open_scene(path, WANTED) as scene:
        assert scene.name == "chile"
        assert scene.sensors == ("sar", "elevation")
        assert str(scene.sources["sar"].info.acquired) == "2020-04-11T10:00:00Z"


@pytest.mark.parametrize(
    ("dates", "told", "said"),
    [
        ({"datetime": "last spring"}, None, ["the item's date `last spring` is not understood"]),
        ({"datetime": None, "start_datetime": "1900-01-01T00:00:00Z", "end_datetime": "2100-01-01T00:00:00Z",
          "mmedge:datetime_unknown": True}, None, []),
        ({"datetime": None, "start_datetime": "2020-04-01T00:00:00Z", "end_datetime": "2020-04-11T10:00:00.5Z"},
         "2020-04-01T00:00:00Z/2020-04-11T10:00:00Z", []),
    ],
)  # fmt: skip
def test_a_date_is_no_reason_to_refuse_pixels(
    chile: Path, tmp_path: Path, dates: dict[str, Any], told: str | None, said: list[str]
) -> None:
    shutil.copy(chile / "elevation.tif", tmp_path / "dem.tif")  # it has no date of its own
    path = item(tmp_path, dem={"href": "dem.tif", "type": "image/tiff"})
    document = json.loads(path.read_text())
    path.write_text(json.dumps(document | {"properties": dates}))
    with open_scene(path, [ELEVATION]) as scene:
        assert [text[: len(s)] for text, s in zip(scene.warnings, said, strict=True)] == said
        acquired = scene.sources["elevation"].info.acquired
        assert (acquired and str(acquired)) == told


def test_a_tag_that_is_no_date_is_not_taken_for_one(chile: Path, tmp_path: Path) -> None:
    shutil.copy(chile / "elevation.tif", tmp_path / "dem.tif")
    with rasterio.open(tmp_path / "dem.tif", "r+") as out:
        out.update_tags(ACQUIRED_ELEVATION="some day")
    with open_scene(None, [ELEVATION], SceneOptions(sources={"elevation": [tmp_path / "dem.tif"]})) as scene:
        assert scene.sources["elevation"].info.acquired is None


@pytest.mark.parametrize("href", ["../secret.tif", "/etc/s1.tif", "http://example.com/s1.tif", "file:///etc/s1.tif"])
def test_a_stac_item_points_to_its_own_folder_only(tmp_path: Path, href: str) -> None:
    with pytest.raises(SceneError, match="points outside its own folder"):
        open_scene(item(tmp_path, vv={"href": href, "type": "image/tiff"}), WANTED)


def test_many_threads_read_the_same_pixels_and_handles_are_closed(chile: Path) -> None:
    from concurrent.futures import ThreadPoolExecutor

    def mean(scene: Scene, row: int) -> float:
        return float(scene.read(Window(row, 0, 16, 224)).data["optical"].mean())

    with open_scene(chile / "scene.tif", WANTED) as scene, ThreadPoolExecutor(8) as pool:
        rows = list(range(0, 208, 4)) * 4
        threaded = list(pool.map(lambda row: mean(scene, row), rows))
        assert threaded == [mean(scene, row) for row in rows]


@pytest.mark.parametrize("bands", [1, 2, 3, 11])
@pytest.mark.parametrize("nodata", [None, 0])
def test_alpha_decides_whatever_the_number_of_bands(
    chile: Path, tmp_path: Path, bands: int, nodata: int | None
) -> None:
    """GDAL itself takes alpha for a mask in files of two and four bands without nodata alone."""
    with rasterio.open(chile / "optical.tif") as src:
        pixels, names, profile = src.read()[:bands], src.descriptions[:bands], src.profile
    alpha = np.full((1, *pixels.shape[1:]), 255, pixels.dtype)
    alpha[:, :100, :100] = 0
    profile |= {"count": bands + 1, "nodata": nodata, "photometric": "MINISBLACK"}
    with rasterio.open(tmp_path / "alpha.tif", "w", **profile) as out:
        out.colorinterp = [*[ColorInterp.gray] * bands, ColorInterp.alpha]
        out.write(np.concatenate([pixels, alpha]))
        out.descriptions = (*names, None)
    own = tuple(name.split(":")[-1] for name in names)
    wanted = Modality(name="optical", bands=own, unit="raw", gsd_m=10)
    with open_scene(None, [wanted], SceneOptions(sources={"optical": [tmp_path / "alpha.tif"]})) as scene:
        valid = scene.read(WHOLE).valid["optical"]
    np.testing.assert_array_equal(valid, alpha[0] > 0)


def test_flags_for_sensors_that_are_not_there_are_warned_of(chile: Path) -> None:
    told = SceneOptions(scale={"thermal": (1.0, 0.0)}, unit={"sarr": "linear"}, crs={"foo": "EPSG:4326"})
    with open_scene(chile / "scene.tif", WANTED, told) as scene:
        assert [text.split("`: ")[0] for text in scene.warnings] == ["`--scale thermal", "`--unit sarr", "`--crs foo"]
    sources = {"optical": [chile / "optical.tif"], "sarr": [chile / "sar.tif"]}
    with open_scene(None, WANTED, SceneOptions(sources=sources)) as scene:
        assert scene.warnings == ("`--source sarr` is not used: the model takes elevation, optical, sar",)
    with pytest.raises(UsageError, match="only radar"):
        open_scene(chile / "scene.tif", WANTED, SceneOptions(unit={"optical": "dB"}))
    with pytest.raises(UsageError, match="no STAC ItemCollection"):
        open_scene(chile / "scene.tif", WANTED, SceneOptions(item="a"))


def test_bands_of_a_stack_are_named_sensor_after_sensor(chile: Path, tmp_path: Path) -> None:
    with rasterio.open(chile / "scene.tif") as src:
        names: dict[str, list[str]] = {}
        for description in src.descriptions:
            sensor, band = description.split(":")
            names.setdefault(sensor, []).append(band)
        scales, offsets = src.scales, src.offsets
        bare = rewritten(
            chile / "scene.tif", tmp_path / "bare.tif", descriptions=[None] * src.count, scales=scales, offsets=offsets
        )
    with open_scene(chile / "scene.tif", WANTED) as named, open_scene(bare, WANTED, SceneOptions(bands=names)) as scene:
        assert scene.sensors == named.sensors
        for m in scene.sensors:
            np.testing.assert_array_equal(scene.read(WHOLE).data[m], named.read(WHOLE).data[m])
    names["sar"].append("HH")
    with pytest.raises(UsageError, match=r"names 16 bands, the files hold 15"):
        open_scene(bare, WANTED, SceneOptions(bands=names))
    swapped = SceneOptions(bands={"sar": ["VH", "VV"]})
    with open_scene(chile / "scene.tif", WANTED) as named, open_scene(chile / "scene.tif", WANTED, swapped) as scene:
        np.testing.assert_array_equal(scene.read(WHOLE).data["sar"], named.read(WHOLE).data["sar"][::-1])
    with pytest.raises(UsageError, match="names 1 bands, the files hold 2"):
        open_scene(chile / "scene.tif", WANTED, SceneOptions(bands={"sar": ["VV"]}))


def test_a_crs_without_a_geotransform_places_nothing(chile: Path, tmp_path: Path) -> None:
    lost = rewritten(chile / "optical.tif", tmp_path / "lost.tif", transform=Affine.identity())
    with pytest.raises(GeoreferenceError, match="no geotransform") as caught:
        open_scene(None, WANTED, SceneOptions(sources={"optical": [lost]}))
    assert "-a_ullr" in caught.value.hint


def test_values_that_no_reflectance_has_are_warned_of(chile: Path, tmp_path: Path) -> None:
    with rasterio.open(chile / "optical.tif") as src:
        pixels = src.read().astype(np.float32) * 1e-4 - 0.1
    pixels[:, :40] = -9999
    filled = rewritten(chile / "optical.tif", tmp_path / "filled.tif", data=pixels)
    with open_scene(None, WANTED, SceneOptions(sources={"optical": [filled]})) as scene:
        assert any("is no reflectance (-9999" in text for text in scene.warnings)
