"""The same map from numpy arrays and from xarray objects, nothing written."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
import xarray as xr

import mmedge
from mmedge.errors import BandError, GeoreferenceError, UnitError, UsageError

ORDER = ("optical", "sar", "elevation")


@pytest.fixture(scope="module")
def scene(chile: Path) -> dict[str, Any]:
    """Arrays, affine and CRS of the example."""
    with rasterio.open(chile / "scene.tif") as src:
        names = [d.split(":") for d in src.descriptions]
        data = src.read()
        arrays = {
            sensor: mmedge.SensorArray(
                data=data[[s == sensor for s, _ in names]], bands=[b for s, b in names if s == sensor]
            )
            for sensor in ORDER
        }
        return {"arrays": arrays, "transform": src.transform, "crs": src.crs}


@pytest.fixture(scope="module")
def written(chile: Path, small: Path, tmp_path_factory: pytest.TempPathFactory) -> Any:
    record = mmedge.infer(chile / "scene.tif", tmp_path_factory.mktemp("map") / "map.tif", model=small)
    with rasterio.open(record.outputs.map) as src:
        return src.read(1)


def test_arrays_give_the_map_that_files_give(scene: dict[str, Any], small: Path, written: Any) -> None:
    made = mmedge.map_arrays(**scene, model=small)
    np.testing.assert_array_equal(made.classes, written)
    assert (made.sensors == 7).all()
    assert made.grid.shape == (224, 224)


def test_a_dataset_of_bands_gives_the_same_and_goes_back(scene: dict[str, Any], small: Path, written: Any) -> None:
    a, _, c, _, e, f = tuple(scene["transform"])[:6]
    coords = {
        "y": f + e * (np.arange(224) + 0.5),
        "x": c + a * (np.arange(224) + 0.5),
        "spatial_ref": ((), 0, {"crs_wkt": scene["crs"].to_wkt()}),
    }
    bands = {band: (("y", "x"), values) for s in scene["arrays"].values() for band, values in zip(s.bands, s.data)}  # noqa: B905
    made = mmedge.map_xarray(xr.Dataset(bands, coords), model=small)
    np.testing.assert_array_equal(made.classes, written)
    back = made.to_xarray()
    assert back["classes"].dims == ("y", "x")
    np.testing.assert_allclose(back["x"], coords["x"])
    assert back["spatial_ref"].attrs["crs_wkt"] == made.grid.crs


def test_data_arrays_by_sensor(scene: dict[str, Any], small: Path) -> None:
    sar = scene["arrays"]["sar"]
    y, x = 5700088.3 - 10 * np.arange(224), 717734.8 + 10 * np.arange(224)
    array = xr.DataArray(sar.data, dims=("band", "y", "x"), coords={"band": ["vv", "vh"], "y": y, "x": x})
    array.attrs["crs"] = "EPSG:32718"
    made = mmedge.map_xarray({"radar": array}, model=small)
    assert (made.sensors == 0b010).all()


def test_a_mask_and_nan_are_obeyed(scene: dict[str, Any], small: Path) -> None:
    data = np.array(scene["arrays"]["sar"].data)
    data[0, :5] = np.nan
    valid = np.ones((224, 224), bool)
    valid[:, :7] = False
    arrays = {"sar": mmedge.SensorArray(data=data, bands=["VV", "VH"], valid=valid)}
    made = mmedge.map_arrays(arrays, transform=scene["transform"], crs=scene["crs"], model=small)
    seen = np.ones((224, 224), bool)
    seen[:5], seen[:, :7] = False, False
    np.testing.assert_array_equal(made.classes != 255, seen)


def test_mistakes(scene: dict[str, Any], small: Path) -> None:
    sar, place = scene["arrays"]["sar"], {"transform": scene["transform"], "crs": scene["crs"], "model": small}
    linear = mmedge.SensorArray(data=10 ** (np.asarray(sar.data) / 10), bands=sar.bands)
    for arrays, error in [
        ({"sar": mmedge.SensorArray(data=sar.data[:1], bands=["VV"])}, BandError),
        ({"sar": mmedge.SensorArray(data=sar.data, bands=["VV"])}, UsageError),
        ({"thermal": sar}, BandError),
        ({"sar": linear}, UnitError),
        ({"sar": sar, "elevation": mmedge.SensorArray(data=np.zeros((1, 9, 9)), bands=["DEM"])}, UsageError),
    ]:
        with pytest.raises(error):
            mmedge.map_arrays(arrays, **place)
    with pytest.raises(GeoreferenceError):
        mmedge.map_arrays({"sar": sar}, transform=scene["transform"], crs=None, model=small)
