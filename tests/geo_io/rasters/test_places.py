"""Where pixels of one grid lie in another: against every pixel projected by itself, on the Earth's awkward places."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
from hypothesis import given, settings
from hypothesis import strategies as st
from rasterio.transform import Affine

from mmedge.errors import GeoreferenceError
from mmedge.geo_io.crs import check_on_earth, horizontal, project
from mmedge.geo_io.gather import SceneOptions
from mmedge.geo_io.rasters.align import pixel_shift
from mmedge.geo_io.rasters.header import inspect_raster
from mmedge.geo_io.rasters.places import ROUGH_PX, PlaceMap, reduction
from mmedge.geo_io.scene import open_scene
from mmedge.grid import Grid, Window


def wkt(code: str) -> str:
    return str(rasterio.CRS.from_string(code).to_wkt())


def grid(code: str, rows: int, cols: int, *transform: float) -> Grid:
    return Grid(rows, cols, transform, wkt(code))  # type: ignore[arg-type]


WORLD = grid("EPSG:4326", 1800, 3600, 0.1, 0, -180, 0, -0.1, 90)
WORLD_360 = grid("EPSG:4326", 1800, 3600, 0.1, 0, 0, 0, -0.1, 90)
WORLD_UP = grid("EPSG:4326", 1800, 3600, 0.1, 0, -180, 0, 0.1, -90)
MERCATOR = grid("EPSG:3857", 2000, 2000, 20037.5, 0, -20037508, 0, -20037.5, 20037508)
DATELINE_UTM = grid("EPSG:32660", 400, 400, 2000, 0, 300000, 0, -2000, 6000000)
NORTH_POLE = grid("EPSG:3995", 300, 300, 10000, 0, -1500000, 0, -10000, 1500000)
SOUTH_POLE = grid("EPSG:3031", 300, 300, 10000, 0, -1500000, 0, -10000, 1500000)
NEAR_POLE = grid("EPSG:3413", 200, 200, 10, 0, -1000, 0, -10, 1000)
ROTATED = grid("EPSG:32633", 200, 150, 8, 6, 500000, 6, -8, 5500000)
FINE_DEGREES = grid("EPSG:4326", 3000, 3000, 1e-4, 0, 14.9, 0, -1e-4, 49.8)

PAIRS = {
    "world under a UTM zone across 180": (WORLD, DATELINE_UTM),
    "0..360 under a UTM zone across 180": (WORLD_360, DATELINE_UTM),
    "south-up world under a UTM zone": (WORLD_UP, DATELINE_UTM),
    "UTM zone across 180 under the world": (DATELINE_UTM, WORLD),
    "Mercator under a UTM zone across 180": (MERCATOR, DATELINE_UTM),
    "world around the north pole": (WORLD, NORTH_POLE),
    "world around the south pole": (WORLD, SOUTH_POLE),
    "world at the very pole": (WORLD, NEAR_POLE),
    "world under 0..360": (WORLD, WORLD_360),
    "rotated under degrees": (ROTATED, FINE_DEGREES),
    "degrees under rotated": (FINE_DEGREES, ROTATED),
}


def pixel_by_pixel(source: Grid, reference: Grid, window: Window) -> tuple[Any, Any]:
    """Every pixel projected, and the nearest of the longitudes that are the same meridian."""
    row, col = np.mgrid[window.row : window.row + window.height, window.col : window.col + window.width] + 0.5
    x, y = project(reference.crs, source.crs, *reference.xy(row, col))
    options = [source.rowcol(x + turn, y) for turn in ((-360, 0, 360) if "3600" in str(source.cols) else (0,))]
    middle = source.cols / 2
    best = np.argmin([np.nan_to_num(np.abs(c - middle), nan=np.inf) for _, c in options], axis=0)
    return tuple(np.choose(best, [o[axis] for o in options]) for axis in (0, 1))  # type: ignore[return-value]


@pytest.mark.parametrize("name", PAIRS)
def test_interpolated_places_are_where_each_pixel_is(name: str) -> None:
    source, reference = PAIRS[name]
    window = Window(
        reference.rows // 3, reference.cols // 3, min(120, reference.rows // 2), min(110, reference.cols // 2)
    )
    found, wanted = PlaceMap(source, reference).at(window), pixel_by_pixel(source, reference, window)
    assert np.isfinite(wanted[0]).any()
    for values, true in zip(found, wanted, strict=True):
        np.testing.assert_array_equal(np.isfinite(values), np.isfinite(true))
        # On the meridian opposite the source's middle, left and right edge are one place.
        off = np.abs(values - true)
        off = np.minimum(off, np.abs(off - source.cols)) if source in (WORLD, WORLD_360, WORLD_UP) else off
        assert np.nanmax(off) <= 2 * ROUGH_PX


@given(
    st.sampled_from(list(PAIRS)),
    st.tuples(st.integers(0, 149), st.integers(0, 149), st.integers(1, 60), st.integers(1, 60)),
)
@settings(max_examples=60, deadline=None)
def test_a_place_does_not_depend_on_the_window(name: str, box: tuple[int, int, int, int]) -> None:
    source, reference = PAIRS[name]
    place = PlaceMap(source, reference)
    window = Window(*box).intersect(reference.window)
    around = window.grow(23).intersect(reference.window)
    for part, whole in zip(place.at(window), place.at(around), strict=True):
        np.testing.assert_array_equal(part, whole[window.within(around)])


def geostationary(shared_data: Path) -> Grid:
    return inspect_raster(shared_data / "open/readers/rasterio/goes.tif").grid


def test_corners_of_a_geostationary_image_are_nowhere(shared_data: Path) -> None:
    goes = geostationary(shared_data)
    row, _ = PlaceMap(WORLD, goes).at(Window(0, 0, 542, 542))
    true = pixel_by_pixel(WORLD, goes, goes.window)[0]
    assert not np.isfinite(row[:40, :40]).any()
    assert np.isfinite(row[200:340, 200:340]).all()
    assert not (np.isfinite(row) & ~np.isfinite(true)).any()
    # Cells of 16 pixels that touch the Earth with less than a corner are given up.
    assert (np.isfinite(true) & ~np.isfinite(row)).mean() < 0.01


def test_non_square_pixels_are_reduced_along_each_axis() -> None:
    flat = grid("EPSG:32633", 400, 100, 10, 0, 500000, 0, -2.5, 5500000)
    assert reduction(flat, grid("EPSG:32633", 100, 100, 10, 0, 500000, 0, -10, 5500000)) == (4, 1)
    assert reduction(grid("EPSG:32633", 100, 100, 10, 0, 500000, 0, -10, 5500000), flat) == (1, 1)


def test_a_shift_by_a_full_turn_is_no_plain_copy() -> None:
    assert pixel_shift(WORLD, WORLD) == (0, 0)
    assert pixel_shift(WORLD, WORLD_360) is None
    part = grid("EPSG:4326", 100, 100, 0.1, 0, 10, 0, -0.1, 50)
    assert pixel_shift(WORLD, part) == (400, 1900)


def test_a_compound_crs_gives_its_horizontal_part(shared_data: Path) -> None:
    dem = inspect_raster(shared_data / "open/readers/sarsen/Rome-30m-DEM.tif")
    assert rasterio.CRS.from_wkt(dem.grid.crs).to_epsg() == 4326
    assert horizontal(wkt("EPSG:32633")) == wkt("EPSG:32633")
    tricky = 'COMPD_CS["a [b] ""c"", d",PROJCS["x [",UNIT["metre",1]],VERT_CS["h",UNIT["metre",1]]]'
    assert horizontal(tricky) == 'PROJCS["x [",UNIT["metre",1]]'


def test_other_bodies_are_refused_and_odd_crs_of_the_earth_are_not(shared_data: Path) -> None:
    readers = shared_data / "open/readers"
    europa = readers / "rio_tiler/cog_nonearth.tif"
    with pytest.raises(GeoreferenceError, match=r"another body than the Earth: .* 1561 km"):
        open_scene(None, None, SceneOptions(sources={"infrared": [europa]}))
    for name in (
        "rasterio/float_raster_with_nodata.tif",  # IGNF
        "rasterio/test_esri_wkt.tif",  # ESRI
        "rasterio/rgb-byte-tenth.tif",  # WKT alone
        "rasterio/goes.tif",  # geostationary
        "rio_tiler/cog_scale.tif",  # unknown datum
        "stars/olinda_dem_utm25s.tif",  # a code that does not exist
        "sarsen/Rome-30m-DEM.tif",  # compound
    ):
        check_on_earth(inspect_raster(readers / name).grid.crs, name)
    with pytest.raises(GeoreferenceError, match="local CRS"):
        check_on_earth('LOCAL_CS["site",UNIT["metre",1]]', "site.tif")


@pytest.mark.parametrize(("source", "reference"), [(WORLD, DATELINE_UTM), (WORLD_360, NORTH_POLE)])
def test_a_world_raster_is_read_across_180_and_around_a_pole(tmp_path: Path, source: Grid, reference: Grid) -> None:
    """Pixels hold their own longitude and latitude: they are found again under the other grid."""
    row, col = np.mgrid[: source.rows, : source.cols] + 0.5
    lon, lat = source.xy(row, col)
    for name, values, g in (("dem", np.cos(np.radians(lon)), source), ("sar", np.zeros(reference.shape), reference)):
        bands = np.stack([values, lat]) if name == "dem" else np.stack([values - 5, values - 9])
        with rasterio.open(
            tmp_path / f"{name}.tif", "w", driver="GTiff", count=2, height=g.rows, width=g.cols, dtype="float32",
            crs=g.crs, transform=Affine(*g.transform),
        ) as out:  # fmt: skip
            out.write(bands.astype(np.float32))
    options = SceneOptions(
        sources={"sar": [tmp_path / "sar.tif"], "world": [tmp_path / "dem.tif"]},
        bands={"sar": ["VV", "VH"], "world": ["cos", "lat"]},
        reference="sar",
    )
    with open_scene(None, None, options) as scene:
        tile = scene.read(reference.window)
    row, col = np.mgrid[: reference.rows, : reference.cols] + 0.5
    lon, lat = project(reference.crs, source.crs, *reference.xy(row, col))
    assert tile.valid["world"].all()
    inner = np.abs(lat) < 89.5
    np.testing.assert_allclose(tile.data["world"][0][inner], np.cos(np.radians(lon))[inner], atol=2e-3)
    np.testing.assert_allclose(tile.data["world"][1][inner], lat[inner], atol=2e-2)
