"""Bands of point clouds, compared cell by cell with laspy and plain Python loops on real files."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import laspy
import numpy as np
import pytest
import rasterio
from hypothesis import given, settings
from hypothesis import strategies as st
from rasterio.crs import CRS
from rasterio.warp import transform

from mmedge.errors import BandError, GeoreferenceError, SceneError, UsageError
from mmedge.geo_io.lidar import LidarSource
from mmedge.geo_io.pointclouds import binning, las_chunks
from mmedge.geo_io.pointclouds.cloud import open_cloud
from mmedge.geo_io.pointclouds.point_cloud import cloud_grid
from mmedge.grid import Grid, Window

DATA = Path(__file__).parents[1] / "data" / "lidar"
OPEN = Path(__file__).parents[3] / "shared" / "data" / "open"
READERS = OPEN / "readers"
FT, US_FT = 0.3048, 1200 / 3937
ALL = ("ground", "surface", "ndsm", "intensity", "density")

# File, its points, metres per unit of z, ground by "class" or "filter", an EPSG code to give where the file has no
# usable CRS (None: the file's own), and a part of a warning. Units and counts
# were read from the files by hand.
FILES = [
    ("laspy/1_4_w_evlr.las", 1000, US_FT, "class", None, "read as feet"),
    ("laspy/1_4_w_evlr.laz", 1000, US_FT, "class", None, "read as feet"),
    ("laspy/append-bug.laz", 37805, 1, "class", None, ""),
    ("laspy/autzen_geo_proj.las", 106, FT, "class", None, ""),
    ("laspy/extra.laz", 1065, 1, "class", 2993, ""),
    ("laspy/extrabytes.las", 1065, 1, "class", 2993, ""),
    ("laspy/file_with_both_wkt_and_geotiff_vlrs.las", 25408, US_FT, "class", None, ""),
    ("laspy/fullwave.laz", 10750, 1, "filter", None, ""),
    ("laspy/plane.laz", 28185, 1, "filter", None, ""),
    ("laspy/simple.copc.laz", 1065, US_FT, "class", None, ""),
    ("laspy/simple.las", 1065, 1, "class", 2993, ""),
    ("laspy/simple.laz", 1065, 1, "class", 2993, ""),
    ("laspy/simple1_1.las", 1065, 1, "class", 2993, ""),
    ("laspy/simple1_3.las", 999, 1, "filter", 32632, "bounds in its header are wrong"),
    ("laspy/simple_with_page.copc.laz", 1065, US_FT, "class", None, ""),
    ("laspy/test1_4.las", 1000, US_FT, "class", None, "read as feet"),
    ("laspy/unregistered_extra_bytes.las", 4, 1, "filter", 32633, ""),
    ("pdal/autzen/autzen-dd.las", 1065, 1, "class", None, ""),
    ("pdal/copc/lone-star.copc.laz", 518862, 1, "filter", 32613, ""),
    ("pdal/las/1.2-empty-geotiff-vlrs.las", 43, 1, "filter", 32633, ""),
    ("pdal/las/bad-geotiff-keys.las", 10, 1, "class", 32617, ""),
    ("pdal/las/bad_vlr_count.las", 10, 1, "class", None, "VLR 3 of 3 does not fit before the points (at byte 429)"),
    ("pdal/las/epsg_4326.las", 5380, 1, "filter", None, ""),
    ("pdal/las/gps-time-nan.las", 1, 1, "filter", 32633, ""),
    ("pdal/las/hextest.las", 8, 1, "filter", 32633, ""),
    ("pdal/las/lots_of_vlr.las", 1, US_FT, "filter", None, ""),
    ("pdal/las/no-points.las", 0, 1, "filter", None, "holds no points"),
    ("pdal/las/noise-dirty.las", 1065, 1, "class", 2993, ""),
    ("pdal/las/test_epsg_4047.las", 10, 1, "class", None, ""),
    ("pdal/las/test_epsg_4326_axis.las", 10, 1, "class", None, ""),
    ("pdal/las/warsaw_small.las", 3000, 1, "class", 2178, ""),
    ("pdal/las/wontcompress3.las", 1000, 1, "class", None, ""),
    ("pdal/laz/autzen_trim.laz", 110000, FT, "class", None, ""),
    ("pdal/permutations/1.0_0.las", 1, 1, "class", None, ""),
    ("pdal/permutations/1.0_1.las", 1, 1, "class", None, ""),
    ("pdal/permutations/1.1_0.las", 1, 1, "class", None, ""),
    ("pdal/permutations/1.1_1.las", 1, 1, "class", None, ""),
    ("pdal/permutations/1.2_0.las", 1, 1, "class", None, ""),
    ("pdal/permutations/1.2_1.las", 1, 1, "class", None, ""),
    ("pdal/permutations/1.2_2.las", 1, 1, "class", None, ""),
    ("pdal/permutations/1.2_3.las", 1, 1, "class", None, ""),
]
BROKEN = ["pdal/permutations/1.2-no-points.las"]  # 1065 points claimed, none there


def shared(path: Path) -> Path:
    if not path.exists():
        pytest.skip(f"{path.relative_to(OPEN.parents[2])} is not here: the shared data are not part of the repository")
    return path


def points_of(path: Path) -> laspy.LasData:
    with laspy.open(path, laz_backend=laspy.LazBackend.Lazrs) as reader:
        return reader.read()


def grid_over(las: laspy.LasData, crs: CRS, rows: int = 7, cols: int = 5) -> Grid:
    """Cells in the cloud's own CRS that its border points do not sit on."""
    x, y = np.array(las.x), np.array(las.y)
    west, north = (x.min() if len(x) else 0.0), (y.max() if len(y) else 0.0)
    width = max((x.max() - west if len(x) else 0.0) * 1.01, 1e-3) / cols
    height = max((north - y.min() if len(y) else 0.0) * 1.01, 1e-3) / rows
    return Grid(rows, cols, (width, 0.0, west - width / 300, 0.0, -height, north + height / 300), crs.to_wkt())


def cell_area(grid: Grid) -> float:
    """Square metres of the middle cell; where the CRS counts in degrees, of its outline in an equal-area projection."""
    crs = CRS.from_wkt(grid.crs)
    if crs.is_projected:
        return abs(grid.transform[0] * grid.transform[4]) * crs.linear_units_factor[1] ** 2
    row, col = grid.rows // 2, grid.cols // 2
    lon, lat = grid.xy(row + 0.5, col + 0.5)
    corners = [grid.xy(row + dr, col + dc) for dr, dc in ((0, 0), (0, 1), (1, 1), (1, 0))]
    local = f"+proj=laea +lat_0={lat} +lon_0={lon} +ellps=WGS84"
    x, y = (np.array(v) for v in transform(grid.crs, local, *zip(*corners, strict=True)))
    return abs(float(x @ np.roll(y, 1) - y @ np.roll(x, 1))) / 2


def reference(las: laspy.LasData, grid: Grid, unit_m: float, band: str) -> tuple[np.ndarray, np.ndarray]:
    """A band by dictionary and loop."""
    a, _, c, _, e, f = grid.transform
    cells: dict[tuple[int, int], list[float]] = {}
    kinds = np.array(las.classification)
    usable = ~np.isin(kinds, (7, 18)) & (np.array(las.withheld) == 0)
    if band == "ground":
        usable &= (kinds == 2) | ((kinds == 8) & (las.point_format.id < 6))
    elif band in ("surface", "intensity"):
        usable &= np.array(las.return_number) <= 1
    values = np.array(las.intensity, float) if band == "intensity" else np.array(las.z) * unit_m
    for x, y, value in zip(np.array(las.x)[usable], np.array(las.y)[usable], values[usable], strict=True):
        cells.setdefault((int((y - f) / e + 1e-6), int((x - c) / a + 1e-6)), []).append(value)
    pick = {"ground": np.mean, "surface": max, "intensity": np.mean, "density": len}[band]
    area = cell_area(grid) if band == "density" else 1.0
    out, valid = np.zeros(grid.shape), np.zeros(grid.shape, bool)
    for (row, col), found in cells.items():
        out[row, col], valid[row, col] = pick(found) / area, True
    return out, valid


@pytest.mark.parametrize(("name", "count", "unit_m", "ground", "epsg", "warning"), FILES, ids=[f[0] for f in FILES])
def test_every_readers_file_grids_as_laspy_says(
    name: str, count: int, unit_m: float, ground: str, epsg: int | None, warning: str
) -> None:
    path = shared(READERS / name)
    las = points_of(path)
    crs = f"EPSG:{epsg}" if epsg else None
    cloud = open_cloud(path, crs=crs, z_unit_m=None, swap_xy=False)
    assert (len(las), cloud.crs.z_unit_m) == (count, pytest.approx(unit_m, rel=1e-9))
    grid = grid_over(las, CRS.from_wkt(cloud.crs.wkt))
    with LidarSource(path, grid, crs=crs) as source:
        assert any("morphological" in note for note in source.info.assumptions) == (ground == "filter")
        assert any(warning in text for text in source.info.warnings) if warning else not source.info.warnings
    for band in ("ground", "surface", "intensity", "density"):
        with LidarSource(path, grid, bands=[band], crs=crs, ground="class") as source:
            data, valid = source.read(grid.window)
        expected, known = reference(las, grid, unit_m, band)
        assert data.dtype == np.float32
        np.testing.assert_array_equal(valid, known, err_msg=band)
        rtol = 1e-4 if band == "density" else 3e-7
        np.testing.assert_allclose(data[0], expected, rtol=rtol, atol=2e-4, err_msg=band)


@pytest.mark.parametrize("name", [name for name, *_, epsg, _ in FILES if epsg])
def test_a_file_without_a_usable_crs_is_refused_with_a_hint(name: str) -> None:
    path = shared(READERS / name)
    with pytest.raises(GeoreferenceError, match="CRS") as caught:
        open_cloud(path, crs=None, z_unit_m=None, swap_xy=False)
    assert path.name in str(caught.value)
    assert "crs=" in caught.value.hint


@pytest.mark.parametrize("name", BROKEN)
def test_a_broken_file_is_refused_with_its_byte_offset(name: str) -> None:
    path = shared(READERS / name)
    with pytest.raises(SceneError, match=r"1065 points of 34 bytes.*at byte 229"):
        open_cloud(path, crs="EPSG:32633", z_unit_m=None, swap_xy=False)


def test_the_table_names_every_point_cloud_of_the_shared_folder() -> None:
    found = {str(path.relative_to(READERS)) for path in shared(READERS).rglob("*.la[sz]")}
    assert found == {name for name, *_ in FILES} | set(BROKEN)


def plot_grid(cell: float = 1.0) -> Grid:
    """Plot OSBS_22, 20 m x 20 m."""
    with rasterio.open(DATA / "OSBS_22_CHM.tif") as chm:
        size = round(20 / cell)
        return Grid(size, size, (cell, 0.0, chm.bounds.left, 0.0, -cell, chm.bounds.top), chm.crs.to_wkt())


def simple(kind: str = "copc.laz", **options: object) -> LidarSource:
    grid = cloud_grid(DATA / "simple.copc.laz", 20)
    return LidarSource(DATA / f"simple.{kind}", grid, bands=ALL, crs="EPSG:2991", z_unit_m=US_FT, **options)  # type: ignore[arg-type]


@st.composite
def windows(draw: st.DrawFn, rows: int, cols: int) -> Window:
    row, col = draw(st.integers(0, rows - 1)), draw(st.integers(0, cols - 1))
    return Window(row, col, draw(st.integers(1, rows - row)), draw(st.integers(1, cols - col)))


@pytest.mark.parametrize("options", [{"ground": "class"}, {"ground": "filter"}, {"ground": "class", "fill_cells": 4}])
@settings(max_examples=25, deadline=None)
@given(data=st.data())
def test_a_window_is_a_cut_of_the_whole(options: dict[str, object], data: st.DataObject) -> None:
    with simple(**options) as whole, simple(**options) as source:
        everything, valid = whole.read(whole.grid.window)
        for window in data.draw(st.lists(windows(*whole.grid.shape), min_size=1, max_size=3)):
            part, part_valid = source.read(window)
            cut = window.within(whole.grid.window)
            np.testing.assert_array_equal(part, everything[:, cut[0], cut[1]])
            np.testing.assert_array_equal(part_valid, valid[cut])
        assert valid.any()


@settings(max_examples=20, deadline=None)
@given(data=st.data())
def test_a_crop_of_the_grid_gives_the_same_bits(data: st.DataObject) -> None:
    """Ground comes from the filter, which looks 62 cells far: also beyond the edge of the cropped grid."""
    grid = plot_grid()
    crop = data.draw(windows(*grid.shape))
    options: dict[str, object] = {"bands": ALL, "ground": "filter", "fill_cells": 3}
    with (
        LidarSource(DATA / "OSBS_22.laz", grid, **options) as whole,  # type: ignore[arg-type]
        LidarSource(DATA / "OSBS_22.laz", grid.crop(crop), **options) as part,  # type: ignore[arg-type]
    ):
        everything, valid = whole.read(grid.window)
        found, found_valid = part.read(part.grid.window)
    cut = crop.within(grid.window)
    np.testing.assert_array_equal(found_valid, valid[cut])
    np.testing.assert_array_equal(found, np.where(found_valid, everything[:, cut[0], cut[1]], 0))


@settings(max_examples=10, deadline=None)
@given(seed=st.integers(0, 2**32 - 1), per_chunk=st.integers(1, 700))
def test_order_chunks_and_compression_do_not_matter(
    tmp_path_factory: pytest.TempPathFactory, seed: int, per_chunk: int
) -> None:
    with simple("copc.laz") as source:
        expected, valid = source.read(source.grid.window)
    las = points_of(DATA / "simple.laz")
    las.points = las.points[np.random.default_rng(seed).permutation(len(las))]
    shuffled = tmp_path_factory.mktemp("order") / "shuffled.las"
    las.write(shuffled)
    grid = cloud_grid(DATA / "simple.copc.laz", 20)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(las_chunks, "LAS_CHUNK_BYTES", per_chunk * 34)
        with LidarSource(shuffled, grid, bands=ALL, crs="EPSG:2991", z_unit_m=US_FT) as source:
            found, found_valid = source.read(grid.window)
    np.testing.assert_array_equal(found_valid, valid)
    np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize("kind", ["laz", "copc.laz"])
def test_threads_read_what_one_thread_reads(kind: str) -> None:
    with simple(kind) as source:
        rows, cols = source.grid.shape
        rng = np.random.default_rng(7)
        places = [(int(rng.integers(0, rows - 40)), int(rng.integers(0, cols - 40))) for _ in range(64)]
        jobs = [Window(row, col, 40, 40) for row, col in places]
        with ThreadPoolExecutor(8) as pool:
            found = list(pool.map(source.read, jobs))
    with simple(kind) as source:
        everything, valid = source.read(source.grid.window)
    for window, (part, part_valid) in zip(jobs, found, strict=True):
        cut = window.within(Window(0, 0, rows, cols))
        np.testing.assert_array_equal(part_valid, valid[cut])
        np.testing.assert_array_equal(part, everything[:, cut[0], cut[1]])


def test_a_raster_on_disk_gives_the_same_bits(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    with simple() as source:
        expected, valid = source.read(source.grid.window)
    monkeypatch.setattr(binning, "MEMORY_BYTES", 1000)
    with simple(scratch=tmp_path) as source:
        assert source._raster.on_disk
        found, found_valid = source.read(source.grid.window)
    np.testing.assert_array_equal(found, expected)
    np.testing.assert_array_equal(found_valid, valid)
    assert not list(tmp_path.iterdir())


def test_several_files_are_one_cloud(tmp_path: Path) -> None:
    las = points_of(DATA / "simple.laz")
    halves = []
    for name, keep in (("west.las", np.array(las.x) < 637000), ("east.las", np.array(las.x) >= 637000)):
        part = laspy.LasData(las.header, las.points[keep].copy())
        part.write(tmp_path / name)
        halves.append(tmp_path / name)
    grid = cloud_grid(DATA / "simple.laz", 20, crs="EPSG:2991")
    with (
        LidarSource(halves, grid, bands=ALL, crs="EPSG:2991") as two,
        LidarSource(DATA / "simple.laz", grid, bands=ALL, crs="EPSG:2991") as one,
    ):
        for found, expected in zip(two.read(grid.window), one.read(grid.window), strict=True):
            np.testing.assert_array_equal(found, expected)
        assert two.info.files == tuple(halves)


def test_dem_is_another_name_of_ground_and_feeds_the_same_metres() -> None:
    grid = plot_grid()
    with (
        LidarSource(DATA / "OSBS_22.laz", grid, bands=["DEM"]) as dem,
        LidarSource(DATA / "OSBS_22.laz", grid, bands=["ground"]) as ground,
    ):
        np.testing.assert_array_equal(dem.read(grid.window)[0], ground.read(grid.window)[0])
        assert (dem.info.bands, dem.info.unit) == (("DEM",), "m")


def test_voids_stay_voids_until_interpolation_is_asked_for() -> None:
    grid = plot_grid(0.5)
    las = points_of(DATA / "OSBS_22.laz")
    with LidarSource(DATA / "OSBS_22.laz", grid, bands=["surface"]) as source:
        _, seen = source.read(grid.window)
    assert 0.45 < (~seen).mean() < 0.55  # half of the 0.5 m cells of this plot hold no first return
    with (
        LidarSource(DATA / "OSBS_22.laz", grid) as strict,
        LidarSource(DATA / "OSBS_22.laz", grid, fill_cells=2) as filled,
    ):
        (data, known), (more, wider) = strict.read(grid.window), filled.read(grid.window)
        assert not strict.info.assumptions[1:]
        assert any("at most 2 cells" in note for note in filled.info.assumptions)
    rows, cols = np.nonzero(known)
    reach = [bool(((rows - r) ** 2 + (cols - c) ** 2 <= 4).any()) for r, c in np.ndindex(grid.shape)]
    np.testing.assert_array_equal(more[0][known], data[0][known])
    assert (wider >= known).all()
    inner = (slice(2, -2), slice(2, -2))  # points beyond the grid may fill cells at its edge
    np.testing.assert_array_equal(wider[inner], np.reshape(reach, grid.shape)[inner])
    assert len(las) == 1237


def test_reprojected_points_land_where_rasterio_puts_them() -> None:
    las = points_of(DATA / "OSBS_22.laz")
    source = CRS.from_epsg(32617).to_wkt()
    x, y = (np.array(v) for v in transform(source, "EPSG:3857", np.array(las.x), np.array(las.y)))
    grid = Grid(30, 30, (1.0, 0.0, np.floor(x.min()), 0.0, -1.0, np.ceil(y.max())), CRS.from_epsg(3857).to_wkt())
    first = np.array(las.return_number) <= 1
    expected = np.full(grid.shape, -np.inf)
    for px, py, z in zip(x[first], y[first], np.array(las.z)[first], strict=True):
        row, col = int(grid.transform[5] - py + 1e-6), int(px - grid.transform[2] + 1e-6)
        if row < 30 and col < 30:
            expected[row, col] = max(expected[row, col], z)
    with LidarSource(DATA / "OSBS_22.laz", grid, bands=["surface"]) as found:
        data, valid = found.read(grid.window)
    np.testing.assert_array_equal(valid, np.isfinite(expected))
    np.testing.assert_allclose(data[0][valid], expected[valid], rtol=3e-7, atol=2e-4)


def test_swapped_axes_are_an_error_until_they_are_confirmed() -> None:
    path = DATA / "test_epsg_4326_axis.las"  # x is 39.01, y is -83.43: Ohio
    grid = Grid(40, 40, (1e-4, 0.0, -83.430, 0.0, -1e-4, 39.015), CRS.from_epsg(4326).to_wkt())
    with pytest.raises(GeoreferenceError, match="x and y exchanged") as caught:
        LidarSource(path, grid, bands=["density"])
    assert "swap_xy" in caught.value.hint
    with LidarSource(path, grid, bands=["density"], swap_xy=True) as source:
        data, valid = source.read(grid.window)
    assert round(float((data[0] * cell_area(grid))[valid].sum())) == 10


def test_a_cloud_elsewhere_is_a_warning_and_all_void() -> None:
    grid = Grid(9, 9, (1.0, 0.0, 500_000.0, 0.0, -1.0, 5_000_000.0), CRS.from_epsg(32617).to_wkt())
    with LidarSource(DATA / "OSBS_22.laz", grid) as source:
        assert any("does not overlap" in text for text in source.info.warnings)
        assert not source.read(grid.window)[1].any()


def test_another_planet_is_refused() -> None:
    europa = (
        'PROJCS["Europa",GEOGCS["Europa",DATUM["Europa",SPHEROID["Europa",1560800,0]],PRIMEM["Reference",0],'
        'UNIT["degree",0.0174532925199433]],PROJECTION["Equirectangular"],PARAMETER["central_meridian",0],UNIT["metre",1]]'
    )
    with pytest.raises(GeoreferenceError, match="no way from its CRS"):
        LidarSource(DATA / "OSBS_22.laz", Grid(9, 9, (1.0, 0.0, 0.0, 0.0, -1.0, 0.0), CRS.from_wkt(europa).to_wkt()))


def test_a_grid_over_a_cloud_holds_all_of_its_points() -> None:
    for gsd in (0.25, 1.0, 7.0):
        grid = cloud_grid(DATA / "OSBS_22.laz", gsd)
        with LidarSource(DATA / "OSBS_22.laz", grid, bands=["density"]) as source:
            data, _ = source.read(grid.window)
        kinds = np.array(points_of(DATA / "OSBS_22.laz").classification)
        assert round(float(data.sum(dtype=np.float64) * gsd * gsd)) == (~np.isin(kinds, (7, 18))).sum()
    feet = cloud_grid(DATA / "test1_4.las", 3.0)
    assert feet.pixel_size[0] * US_FT == pytest.approx(3.0)


def test_degrees_are_not_metres() -> None:
    with pytest.raises(GeoreferenceError, match="in degrees") as caught:
        cloud_grid(DATA / "test_epsg_4326_axis.las", 1.0)
    assert "to_crs" in caught.value.hint


def test_mistakes_have_names() -> None:
    grid = plot_grid()
    with pytest.raises(BandError, match="no band `NDVI`"):
        LidarSource(DATA / "OSBS_22.laz", grid, bands=["NDVI"])
    with pytest.raises(UsageError, match="fill_cells"):
        LidarSource(DATA / "OSBS_22.laz", grid, fill_cells=99)
    with LidarSource(DATA / "OSBS_22.laz", grid) as source, pytest.raises(ValueError, match="does not lie inside"):
        source.read(Window(0, 0, 21, 20))
    with pytest.raises(SceneError, match="closed"):
        source.read(grid.window)


def test_a_thousand_sources_leak_no_handle() -> None:
    handles = Path("/proc/self/fd")
    if not handles.exists():
        pytest.skip("no /proc: handles cannot be counted")
    grid = plot_grid()
    before = len(list(handles.iterdir()))
    for _ in range(1000):
        with LidarSource(DATA / "OSBS_22.laz", grid, bands=["density"]) as source:
            source.read(Window(0, 0, 4, 4))
    assert len(list(handles.iterdir())) <= before


def test_canopy_height_agrees_with_the_shipped_models() -> None:
    """60 IDTReeS plots against NEON's CHM.tif: figures in docs/sensors/lidar.md. Closed canopy (MLBS) agrees best."""
    errors: dict[str, list[np.ndarray]] = {"MLBS": [], "OSBS": []}
    for plot in sorted(shared(OPEN / "idtrees" / "plots").iterdir()):
        with rasterio.open(plot / "CHM.tif") as chm:
            grid, shipped = Grid(chm.height, chm.width, tuple(chm.transform)[:6], chm.crs.to_wkt()), chm.read(1)
        with LidarSource(plot / "points.laz", grid, bands=["ndsm"], fill_cells=3) as source:
            data, valid = source.read(grid.window)
        errors[plot.name[:4]].append((data[0] - shipped)[valid])
    mlbs, osbs = (np.concatenate(errors[site]) for site in ("MLBS", "OSBS"))
    assert len(mlbs) + len(osbs) > 0.99 * 60 * 400
    assert abs(float(np.median(mlbs))) < 0.25
    assert abs(float(np.median(osbs))) < 0.15
    assert (abs(mlbs) <= 1).mean() > 0.88
    assert (abs(osbs) <= 1).mean() > 0.78
