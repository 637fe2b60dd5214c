"""Rasters on other grids: half-pixel exact, never more valid than they were, the same in every window."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
import rasterio.vrt
from hypothesis import given, settings
from hypothesis import strategies as st
from rasterio.transform import Affine

from mmedge.geo_io.gather import SceneOptions
from mmedge.geo_io.scene import open_scene
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


@pytest.mark.parametrize(
    "there",
    [
        Affine(10, 0, 499903, 0, 10, 4999003),  # south-up
        Affine(8, 6, 499500, 6, -8, 4999700),  # rotated
        Affine(5, 0, 499903, 0, -20, 5000107),  # twice as fine in x, twice as coarse in y
    ],
)
def test_a_ramp_keeps_its_values_under_any_affine(tmp_path: Path, there: Affine) -> None:
    here = Affine(10, 0, 500000, 0, -10, 5000000)
    sar = raster(tmp_path / "sar.tif", np.zeros((2, 60, 60)) - 5, here, names=("VV", "VH"))
    col, row = np.meshgrid(np.arange(250) + 0.5, np.arange(250) + 0.5)
    x, y = there.a * col + there.b * row + there.c, there.d * col + there.e * row + there.f
    dem = raster(tmp_path / "dem.tif", (0.3 * (x - 500000) - 0.7 * (y - 5000000))[None], there, names=("DEM",))
    options = SceneOptions(sources={"sar": [sar], "elevation": [dem]}, reference="sar")
    with open_scene(None, [SAR, ELEVATION], options) as scene:
        tile = scene.read(Window(0, 0, 60, 60))
    assert tile.valid["elevation"].mean() > 0.9
    off = np.abs(tile.data["elevation"][0] - ramp(here, 60, 60)[0])
    assert off[tile.valid["elevation"]].max() < 5e-3


def test_classes_are_never_averaged(tmp_path: Path) -> None:
    here, there = Affine(10, 0, 500000, 0, -10, 5000000), Affine(4, 0, 500001.3, 0, -4, 4999998.7)
    rng = np.random.default_rng(3)
    classes = rng.choice([1, 40, 200], (1, 160, 160)).astype(np.uint8)
    path = tmp_path / "classes.tif"
    with rasterio.open(
        path, "w", driver="GTiff", count=1, height=160, width=160, dtype="uint8", crs=UTM, transform=there
    ) as out:
        out.write(classes)
        out.write_colormap(1, {1: (255, 0, 0), 40: (0, 255, 0), 200: (0, 0, 255)})
    sar = raster(tmp_path / "sar.tif", np.zeros((2, 60, 60)) - 5, here, names=("VV", "VH"))
    options = SceneOptions(sources={"sar": [sar], "cover": [path]}, bands={"cover": ["class"]}, reference="sar")
    with open_scene(None, None, options) as scene:
        tile = scene.read(Window(0, 0, 60, 60))
    row, col = (np.floor(((np.arange(60) + 0.5) * 10 - 1.3) / 4).astype(int) for _ in range(2))
    assert tile.valid["cover"].all()
    np.testing.assert_array_equal(tile.data["cover"][0], classes[0][np.ix_(row, col)])


def test_block_means_of_very_fine_pixels_are_formed_a_few_at_a_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    here, fine = Affine(10, 0, 500000, 0, -10, 5000000), Affine(0.5, 0, 500000, 0, -0.5, 5000000)
    values = np.random.default_rng(1).normal(size=(1, 800, 800))
    values[:, 100:260, 300:420] = np.nan
    sar = raster(tmp_path / "sar.tif", np.zeros((2, 40, 40)) - 5, here, names=("VV", "VH"))
    dem = raster(tmp_path / "dem.tif", values, fine, names=("DEM",))
    options = SceneOptions(sources={"sar": [sar], "elevation": [dem]}, reference="sar")
    with open_scene(None, [SAR, ELEVATION], options) as scene:
        whole = scene.read(Window(0, 0, 40, 40))
        monkeypatch.setattr("mmedge.geo_io.rasters.align.BLOCK_READ_PX", 3000)
        parts = scene.read(Window(0, 0, 40, 40))
    means = values[0].reshape(40, 20, 40, 20).mean(axis=(1, 3))
    np.testing.assert_array_equal(parts.data["elevation"], whole.data["elevation"])
    np.testing.assert_array_equal(parts.valid["elevation"], whole.valid["elevation"])
    assert (~whole.valid["elevation"]).sum() == 8 * 6
    np.testing.assert_allclose(
        whole.data["elevation"][0][whole.valid["elevation"]], means[whole.valid["elevation"]], atol=1e-5
    )


@given(
    hole=st.tuples(st.integers(0, 40), st.integers(0, 40), st.integers(1, 15), st.integers(1, 15)),
    dx=st.floats(-9, 9),
    dy=st.floats(-9, 9),
    halo=st.integers(0, 30),
)
@settings(max_examples=40, deadline=None)
def test_a_pixel_is_valid_exactly_where_the_source_pixel_that_it_falls_into_is(
    tmp_path_factory: pytest.TempPathFactory, hole: tuple[int, int, int, int], dx: float, dy: float, halo: int
) -> None:
    folder = tmp_path_factory.mktemp("holes")
    here, there = Affine(10, 0, 500000, 0, -10, 5000000), Affine(10, 0, 500000 + dx, 0, -10, 5000000 + dy)
    seen = np.ones((50, 50), bool)
    seen[hole[0] : hole[0] + hole[2], hole[1] : hole[1] + hole[3]] = False
    sar = raster(folder / "sar.tif", np.zeros((2, 50, 50)) - 5, here, names=("VV", "VH"))
    dem = raster(folder / "dem.tif", np.where(seen, 7.0, np.nan)[None], there, names=("DEM",))
    with open_scene(
        None, [SAR, ELEVATION], SceneOptions(sources={"sar": [sar], "elevation": [dem]}, reference="sar")
    ) as scene:
        tile = scene.read(scene.grid.window.grow(halo))
    row, col = (np.arange(50) * 10 + 5 + dy) / 10, (np.arange(50) * 10 + 5 - dx) / 10
    at = np.floor(np.stack(np.meshgrid(row, col, indexing="ij"))).astype(int)
    inside = ((at >= 0) & (at < 50)).all(axis=0)
    wanted = inside & seen[tuple(np.clip(at, 0, 49))]
    # The edge between two pixels belongs to either of them.
    edge = (np.abs(row - np.rint(row)) < 0.01)[:, None] | (np.abs(col - np.rint(col)) < 0.01)[None]
    core = tile.valid["elevation"][halo : halo + 50, halo : halo + 50]
    np.testing.assert_array_equal(core[~edge], wanted[~edge])
    assert tile.valid["elevation"].sum() == core.sum()
    assert (tile.data["elevation"][:, halo : halo + 50, halo : halo + 50][:, core].astype(np.float64) - 7 < 1e-5).all()
