"""A point cloud is a sensor of a scene like any other, and masks and screening narrow every sensor."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import rasterio

from mmedge.errors import GeoreferenceError, UsageError
from mmedge.geo_io.gather import SceneOptions
from mmedge.geo_io.lidar import LidarSource
from mmedge.geo_io.pointclouds.point_cloud import cloud_grid
from mmedge.geo_io.scene import open_scene
from mmedge.geo_io.stack import stack
from mmedge.grid import Window
from mmedge.modality import Modality

ELEVATION = Modality(name="elevation", bands=("DEM",), unit="m", gsd_m=1.0, derive="relief")
SAR = Modality(name="sar", bands=("VV", "VH"), unit="dB", gsd_m=10)


@pytest.fixture(scope="module")
def cloud(shared_data: Path) -> Path:
    return shared_data / "open/idtrees/plots/MLBS_31/points.laz"


def test_a_cloud_alone_makes_a_scene_on_its_own_grid(cloud: Path) -> None:
    with open_scene(None, [ELEVATION], SceneOptions(sources={"lidar": [cloud]})) as scene:
        assert scene.sensors == ("elevation",)
        assert scene.grid == cloud_grid([cloud], 1.0)
        tile = scene.read(scene.grid.window)
    alone = LidarSource(cloud, scene.grid, bands=("DEM",))
    data, valid = alone.read(scene.grid.window)
    np.testing.assert_array_equal(tile.valid["elevation"], valid)
    np.testing.assert_array_equal(tile.data["elevation"][:, valid], data[:, valid])
    assert valid.any()


def test_a_cloud_lies_on_the_grid_of_the_rasters(cloud: Path, shared_data: Path) -> None:
    chm = shared_data / "open/idtrees/plots/MLBS_31/CHM.tif"
    sources = {"optical": [chm], "elevation": [cloud]}
    optical = Modality(name="optical", bands=("height",), unit="raw", gsd_m=1.0)
    options = SceneOptions(sources=sources, bands={"optical": ["height"]})
    with open_scene(None, [optical, ELEVATION], options) as scene:
        assert scene.grid.shape == (20, 20)
        assert scene.read(Window(0, 0, 20, 20)).valid["elevation"].any()


def test_a_cloud_without_a_crs_is_told_where_it_lies(shared_data: Path) -> None:
    path = shared_data / "open/readers/laspy/simple.las"
    with pytest.raises(GeoreferenceError) as caught:
        open_scene(path)
    assert "--crs SENSOR=" in caught.value.hint
    options = SceneOptions(crs={"lidar": "EPSG:2991"}, bands={"dem": ["surface", "density"]})
    with open_scene(path, None, options) as scene:
        window = Window(0, 0, scene.grid.rows, 400)
        found, valid = scene.sources["elevation"].read(window)
        assert scene.sources["elevation"].info.bands == ("surface", "density")
        alone = LidarSource(path, scene.grid, bands=("surface", "density"), crs="EPSG:2991")
    np.testing.assert_array_equal(found, alone.read(window)[0])
    assert valid.any()


def test_every_band_of_a_cloud_is_stacked_with_its_unit(cloud: Path, tmp_path: Path) -> None:
    bands = {"elevation": ["ground", "surface", "ndsm", "intensity", "density"]}
    with open_scene(cloud, None, SceneOptions(bands=bands)) as scene:
        stack(scene, tmp_path / "lidar.tif")
        tile = scene.read(scene.grid.window)
    with rasterio.open(tmp_path / "lidar.tif") as src:
        assert src.units == ("m", "m", "m", "1", "points/m2")
        assert src.descriptions[2] == "elevation:ndsm"
        seen = tile.valid["elevation"]
        np.testing.assert_array_equal(src.read()[:, seen], tile.data["elevation"][:, seen])


def test_voids_of_a_cloud_are_filled_as_far_as_was_asked_for(cloud: Path) -> None:
    shares = []
    for cells in (0, 3):
        with open_scene(cloud, [ELEVATION], SceneOptions(fill_voids=cells)) as scene:
            shares.append(scene.read(scene.grid.window).valid["elevation"].mean())
            assert any("at most 3 cells" in text for text in scene.assumptions) == bool(cells)
    assert shares[0] < 0.97 < shares[1]


def test_clouds_and_rasters_of_one_sensor_do_not_mix(cloud: Path, chile: Path) -> None:
    with pytest.raises(UsageError, match="mixes point clouds and rasters"):
        open_scene(None, [ELEVATION], SceneOptions(sources={"elevation": [cloud, chile / "elevation.tif"]}))


def test_screening_leaves_dead_lines_out(chile: Path, tmp_path: Path) -> None:
    with rasterio.open(chile / "sar.tif") as src:
        data = src.read()
        data[:, 100] = data[:, 100].mean()
        with rasterio.open(tmp_path / "sar.tif", "w", **src.profile) as out:
            out.write(data)
            out.descriptions = src.descriptions
    sources = {"sar": [tmp_path / "sar.tif"]}
    with open_scene(None, [SAR], SceneOptions(sources=sources)) as scene:
        assert scene.read(scene.grid.window).valid["sar"].all()
    with open_scene(None, [SAR], SceneOptions(sources=sources, screen=True)) as scene:
        valid = scene.read(scene.grid.window).valid["sar"]
    assert not valid[100].any()
    assert valid.mean() > 0.98
