"""Scenes found in folders, globs, lists and STAC documents; files of several sensors paired."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mmedge.edge.batch.worklist import Shard, Work, find_work, without_maps
from mmedge.errors import SceneError, UsageError
from mmedge.geo_io.gather import SceneOptions

SENSORS = ("optical", "sar", "elevation")


def touch(folder: Path, *names: str) -> Path:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).touch()
    return folder


def paired(folder: Path, *patterns: str) -> dict[str, dict[str, list[str]]]:
    works = find_work([str(folder)], patterns=patterns, sensors=SENSORS).works
    return {
        w.id: {s: [p.relative_to(folder).as_posix() for p in files] for s, files in w.sources.items()} for w in works
    }


def item(name: str, href: str) -> dict[str, Any]:
    return {"type": "Feature", "id": name, "properties": {}, "assets": {"VV": {"href": href, "roles": ["data"]}}}


def test_a_folder_gives_its_rasters(tmp_path: Path) -> None:
    touch(tmp_path, "b.tif", "a.TIFF", "c.jp2", "a.tif.aux.xml", "notes.txt", "item.json", "below/d.tif")
    assert [w.id for w in find_work([str(tmp_path)]).works] == ["a", "b", "c"]
    assert [w.id for w in find_work([str(tmp_path / "**" / "*.tif")]).works] == ["b", "d"]


def test_a_safe_folder_is_one_scene(tmp_path: Path) -> None:
    touch(tmp_path, "S2A.SAFE/GRANULE/x.jp2", "S2A.SAFE/manifest.safe", "b.tif")
    works = find_work([str(tmp_path)]).works
    assert [w.id for w in works] == ["S2A", "b"]
    assert [p.name for p in works[0].files(SceneOptions())] == ["x.jp2", "manifest.safe"]


def test_files_of_several_sensors_are_paired_whatever_the_sensors_are_called(tmp_path: Path) -> None:
    touch(tmp_path, "t_01_s2.tif", "t_01_radar.tif", "t_02_sentinel-2.tif", "t_02_dem.tif", "t_02_labels.tif")
    assert paired(tmp_path, "{id}_{sensor}.tif") == {
        "t_01": {"optical": ["t_01_s2.tif"], "sar": ["t_01_radar.tif"]},
        "t_02": {"optical": ["t_02_sentinel-2.tif"], "elevation": ["t_02_dem.tif"]},
    }
    ignored = find_work([str(tmp_path)], patterns=["{id}_{sensor}.tif"], sensors=SENSORS).ignored
    assert [path.name for path in ignored] == ["t_02_labels.tif"]


def test_a_folder_a_scene_with_names_that_do_not_say_the_sensor(tmp_path: Path) -> None:
    touch(tmp_path, "x/S2L2A_B02.tif", "x/S2L2A_B03.tif", "x/S1RTC.tif", "y/S1RTC.tif", "y/DEM.laz")
    patterns = ("optical={id}/S2*.tif", "sar={id}/S1RTC.tif", "lidar={id}/DEM.laz")
    assert paired(tmp_path, *patterns) == {
        "x": {"optical": ["x/S2L2A_B02.tif", "x/S2L2A_B03.tif"], "sar": ["x/S1RTC.tif"]},
        "y": {"sar": ["y/S1RTC.tif"], "elevation": ["y/DEM.laz"]},
    }


def test_lists_name_anything_that_could_be_given(tmp_path: Path) -> None:
    touch(tmp_path, "one/a.tif", "two/b.tif")
    (tmp_path / "list.txt").write_text(f"# scenes\n\n{tmp_path}/one\n{tmp_path}/two/*.tif\n{tmp_path}/gone.tif\n")
    assert [w.id for w in find_work([str(tmp_path / "list.txt")]).works] == ["a", "b", "gone"]


def test_items_of_a_collection_of_items_and_of_a_catalogue(tmp_path: Path) -> None:
    touch(tmp_path, "a.tif", "b.tif", "items/c.tif")
    collection = {"type": "FeatureCollection", "features": [item("a", "a.tif"), item("b/x", "b.tif")]}
    (tmp_path / "items.json").write_text(json.dumps(collection))
    (tmp_path / "items" / "c.json").write_text(json.dumps(item("c", "c.tif")))
    links = [{"rel": "item", "href": "./items/c.json"}, {"rel": "self", "href": "https://example.com/catalog.json"}]
    (tmp_path / "catalog.json").write_text(json.dumps({"type": "Catalog", "id": "all", "links": links}))
    works = find_work([str(tmp_path / "items.json"), str(tmp_path / "catalog.json")]).works
    assert [(w.id, w.item) for w in works] == [("a", "a"), ("b_x", "b/x"), ("c", "c")]
    assert [p.name for p in works[1].files(SceneOptions())] == ["items.json", "b.tif"]


def test_a_catalogue_that_points_outside_its_folder_is_refused(tmp_path: Path) -> None:
    touch(tmp_path, "other/c.json")
    for href in ("../other/c.json", "https://example.com/c.json"):
        (tmp_path / "cat").mkdir(exist_ok=True)
        document = {"type": "Catalog", "links": [{"rel": "item", "href": href}]}
        (tmp_path / "cat" / "catalog.json").write_text(json.dumps(document))
        with pytest.raises(SceneError, match="outside its own folder"):
            find_work([str(tmp_path / "cat" / "catalog.json")])


def test_a_catalogue_that_links_to_itself_ends(tmp_path: Path) -> None:
    links = [{"rel": "child", "href": "./catalog.json"}, {"rel": "item", "href": "a.json"}]
    (tmp_path / "catalog.json").write_text(json.dumps({"type": "Catalog", "links": links}))
    (tmp_path / "a.json").write_text(json.dumps(item("a", "a.tif")))
    assert [w.id for w in find_work([str(tmp_path / "catalog.json")]).works] == ["a"]


@pytest.mark.parametrize(
    ("inputs", "patterns", "said"),
    [
        (["{tmp}/nowhere"], (), "no such file or folder"),
        (["{tmp}/*.png"], (), "nothing matches"),
        (["{tmp}/empty"], (), "holds no scene"),
        (["{tmp}/nolist.txt"], (), "cannot read the list"),
        (["{tmp}/a", "{tmp}/b"], (), "two scenes are called `x`"),
        (["{tmp}/a"], ("{id}_{sensor}.tif",), "none of which fits"),
        (["{tmp}/a"], ("{id}.tif",), "does not say which part"),
        (["{tmp}/a"], ("{sensor}.tif",), "does not say which part"),
        (["{tmp}/a"], ("sar={id}_{sensor}.tif",), "does not say which part"),
        (["{tmp}/a"], ("{id}_{what}_{sensor}.tif",), "does not say which part"),
    ],
)
def test_mistakes(tmp_path: Path, inputs: list[str], patterns: tuple[str, ...], said: str) -> None:
    touch(tmp_path, "a/x.tif", "b/x.tif")
    (tmp_path / "empty").mkdir()
    with pytest.raises(UsageError, match=said) as caught:
        find_work([i.format(tmp=tmp_path) for i in inputs], patterns=patterns, sensors=SENSORS)
    assert caught.value.hint


def test_maps_beside_their_scenes_are_no_scenes(tmp_path: Path) -> None:
    touch(tmp_path, "a.tif", "a_map.tif", "a_map_confidence.tif", "a_map_sensors.tif", "b_map.tif")
    works = without_maps(find_work([str(tmp_path)]).works, tmp_path)
    assert [w.id for w in works] == ["a", "b_map"]


def test_sidecars_belong_to_a_scene(tmp_path: Path) -> None:
    touch(tmp_path, "a.tif", "a.tif.msk", "a.tif.aux.xml")
    files = Work(id="a", scene=tmp_path / "a.tif").files(SceneOptions())
    assert [p.name for p in files] == ["a.tif", "a.tif.aux.xml", "a.tif.msk"]


def test_a_cloud_in_a_folder_of_nodes_is_all_of_its_files(tmp_path: Path) -> None:
    touch(tmp_path, "plot/ept.json", "plot/ept-hierarchy/0-0-0-0.json", "plot/ept-data/0-0-0-0.laz", "s1/plot.tif")
    (alone,) = find_work([str(tmp_path / "plot/ept.json")]).works
    assert alone.id == "plot"
    paired = find_work([str(tmp_path)], patterns=["elevation={id}/ept.json", "sar=s1/{id}.tif"], sensors=SENSORS).works
    assert [(w.id, sorted(w.sources)) for w in paired] == [("plot", ["elevation", "sar"])]
    for work in (alone, *paired):
        assert {p.name for p in work.files(SceneOptions())} >= {"ept.json", "0-0-0-0.json", "0-0-0-0.laz"}


@given(st.text(min_size=1), st.integers(1, 9))
def test_a_scene_is_in_exactly_one_shard(scene: str, count: int) -> None:
    assert sum(scene in Shard(index, count) for index in range(1, count + 1)) == 1
