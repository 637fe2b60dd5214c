"""A point cloud is a sensor of a scene like any other, and masks and screening narrow every sensor."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import rasterio

from mmedge.errors import UsageError
from mmedge.geo_io.cloud import cloud_grid
from mmedge.geo_io.lidar import LidarSource
from mmedge.geo_io.scene import SceneOptions, open_scene
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
