"""Several files into one scene that reads back the same."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import rasterio

from mmedge.errors import OutputError
from mmedge.geo_io.gather import SceneOptions
from mmedge.geo_io.scene import open_scene
from mmedge.geo_io.stack import stack
from mmedge.grid import Window

SENSORS = ("optical", "sar", "elevation")


def test_a_stacked_scene_reads_back_what_its_sources_hold(chile: Path, tmp_path: Path) -> None:
    with rasterio.open(chile / "sar.tif") as src:
        data, profile, names = src.read(), src.profile, src.descriptions
    data[:, 3:9, 5:20] = np.nan
    with rasterio.open(tmp_path / "sar.tif", "w", **profile) as out:
        out.write(data)
        out.descriptions = names
        out.update_tags(ACQUISITION_DATE="2020-04-11")
    paths = {"optical": chile / "optical.tif", "sar": tmp_path / "sar.tif", "elevation": chile / "elevation.tif"}
    with open_scene(None, None, SceneOptions(sources={s: [p] for s, p in paths.items()})) as sources:
        stack(sources, tmp_path / "scene.tif")
        with open_scene(tmp_path / "scene.tif") as scene:
            assert scene.sensors == SENSORS
            assert scene.grid == sources.grid
            assert str(scene.sources["sar"].info.acquired) == "2020-04-11"
            assert scene.sources["optical"].info.acquired is None
            window = Window(-3, -3, 230, 230)
            given, back = sources.read(window), scene.read(window)
    for name in SENSORS:
        np.testing.assert_array_equal(back.valid[name], given.valid[name])
        valid = given.valid[name]
        np.testing.assert_array_equal(back.data[name][:, valid], given.data[name][:, valid])


def test_the_shipped_scene_is_what_stack_makes(chile: Path, tmp_path: Path) -> None:
    with open_scene(None, None, SceneOptions(sources={s: [chile / f"{s}.tif"] for s in SENSORS})) as sources:
        stack(sources, tmp_path / "scene.tif")
    with rasterio.open(tmp_path / "scene.tif") as made, rasterio.open(chile / "scene.tif") as shipped:
        assert made.descriptions == shipped.descriptions
        assert made.tags() == shipped.tags()
        np.testing.assert_array_equal(made.read(), shipped.read())


def test_an_existing_scene_is_kept_and_a_failure_leaves_nothing(chile: Path, tmp_path: Path) -> None:
    (tmp_path / "scene.tif").write_text("mine")
    with open_scene(chile / "scene.tif") as scene:
        with pytest.raises(OutputError, match="exists already"):
            stack(scene, tmp_path / "scene.tif")
        with pytest.raises(OutputError, match="does not exist"):
            stack(scene, tmp_path / "no" / "scene.tif")
        assert (tmp_path / "scene.tif").read_text() == "mine"
        stack(scene, tmp_path / "scene.tif", overwrite=True)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["scene.tif"]
