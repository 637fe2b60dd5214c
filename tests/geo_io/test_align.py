"""Rasters on other grids: half-pixel exact, never more valid than they were, the same in every window."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
import rasterio.vrt
from rasterio.transform import Affine

from mmedge.geo_io.scene import SceneOptions, open_scene
from mmedge.grid import Window
from mmedge.modality import Modality

ELEVATION = Modality(name="elevation", bands=("DEM",), unit="m", gsd_m=10)
SAR = Modality(name="sar", bands=("VV", "VH"), unit="dB", gsd_m=10)
UTM = "EPSG:32633"


def raster(
    path: Path, data: Any, transform: Affine, *, names: tuple[str, ...], crs: str = UTM, nodata: float = np.nan
) -> Path:
    bands, rows, cols = data.shape
    with rasterio.open(
        path,
        "w",
        driver="GTiff",
        count=bands,
        height=rows,
        width=cols,
        dtype="float32",
        crs=crs,
        transform=transform,
        nodata=nodata,
    ) as out:
        out.write(data.astype(np.float32))
        out.descriptions = names
    return path


def ramp(transform: Affine, rows: int, cols: int) -> Any:
    """Values that are linear in the coordinates of pixel centres."""
    col, row = np.meshgrid(np.arange(cols) + 0.5, np.arange(rows) + 0.5)
    x, y = transform.c + transform.a * col, transform.f + transform.e * row
    return (0.3 * (x - 500000) - 0.7 * (y - 5000000))[None]


@pytest.mark.parametrize(("pixel", "dx", "dy"), [(10, 3.0, -4.0), (10, 5.0, 5.0), (20, 0.0, 0.0), (7, 1.0, 2.0)])
def test_a_ramp_keeps_its_values_on_another_grid(tmp_path: Path, pixel: float, dx: float, dy: float) -> None:
    here = Affine(10, 0, 500000, 0, -10, 5000000)
    there = Affine(pixel, 0, 499900 + dx, 0, -pixel, 5000100 + dy)
    sar = raster(tmp_path / "sar.tif", np.zeros((2, 60, 60)) - 5, here, names=("VV", "VH"))
    rows = round(900 / pixel)
    dem = raster(tmp_path / "dem.tif", ramp(there, rows, rows), there, names=("DEM",))
    options = SceneOptions(sources={"sar": [sar], "elevation": [dem]}, reference="sar")
    with open_scene(None, [SAR, ELEVATION], options) as scene:
        tile = scene.read(Window(0, 0, 60, 60))
    assert tile.valid["elevation"].all()
    np.testing.assert_allclose(tile.data["elevation"], ramp(here, 60, 60), atol=2e-3)


def test_the_window_never_changes_a_resampled_pixel(chile: Path, tmp_path: Path) -> None:
    degrees = tmp_path / "degrees.tif"
    with rasterio.open(chile / "elevation.tif") as src, rasterio.vrt.WarpedVRT(src, crs="EPSG:4326") as vrt:
        raster(degrees, vrt.read(), vrt.transform, names=("DEM",), crs="EPSG:4326", nodata=0)
    options = SceneOptions(sources={"sar": [chile / "sar.tif"], "elevation": [degrees]}, reference="sar")
    with open_scene(None, [SAR, ELEVATION], options) as scene:
        whole = scene.read(Window(0, 0, 224, 224))
        for window in (Window(0, 0, 31, 17), Window(100, 90, 64, 64), Window(180, 200, 60, 60)):
            part, inside = scene.read(window), window.intersect(scene.grid.window)
            cut = inside.within(window)
            np.testing.assert_array_equal(
                part.data["elevation"][0][cut], whole.data["elevation"][0][inside.within(whole.window)]
            )
            np.testing.assert_array_equal(
                part.valid["elevation"][cut], whole.valid["elevation"][inside.within(whole.window)]
            )


def test_validity_does_not_grow_when_resampled(tmp_path: Path) -> None:
    here, there = Affine(10, 0, 500000, 0, -10, 5000000), Affine(10, 0, 500004, 0, -10, 5000004)
    dem = np.ones((1, 60, 60))
    dem[:, 20:30, 20:30] = np.nan
    sar = raster(tmp_path / "sar.tif", np.zeros((2, 60, 60)) - 5, here, names=("VV", "VH"))
    hole = raster(tmp_path / "dem.tif", dem, there, names=("DEM",))
    options = SceneOptions(sources={"sar": [sar], "elevation": [hole]}, reference="sar")
    with open_scene(None, [SAR, ELEVATION], options) as scene:
        valid = scene.read(Window(0, 0, 60, 60)).valid["elevation"]
    assert (~valid[10:40, 10:40]).sum() >= 100


def test_radar_is_averaged_as_power_not_as_db(tmp_path: Path) -> None:
    here, fine = Affine(10, 0, 500000, 0, -10, 5000000), Affine(5, 0, 500000, 0, -5, 5000000)
    checker = np.indices((40, 40)).sum(axis=0) % 2
    db = np.where(checker == 0, 0.0, -20.0)[None].repeat(2, axis=0)
    sar = raster(tmp_path / "sar.tif", db, fine, names=("VV", "VH"))
    dem = raster(tmp_path / "dem.tif", np.ones((1, 20, 20)), here, names=("DEM",))
    options = SceneOptions(sources={"sar": [sar], "elevation": [dem]}, reference="elevation")
    with open_scene(None, [SAR, ELEVATION], options) as scene:
        mean = scene.read(Window(2, 2, 10, 10)).data["sar"]
    np.testing.assert_allclose(mean, 10 * np.log10((1 + 0.01) / 2), atol=1e-3)


def test_a_raster_of_a_part_of_the_scene_is_invalid_elsewhere(tmp_path: Path) -> None:
    here = Affine(10, 0, 500000, 0, -10, 5000000)
    sar = raster(tmp_path / "sar.tif", np.zeros((2, 60, 60)) - 5, here, names=("VV", "VH"))
    corner = raster(tmp_path / "dem.tif", np.ones((1, 20, 30)), Affine(10, 0, 500450, 0, -10, 4999500), names=("DEM",))
    options = SceneOptions(sources={"sar": [sar], "elevation": [corner]}, reference="sar")
    with open_scene(None, [SAR, ELEVATION], options) as scene:
        valid = scene.read(Window(0, 0, 60, 60)).valid["elevation"]
    assert valid[50:, 45:].all()
    assert valid.sum() == 10 * 15
