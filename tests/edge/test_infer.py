"""The whole path, scene to map: the same map however it is cut up, and nothing where nothing was seen."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest
import rasterio
import rasterio.windows

from mmedge.bundle import open_bundle
from mmedge.edge.infer import infer, run
from mmedge.edge.request import Request
from mmedge.errors import SceneError
from mmedge.geo_io.gather import SceneOptions
from mmedge.geo_io.scene import open_scene
from mmedge.modality import Availability


def read(path: Path) -> Any:
    with rasterio.open(path) as src:
        return src.read(1)


def products(record: Any) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in record.outputs.paths}


def holed(source: Path, target: Path, **holes: tuple[slice, slice]) -> Path:
    """A copy of the scene in which some sensors saw nothing in a rectangle."""
    with rasterio.open(source) as src:
        data = src.read()
        for i, name in enumerate(src.descriptions):
            if (hole := holes.get(name.split(":")[0])) is not None:
                data[i][hole] = np.nan
        with rasterio.open(target, "w", **src.profile) as out:
            out.write(data)
            out.descriptions = src.descriptions
    return target


def test_tiles_give_exactly_what_one_pass_over_the_whole_scene_gives(chile: Path, small: Path, tmp_path: Path) -> None:
    record = infer(chile / "scene.tif", tmp_path / "map.tif", model=small, available=("optical", "sar"))
    bundle, both = open_bundle(small), Availability.of(("optical", "sar"), ("optical", "sar", "elevation"))
    with open_scene(chile / "scene.tif", bundle.modalities) as scene:
        tile = scene.read(scene.grid.window.grow(2))
    feeds = {name: tile.data[name][None] for name in both} | {f"{n}_valid": tile.valid[n][None, None] for n in both}
    session = onnxruntime.InferenceSession(bundle.graph(both, precision="fp32", mixed=False))
    logits = session.run(None, feeds)[0][0, :, 2:-2, 2:-2]
    values = np.array([c.value for c in bundle.classes])
    margin = np.diff(np.sort(logits, axis=0)[-2:], axis=0)[0]
    differs = read(record.outputs.map) != values[logits.argmax(axis=0)]
    assert not (differs & (margin > 1e-4)).any()
    assert (margin > 1e-4).mean() > 0.999


@pytest.mark.parametrize("wishes", [{"cells": 1}, {"cells": 3, "batch": 5}, {"batch": 1, "threads": 1}, {"threads": 4}])
def test_cutting_batching_and_threading_do_not_change_a_byte(
    chile: Path, small: Path, tmp_path: Path, wishes: dict[str, int]
) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    plain = infer(chile / "scene.tif", tmp_path / "a" / "map.tif", model=small, probs=True)
    other = infer(chile / "scene.tif", tmp_path / "b" / "map.tif", model=small, probs=True, **wishes)
    assert products(plain) == products(other)


def test_a_bbox_changes_nothing_inside_it(chile: Path, small: Path, tmp_path: Path) -> None:
    whole = infer(chile / "scene.tif", tmp_path / "whole.tif", model=small)
    with rasterio.open(whole.outputs.map) as src:
        left, top = src.xy(51, 37, offset="ul")
    bbox = (left, top - 10 * 101, left + 10 * 77, top)
    part = infer(chile / "scene.tif", tmp_path / "part.tif", model=small, bbox=bbox)
    np.testing.assert_array_equal(read(part.outputs.map), read(whole.outputs.map)[51:152, 37:114])
    np.testing.assert_array_equal(read(part.outputs.confidence), read(whole.outputs.confidence)[51:152, 37:114])


def test_an_area_of_interest_is_cut_out(chile: Path, small: Path, tmp_path: Path) -> None:
    with rasterio.open(chile / "scene.tif") as src:
        c, f = src.transform.c, src.transform.f
    ring = [[c + 10 * x, f - 10 * y] for x, y in ((20, 20), (120, 20), (20, 120), (20, 20))]
    crs = {"type": "name", "properties": {"name": "EPSG:32718"}}
    aoi = tmp_path / "field.geojson"
    aoi.write_text(json.dumps({"type": "Polygon", "coordinates": [ring], "crs": crs}))
    whole = infer(chile / "scene.tif", tmp_path / "whole.tif", model=small)
    part = infer(chile / "scene.tif", tmp_path / "part.tif", model=small, aoi=aoi)
    cut, full = read(part.outputs.map), read(whole.outputs.map)[20:120, 20:120]
    diagonal = np.add(*np.indices((100, 100)))
    assert cut.shape == (100, 100)
    np.testing.assert_array_equal(cut[diagonal < 99], full[diagonal < 99])
    assert (cut[diagonal > 99] == 255).all()


def test_what_no_sensor_saw_is_nodata_and_the_rest_says_what_it_was_made_from(
    chile: Path, small: Path, tmp_path: Path
) -> None:
    cloud, gap = (slice(30, 90), slice(40, 120)), (slice(60, 100), slice(0, 224))
    scene = holed(chile / "scene.tif", tmp_path / "scene.tif", optical=cloud, sar=gap, elevation=gap)
    record = infer(scene, tmp_path / "map.tif", model=small)
    expected = np.full((224, 224), 0b111, np.uint8)
    expected[cloud] &= 0b110
    expected[gap] &= 0b001
    np.testing.assert_array_equal(read(record.outputs.sensors), expected)
    nothing = expected == 0
    assert nothing.any()
    np.testing.assert_array_equal(read(record.outputs.map) == 255, nothing)
    np.testing.assert_array_equal(read(record.outputs.confidence) == 255, nothing)
    shares = record.shares()
    assert shares["none"] == pytest.approx(nothing.mean())
    assert shares["optical+sar+elevation"] == pytest.approx((expected == 7).mean())


def test_available_uses_less_than_the_pixels_offer(chile: Path, small: Path, tmp_path: Path) -> None:
    record = infer(chile / "scene.tif", tmp_path / "map.tif", model=small, available=("radar",))
    assert record.used() == ("sar",)
    assert set(np.unique(read(record.outputs.sensors))) == {0b010}


def test_a_sensor_that_saw_nothing_is_a_warning_and_all_of_them_an_error(
    chile: Path, small: Path, tmp_path: Path
) -> None:
    blind = (slice(None), slice(None))
    scene = holed(chile / "scene.tif", tmp_path / "scene.tif", optical=blind)
    said: list[str] = []
    record = run(Request(scene=scene, output=tmp_path / "map.tif", model=small), warn=said.append)
    assert said == ["`optical` is in the scene but valid nowhere: the map was made without it"]
    assert record.used() == ("sar", "elevation")
    dark = holed(chile / "scene.tif", tmp_path / "dark.tif", optical=blind, sar=blind, elevation=blind)
    with pytest.raises(SceneError, match="no pixel of `dark` is valid"):
        infer(dark, tmp_path / "none.tif", model=small)
    assert not list(tmp_path.glob("none*"))


def test_provenance_is_in_every_raster_and_names_no_place(chile: Path, small: Path, tmp_path: Path) -> None:
    record = infer(chile / "scene.tif", tmp_path / "map.tif", model=small)
    for path in (record.outputs.map, record.outputs.confidence, record.outputs.sensors):
        with rasterio.open(path) as src:
            tags = src.tags()
        assert tags["MMEDGE_BUNDLE_SHA256"] == open_bundle(small).sha256
        assert tags["MMEDGE_AVAILABLE"] == "optical+sar+elevation"
        assert json.loads(tags["MMEDGE_INPUTS"])[0]["name"] == "scene.tif"
        assert str(tmp_path) not in json.dumps(tags)
    assert str(tmp_path) not in record.outputs.item.read_text()


def test_a_file_per_sensor_gives_the_same_map(chile: Path, small: Path, tmp_path: Path) -> None:
    one = infer(chile / "scene.tif", tmp_path / "one.tif", model=small)
    sources = {name: [chile / f"{name}.tif"] for name in ("optical", "sar", "elevation")}
    many = infer(None, tmp_path / "many.tif", model=small, options=SceneOptions(sources=sources))
    assert (read(one.outputs.map) == read(many.outputs.map)).mean() > 0.9999  # float32 scaled once, or twice


def test_a_failed_read_leaves_nothing(chile: Path, small: Path, tmp_path: Path) -> None:
    cut = tmp_path / "cut.tif"
    with rasterio.open(chile / "scene.tif") as src, rasterio.open(cut, "w", **{**src.profile, "compress": None}) as out:
        out.write(src.read())
        out.descriptions = src.descriptions
    cut.write_bytes(cut.read_bytes()[:1_000_000])
    with pytest.raises(SceneError, match=r"cut\.tif"):
        infer(cut, tmp_path / "map.tif", model=small)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["cut.tif"]


def test_a_scene_cut_out_of_another_keeps_its_lattice(chile: Path, small: Path, tmp_path: Path) -> None:
    cut = tmp_path / "scene.tif"
    with rasterio.open(chile / "scene.tif") as src:
        window = rasterio.windows.Window(45, 30, 160, 150)
        profile = {**src.profile, "height": 150, "width": 160, "transform": src.window_transform(window)}
        with rasterio.open(cut, "w", **profile) as out:
            out.write(src.read(window=window))
            out.descriptions = src.descriptions
    sensors = ("optical", "sar")
    whole = infer(chile / "scene.tif", tmp_path / "whole.tif", model=small, available=sensors)
    part = infer(cut, tmp_path / "part.tif", model=small, available=sensors)
    np.testing.assert_array_equal(read(part.outputs.map)[2:-2, 2:-2], read(whole.outputs.map)[32:178, 47:203])
