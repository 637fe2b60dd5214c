"""EPT data sets made of real points to the specification of Entwine 1.0: they read as the cloud that they hold."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import laspy
import numpy as np
import pytest

from mmedge.errors import GeoreferenceError, SceneError
from mmedge.geo_io.gather import SceneOptions
from mmedge.geo_io.lidar import LidarSource
from mmedge.geo_io.pointclouds.cloud import open_cloud
from mmedge.geo_io.pointclouds.ept import open_ept
from mmedge.geo_io.pointclouds.point_cloud import cloud_grid
from mmedge.geo_io.scene import open_scene
from mmedge.grid import Window

CLOUD = Path(__file__).parents[2] / "data" / "lidar" / "OSBS_22.laz"
BANDS = ("ground", "surface", "ndsm", "intensity", "density")


def write_ept(folder: Path, *, capacity: int = 60, page_levels: int = 2) -> Path:
    """An EPT data set of real points: `capacity` of them a node, the rest in its children; pages of `page_levels`."""
    las = laspy.read(CLOUD)
    xyz = np.stack([las.x, las.y, las.z], axis=1)
    low, high = xyz.min(axis=0), xyz.max(axis=0)
    middle, half = (low + high) / 2, float((high - low).max()) / 2 + 0.01
    cube = [*(middle - half), *(middle + half)]
    (folder / "ept-data").mkdir(parents=True)
    (folder / "ept-hierarchy").mkdir()
    counts: dict[tuple[int, int, int, int], int] = {}

    def node(key: tuple[int, int, int, int], members: Any) -> None:
        taken, rest = members[:capacity], members[capacity:]
        counts[key] = len(taken)
        part = laspy.LasData(las.header, las.points[np.sort(taken)])
        part.write(folder / "ept-data" / f"{'-'.join(map(str, key))}.laz")
        level, side = key[0] + 1, 2 * half / 2 ** (key[0] + 1)
        places = np.floor((xyz[rest] - (middle - half)) / side).astype(int)
        for place in np.unique(places, axis=0):
            node((level, *map(int, place)), rest[(places == place).all(axis=1)])  # type: ignore[arg-type]

    node((0, 0, 0, 0), np.random.default_rng(4).permutation(len(xyz)))
    pages: dict[tuple[int, int, int, int], dict[str, int]] = {}
    for key in counts:
        below = key[0] % page_levels
        root = (key[0] - below, *(v >> below for v in key[1:]))
        pages.setdefault(root, {})["-".join(map(str, key))] = counts[key]  # type: ignore[arg-type]
        if below == 0 and key[0]:
            above = (key[0] - page_levels, *(v >> page_levels for v in key[1:]))
            pages[above]["-".join(map(str, key))] = -1  # type: ignore[index]
    for key, page in pages.items():
        (folder / "ept-hierarchy" / f"{'-'.join(map(str, key))}.json").write_text(json.dumps(page))
    facts = {
        "bounds": cube,
        "boundsConforming": [*low, *high],
        "dataType": "laszip",
        "hierarchyType": "json",
        "points": len(xyz),
        "schema": [{"name": n, "type": "signed", "size": 4, "scale": 0.01, "offset": 0} for n in "XYZ"],
        "span": 128,
        "srs": {"authority": "EPSG", "horizontal": "32617", "wkt": open_crs()},
        "version": "1.0.0",
    }
    (folder / "ept.json").write_text(json.dumps(facts))
    return folder / "ept.json"


def open_crs() -> str:
    return open_cloud(CLOUD, crs=None, z_unit_m=None, swap_xy=False).crs.wkt


@pytest.fixture(scope="module")
def ept(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_ept(tmp_path_factory.mktemp("ept") / "plot")


def changed(ept: Path, target: Path, **facts: Any) -> Path:
    """A copy with other facts in its ept.json."""
    shutil.copytree(ept.parent, target)
    document = json.loads((target / "ept.json").read_text()) | facts
    (target / "ept.json").write_text(json.dumps(document))
    return target / "ept.json"


def test_the_tree_has_pages_and_levels(ept: Path) -> None:
    cloud = open_ept(ept, crs=None, z_unit_m=None, swap_xy=False)
    assert cloud.count == laspy.read(CLOUD).header.point_count
    assert max(key[0] for key, _ in cloud.nodes) >= 2
    assert len(cloud.pages) > 2


@pytest.mark.parametrize("options", [{}, {"ground": "filter", "fill_cells": 3}])
def test_every_band_is_that_of_the_file(ept: Path, options: dict[str, Any]) -> None:
    grid = cloud_grid(CLOUD, 1.0)
    assert cloud_grid(ept, 1.0) == grid
    with (
        LidarSource(CLOUD, grid, bands=BANDS, **options) as one,
        LidarSource(ept, grid, bands=BANDS, **options) as other,
    ):
        expected, valid = one.read(grid.window)
        found, found_valid = other.read(grid.window)
    assert valid.any()
    np.testing.assert_array_equal(found_valid, valid)
    np.testing.assert_array_equal(found, expected)


def test_a_window_opens_the_nodes_under_it_alone(ept: Path, tmp_path: Path) -> None:
    """Files of nodes that do not touch the window are gone: it is read; the whole is not."""
    grid = cloud_grid(ept, 0.02)  # 1000 cells a side: several blocks
    path = changed(ept, tmp_path / "part")
    cloud = open_ept(path, crs=None, z_unit_m=None, swap_xy=False)
    west, _, east, _ = cloud.rect or (0, 0, 0, 0)
    for (key, _), box in zip(cloud.nodes, cloud.boxes, strict=True):
        if box[0] > (west + east) / 2 + 1:  # nothing of the eastern half but the large nodes
            (path.parent / "ept-data" / f"{'-'.join(map(str, key))}.laz").unlink()
    window = Window(0, 0, 200, 200)
    with (
        LidarSource(path, grid, bands=["surface"], ground="class") as part,
        LidarSource(CLOUD, grid, bands=["surface"], ground="class") as whole,
    ):
        np.testing.assert_array_equal(part.read(window)[0], whole.read(window)[0])
        with pytest.raises(SceneError, match="No such file"):
            part.read(grid.window)


@pytest.mark.parametrize("given", ["ept.json", "folder"])
def test_it_is_a_scene_of_its_own(ept: Path, given: str) -> None:
    with open_scene(ept if given == "ept.json" else ept.parent) as scene, open_scene(CLOUD) as plain:
        assert scene.name == "plot"
        assert ept in scene.files
        assert len([f for f in scene.files if f.suffix == ".laz"]) > 4  # type: ignore[union-attr]
        np.testing.assert_array_equal(
            scene.read(scene.grid.window).data["elevation"], plain.read(plain.grid.window).data["elevation"]
        )


def test_a_crs_from_codes_and_one_that_is_given(ept: Path, tmp_path: Path) -> None:
    codes = changed(ept, tmp_path / "codes", srs={"authority": "EPSG", "horizontal": "26917", "vertical": "6360"})
    cloud = open_ept(codes, crs=None, z_unit_m=None, swap_xy=False)
    assert cloud.crs.z_unit_m == pytest.approx(1200 / 3937)  # NAVD88 height in US feet
    none = changed(ept, tmp_path / "none", srs={})
    with pytest.raises(GeoreferenceError, match="it names none"):
        open_scene(none)
    with open_scene(none, None, SceneOptions(crs={"elevation": "EPSG:32617"})) as scene:
        assert scene.read(scene.grid.window).valid["elevation"].any()


@pytest.mark.parametrize(
    ("facts", "said"),
    [
        ({"dataType": "zstandard"}, "'zstandard'"),
        ({"points": 7}, "it claims 7"),
        ({"points": True}, "it claims True"),
        ({"bounds": [0, 0, 0, 1, 1]}, "bounds is not six numbers"),
        ({"bounds": [0, 0, 0, 1, float("nan"), 1]}, "bounds is no box"),
        ({"boundsConforming": [1, 0, 0, 0, 1, 1]}, "boundsConforming is no box"),
        ({"srs": {"wkt": "PROJCS[nonsense"}}, "CRS"),
        ({"srs": {"authority": "EPSG", "horizontal": "../../etc"}}, "not a CRS"),
    ],
)
def test_facts_that_lie_are_refused(ept: Path, tmp_path: Path, facts: dict[str, Any], said: str) -> None:
    with pytest.raises((SceneError, GeoreferenceError), match=said):
        open_scene(changed(ept, tmp_path / "copy", **facts))


@pytest.mark.parametrize(
    ("page", "said"),
    [
        ('{"0-0-0-0": -1}', "named twice"),
        ('{"0-0-0-0": 1e99}', "points"),
        ('{"0-0-0-0": true}', "points"),
        ('{"1-2-0-0": 5}', "outside its octree"),
        ('{"41-0-0-0": 5}', "outside its octree"),
        ('{"../../secret": 5}', "is no node"),
        ('{"1-0-0-\\u00b2": 5}', "is no node"),
        ("[" * 100_000, "no JSON"),
        ("[1]", "no JSON object"),
        ("\xff\xfe", "no JSON"),
        ('{"0-0-0-0": 3}', "it claims"),
    ],
)
def test_a_hierarchy_that_lies_is_refused(ept: Path, tmp_path: Path, page: str, said: str) -> None:
    path = changed(ept, tmp_path / "copy")
    (path.parent / "ept-hierarchy" / "0-0-0-0.json").write_text(page, encoding="latin-1")
    with pytest.raises(SceneError, match=said):
        open_scene(path)


def test_links_out_of_the_folder_and_wrong_nodes_are_refused(ept: Path, tmp_path: Path) -> None:
    path = changed(ept, tmp_path / "link")
    node = path.parent / "ept-data" / "0-0-0-0.laz"
    node.unlink()
    node.symlink_to(CLOUD)
    with pytest.raises(SceneError, match="leads out of"), open_scene(path) as scene:
        scene.read(scene.grid.window)
    path = changed(ept, tmp_path / "other")
    shutil.copy(CLOUD, path.parent / "ept-data" / "0-0-0-0.laz")
    with pytest.raises(SceneError, match="the hierarchy says"), open_scene(path) as scene:
        scene.read(scene.grid.window)
    path = changed(ept, tmp_path / "cut")
    node = path.parent / "ept-data" / "0-0-0-0.laz"
    node.write_bytes(node.read_bytes()[:-200])
    with pytest.raises(SceneError), open_scene(path) as scene:
        scene.read(scene.grid.window)
