"""Sentinel-1 GRD folders, complex and quad-pol radar. SYNTHETIC folders: see synthetic_products."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
from rasterio.control import GroundControlPoint
from rasterio.crs import CRS
from rasterio.transform import Affine, GCPTransformer
from rasterio.warp import transform
from synthetic_products import sentinel1_noise, write_sentinel1

from mmedge.errors import GeoreferenceError, SceneError, UnitError
from mmedge.geo_io.gather import SceneOptions
from mmedge.geo_io.missions.sentinel1_calibration import read_calibration
from mmedge.geo_io.rasters.gcp import ControlPoints, control_grid, control_points, north_up
from mmedge.geo_io.scene import open_scene
from mmedge.grid import Window
from mmedge.modality import Modality

SAR = Modality(name="sar", bands=("VV", "VH"), unit="dB", gsd_m=10)
UTM = CRS.from_epsg(32718)
ROWS, COLS = 240, 300
# A descending pass: the image leans by 12 degrees against the UTM grid and is mirrored.
PLACE = Affine.translation(700000, 5700000) @ Affine.rotation(-12) @ Affine.scale(-10, -10)
LUT = ([-50.0, 60.0, 150.0, 400.0], [0.0, 40.0, 160.0, 299.0], 300 + 40.0 * np.arange(16).reshape(4, 4))


def grid_points(place: Affine = PLACE, *, steps: tuple[int, int] = (5, 6)) -> list[GroundControlPoint]:
    """Control points in longitude and latitude of an image that an affine map places in UTM."""
    rows, cols = np.meshgrid(np.linspace(0, ROWS, steps[0]), np.linspace(0, COLS, steps[1]), indexing="ij")
    x, y = place.a * cols + place.b * rows + place.c, place.d * cols + place.e * rows + place.f
    lon, lat = transform(UTM, CRS.from_epsg(4326), x.ravel(), y.ravel())[:2]
    where = zip(rows.ravel(), cols.ravel(), lon, lat, strict=True)
    return [GroundControlPoint(row=float(r), col=float(c), x=a, y=b, z=0) for r, c, a, b in where]


def slow_lut(rows: int, cols: int) -> Any:
    """The calibration table, interpolated pixel by pixel."""
    lines, pixels, a = LUT
    across = np.stack([np.interp(np.arange(cols), pixels, vector) for vector in a])
    return np.stack([np.interp(np.arange(rows), lines, across[:, c]) for c in range(cols)], axis=1)


@pytest.fixture(scope="module")
def sigma0(chile: Path) -> dict[str, Any]:
    """Real backscatter in dB, laid into the image's geometry: (240, 300)."""
    with rasterio.open(chile / "sar.tif") as src:
        return {band: np.tile(src.read(i), (2, 2))[:ROWS, :COLS] for i, band in ((1, "vv"), (2, "vh"))}


def numbers(sigma0: dict[str, Any]) -> dict[str, Any]:
    """Digital numbers of a GRD."""
    return {band: np.rint(10 ** (db / 20) * slow_lut(ROWS, COLS)).astype(np.uint16) for band, db in sigma0.items()}


@pytest.fixture(scope="module")
def safe(sigma0: dict[str, Any], tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_sentinel1(tmp_path_factory.mktemp("s1"), numbers(sigma0), points=grid_points(), lut=LUT)


def test_calibration_is_interpolated_between_lines_and_pixels(safe: Path) -> None:
    calibration = read_calibration(next(safe.glob("annotation/calibration/*-vv-*.xml")), None).a
    whole = slow_lut(ROWS, COLS)
    np.testing.assert_allclose(calibration.at(Window(0, 0, ROWS, COLS)), whole, rtol=1e-12)
    np.testing.assert_allclose(calibration.at(Window(149, 30, 3, 200)), whole[149:152, 30:230], rtol=1e-12)
    assert calibration.at(Window(1000, 500, 1, 1))[0, 0] == LUT[2][-1, -1]  # beyond the last vector: held


# (line, pixels, noise): the vectors of real products name different pixels, too.
NOISE = [(0.0, [0.0, 100.0, 299.0], [900.0, 400.0, 2500.0]), (120.0, [0.0, 299.0], [1000.0, 1600.0])]
NOISE += [(239.0, [0.0, 150.0, 299.0], [500.0, 700.0, 900.0])]
SWATHS = [((0, 0, 239, 149), [0.0, 100.0, 239.0], [1.0, 1.5, 0.75]), ((10, 150, 200, 299), [10.0, 200.0], [0.5, 2.0])]


def slow_noise(row: int, col: int, swaths: Any) -> float:
    """Of one pixel, as the note on denoising says: range noise between two lines, times the factor of its swath."""
    lines = [line for line, _, _ in NOISE]
    across = np.interp(row, lines, [np.interp(col, pixels, noise) for _, pixels, noise in NOISE])
    for (top, left, bottom, right), line, factor in swaths or ():
        if top <= row <= bottom and left <= col <= right:
            across *= np.interp(row, line, factor)
    return float(across)


@pytest.mark.parametrize("swaths", [SWATHS, None])
def test_thermal_noise_is_subtracted_where_the_product_tells_it(
    sigma0: dict[str, Any], tmp_path: Path, swaths: Any
) -> None:
    """SYNTHETIC annotation over real backscatter. What noise leaves less than 1 DN of stays valid, and dark."""
    dn = numbers({"vv": sigma0["vv"]})["vv"]
    dn[100:110, 50:60], dn[5, 5] = 3, 0  # below the noise; never seen
    safe = write_sentinel1(tmp_path, {"vv": dn}, points=grid_points(), lut=LUT, noise=sentinel1_noise(NOISE, swaths))
    folder = safe / "annotation" / "calibration"
    calibration = read_calibration(next(folder.glob("calibration-*.xml")), next(folder.glob("noise-*.xml")))
    window = Window(3, 2, 230, 290)
    cut = dn[3:233, 2:292]
    db, valid = calibration(cut[None].astype(np.float32), cut > 0, window)
    places = [(r, c) for r in range(3, 233, 13) for c in range(2, 292, 7)]
    a = slow_lut(ROWS, COLS)
    expected = [10 * np.log10(max(float(dn[p]) ** 2 - slow_noise(*p, swaths), 1) / a[p] ** 2) for p in places]
    np.testing.assert_allclose([db[0, r - 3, c - 2] for r, c in places], expected, atol=1e-4)
    np.testing.assert_allclose(db[0, 97:107, 48:58], -20 * np.log10(a[100:110, 50:60]), atol=1e-4)
    assert valid.sum() == valid.size - 1
    with open_scene(safe, [Modality(name="sar", bands=("VV",), unit="dB", gsd_m=10)]) as scene:
        assert any("thermal noise subtracted" in text for text in scene.assumptions)
        assert any(file.name.startswith("noise-") for file in scene.files)


def test_damaged_noise_is_refused(sigma0: dict[str, Any], tmp_path: Path) -> None:
    noise = sentinel1_noise(NOISE, SWATHS).replace("2500", "nan")
    safe = write_sentinel1(tmp_path, numbers(sigma0), points=grid_points(), lut=LUT, noise=noise)
    with pytest.raises(SceneError, match="damaged noiseRangeLut vector"):
        open_scene(safe, [SAR])


def test_a_safe_folder_is_calibrated_and_placed(safe: Path, sigma0: dict[str, Any]) -> None:
    with open_scene(safe, [SAR]) as scene:
        grid, tile = scene.grid, scene.read(scene.grid.window)
        assert grid.transform[0] == 10
        assert "EPSG" in grid.crs
        assert "32718" in grid.crs
        assert str(scene.sources["sar"].info.acquired) == "2020-06-07T01:08:00Z/2020-06-07T01:08:25Z"
        assert any("30 ground control points, without terrain correction" in text for text in scene.assumptions)
        assert any("thermal noise not subtracted" in text for text in scene.assumptions)
        assert any(file.name.startswith("calibration-") for file in scene.files)
    assert 0.4 < tile.valid["sar"].mean() < 0.9  # a leaning image in its bounding box
    # Nearest pixels of the image at the grid's places, through the affine map that the points were made with.
    rows, cols = np.nonzero(tile.valid["sar"])
    x, y = grid.xy(rows + 0.5, cols + 0.5)
    inverse = ~PLACE
    row, col = inverse.d * x + inverse.e * y + inverse.f - 0.5, inverse.a * x + inverse.b * y + inverse.c - 0.5
    near = (np.abs(row - np.rint(row)) < 0.05) & (np.abs(col - np.rint(col)) < 0.05)
    assert near.sum() > 200
    at = np.rint(row[near]).astype(int), np.rint(col[near]).astype(int)
    for i, band in enumerate(("vv", "vh")):
        error = tile.data["sar"][i][rows[near], cols[near]] - sigma0[band][at]
        assert np.median(np.abs(error)) < 0.25  # bilinear weights reach 10 % into speckled neighbours
        assert abs(np.median(error)) < 0.1


@pytest.mark.parametrize("in_tiff", [True, False])
def test_control_points_place_a_ramp_within_a_few_hundredths_of_a_pixel(tmp_path: Path, in_tiff: bool) -> None:
    """Power rises with the easting: what is read back tells where every pixel lies."""
    col, row = np.meshgrid(np.arange(COLS) + 0.5, np.arange(ROWS) + 0.5)
    easting = PLACE.a * col + PLACE.b * row + PLACE.c
    dn = np.rint(1000 * np.sqrt(easting - 696000))  # whole numbers: good for 0.06 m of ramp
    lut = (LUT[0], LUT[1], np.full((4, 4), 1e6))
    safe = write_sentinel1(tmp_path, {"vv": dn}, points=grid_points(), lut=lut, in_tiff=in_tiff)
    middle = PLACE @ (COLS / 2, ROWS / 2)
    corner = Affine(10, 0, round(middle[0], -1) - 750, 0, -10, round(middle[1], -1) + 750)
    dem = tmp_path / "dem.tif"
    profile = {"driver": "GTiff", "count": 1, "height": 150, "width": 150, "dtype": "float32", "crs": UTM}
    with rasterio.open(dem, "w", **profile, transform=corner) as out:
        out.write(np.zeros((1, 150, 150), np.float32))
    options = SceneOptions(sources={"sar": [safe], "elevation": [dem]}, reference="elevation")
    with open_scene(None, None, options) as scene:
        tile = scene.read(Window(0, 0, 150, 150))
    assert tile.valid["sar"].all()
    found = 10 ** (tile.data["sar"][0].astype(np.float64) / 10) * 1e6 + 696000
    expected = np.broadcast_to(corner.c + 10 * (np.arange(150) + 0.5), (150, 150))
    assert np.abs(found - expected).max() < 0.3  # metres, of 10 m pixels
    assert abs((found - expected).mean()) < 0.05


def test_zero_and_65535_are_invalid(sigma0: dict[str, Any], tmp_path: Path) -> None:
    dn = numbers(sigma0)
    dn["vv"][:, :100] = 0
    dn["vh"][:, 200:] = 65535
    with open_scene(write_sentinel1(tmp_path, dn, points=grid_points(), lut=LUT), [SAR]) as scene:
        tile = scene.read(scene.grid.window)
        x, y = scene.grid.xy(*(np.nonzero(tile.valid["sar"])[i] + 0.5 for i in (0, 1)))
    inverse = ~PLACE
    col = inverse.a * x + inverse.b * y + inverse.c
    assert 99.9 < col.min() < 101
    assert 199 < col.max() < 200.1
    assert np.isfinite(tile.data["sar"]).all()


def test_a_measurement_file_inside_its_folder_is_calibrated_and_outside_it_is_refused(
    safe: Path, tmp_path: Path
) -> None:
    vv = next(safe.glob("measurement/*-vv-*.tiff"))
    wanted = Modality(name="sar", bands=("VV",), unit="dB", gsd_m=10)
    with open_scene(vv, [wanted]) as one, open_scene(safe, [wanted]) as folder:
        window = Window(100, 100, 64, 64)
        np.testing.assert_array_equal(one.read(window).data["sar"], folder.read(window).data["sar"])
    alone = shutil.copy(vv, tmp_path)
    with pytest.raises(UnitError, match="not calibrated backscatter in dB") as caught:
        open_scene(Path(alone), [wanted])
    assert "SAFE folder" in caught.value.hint


def test_damaged_calibration_is_refused(safe: Path, tmp_path: Path) -> None:
    mine = shutil.copytree(safe, tmp_path / safe.name)
    for path in mine.glob("annotation/calibration/*.xml"):
        path.write_text(path.read_text().replace("<line>60</line>", "<line>-60</line>"))
    with pytest.raises(SceneError, match="no calibrationVectors of rising lines"):
        open_scene(mine, [SAR])
    shutil.rmtree(mine / "annotation" / "calibration")
    with pytest.raises(SceneError, match=r"cannot read .*calibration-"):
        open_scene(mine, [SAR])


def test_sub_swaths_of_bursts_are_refused(shared_data: Path) -> None:
    path = shared_data / "open/readers/sarsen/s1a-iw1-slc-vv-gcps.tiff"
    with pytest.raises(SceneError, match="sub-swath of bursts") as caught:
        open_scene(path, None)
    assert "GRD" in caught.value.hint


def test_neither_crs_nor_points_is_refused(shared_data: Path) -> None:
    path = shared_data / "open/readers/sarsen/s1b-iw-grd-vv-no-crs.tiff"
    with pytest.raises(GeoreferenceError, match="no CRS and no ground control points"):
        open_scene(path, None)


def test_the_spline_is_gdals(shared_data: Path) -> None:
    for name in ("rio_cogeo/slc.tif", "sarsen/s1a-iw1-slc-vv-gcps.tiff"):
        path = shared_data / "open/readers" / name
        with rasterio.open(path) as src:
            points, shape = src.gcps, src.shape
        found = control_points(points, path, shape)
        assert found is not None
        rng = np.random.default_rng(0)
        lon, lat = (rng.uniform(min(v), max(v), 200) for v in (found.x, found.y))
        with GCPTransformer(points[0], tps=True) as gdal:
            expected = gdal.rowcol(lon, lat, op=lambda value: value)
        np.testing.assert_allclose(control_grid(found).rowcol(lon, lat), expected, atol=1e-6)


def test_points_across_the_antimeridian(tmp_path: Path) -> None:
    lon = [179.9, -179.9, 179.9, -179.9, -180.0]
    lat = [10.0, 10.0, 9.8, 9.8, 9.9]
    found = ControlPoints(
        shape=(100, 100),
        row=(0, 0, 100, 100, 50),
        col=(0, 100, 0, 100, 50),
        x=tuple(lon),
        y=tuple(lat),
        crs=CRS.from_epsg(4326).to_wkt(),
    )
    row, col = control_grid(found).rowcol(np.array([179.95, -179.95, 180.0]), np.array([9.9, 9.9, 9.9]))
    np.testing.assert_allclose(col, [25, 75, 50], atol=0.05)
    np.testing.assert_allclose(row, 50, atol=0.05)
    grid = north_up(found)
    assert grid.cols * grid.transform[0] < 30_000  # 0.2 degrees, not the way round the Earth


@pytest.mark.parametrize("points", [2, 3])
def test_points_that_place_nothing_are_refused(tmp_path: Path, points: int) -> None:
    line = [GroundControlPoint(row=i, col=i, x=-71.0 + i / 100, y=-38.0 + i / 100) for i in range(points)]
    path = tmp_path / "line.tif"
    with rasterio.open(
        path, "w", driver="GTiff", count=1, height=20, width=20, dtype="float32", gcps=line, crs="EPSG:4326"
    ) as out:
        out.write(np.full((1, 20, 20), -10, np.float32))
        out.descriptions = ("sar:VV",)
    with pytest.raises(GeoreferenceError, match="control points"):
        open_scene(path, None)


def test_complex_numbers_become_intensity(shared_data: Path) -> None:
    """complex_int16 under control points (Sentinel-1 SLC), against GDAL's own pixels and its own spline."""
    path = shared_data / "open/readers/rio_cogeo/slc.tif"
    options = SceneOptions(sources={"sar": [path]}, bands={"sar": ["VV"]})
    with pytest.raises(UnitError, match="not calibrated"):
        open_scene(None, None, options)
    scaled = SceneOptions(sources={"sar": [path]}, bands={"sar": ["VV"]}, scale={"sar": (0.003, 0.0)})
    with rasterio.open(path) as src:
        amplitude, points = np.abs(src.read(1)).astype(np.float64), src.gcps[0]
    with open_scene(None, None, scaled) as scene:
        window = Window(500, 300, 64, 64)
        tile = scene.read(window)
        x, y = scene.grid.xy(*(np.mgrid[500:564, 300:364] + 0.5))
        lon, lat = transform(scene.grid.crs, "EPSG:4326", x.ravel(), y.ravel())[:2]
    with GCPTransformer(points, tps=True) as gdal:
        row, col = (np.reshape(v, (64, 64)) - 0.5 for v in gdal.rowcol(lon, lat, op=lambda value: value))
    power = (0.003 * amplitude) ** 2
    r, c = np.floor(row).astype(int), np.floor(col).astype(int)
    dr, dc = row - r, col - c
    expected = sum(
        w * power[r + i, c + j]
        for i, j, w in [
            (0, 0, (1 - dr) * (1 - dc)),
            (0, 1, (1 - dr) * dc),
            (1, 0, dr * (1 - dc)),
            (1, 1, dr * dc),
        ]
    )
    inner = tile.valid["sar"]
    assert inner.mean() > 0.95
    found = 10 ** (tile.data["sar"][0] / 10)
    # Speckle doubles from pixel to pixel: 1 % is a hundredth of a pixel, from places interpolated between nodes.
    assert np.median(np.abs(found - expected)[inner] / expected[inner]) < 0.02
    assert np.corrcoef(found[inner], expected[inner])[0, 1] > 0.999


def test_quad_pol_is_four_bands_on_a_turned_grid(shared_data: Path) -> None:
    folder = shared_data / "open/readers/spacenet6"
    bands = ("HH", "HV", "VH", "VV")
    files = [folder / f"sar_{band.lower()}.tif" for band in bands]
    quad = Modality(name="sar", bands=bands, unit="dB", gsd_m=2.5)
    options = SceneOptions(sources={"sar": files}, scale={"sar": (2.8e-4, 0.0)})
    with open_scene(None, [quad], options) as scene:  # the user's factor goes before the file's own
        tile = scene.read(Window(0, 0, 200, 200))
    for i, file in enumerate(files):
        with rasterio.open(file) as src:
            amplitude = np.abs(src.read(1)).astype(np.float64) * 2.8e-4
            assert src.transform[0] == scene.grid.transform[0]
        seen = tile.valid["sar"]
        np.testing.assert_allclose(tile.data["sar"][i][seen], 20 * np.log10(amplitude[seen]), atol=1e-3)
    assert seen.mean() > 0.99


@pytest.mark.parametrize(("unit", "factor"), [("linear", 10), ("amplitude", 20)])
def test_radar_in_any_unit_is_averaged_as_power(tmp_path: Path, unit: str, factor: int) -> None:
    """Averages of amplitudes, or of linear power taken for dB, are wrong by some dB on a checkerboard."""
    checker = np.where(np.indices((80, 80)).sum(axis=0) % 2 == 0, 0.0, -20.0)
    values = (10 ** (checker / factor)).astype(np.float32)
    fine, coarse = tmp_path / "sar.tif", tmp_path / "dem.tif"
    profile = {"driver": "GTiff", "count": 1, "dtype": "float32", "crs": UTM}
    with rasterio.open(fine, "w", **profile, height=80, width=80, transform=Affine(5, 0, 7e5, 0, -5, 5.7e6)) as out:
        out.write(values, 1)
        out.descriptions = ("VV",)
    with rasterio.open(coarse, "w", **profile, height=40, width=40, transform=Affine(10, 0, 7e5, 0, -10, 5.7e6)) as out:
        out.write(np.zeros((1, 40, 40), np.float32))
    options = SceneOptions(sources={"sar": [fine], "elevation": [coarse]}, unit={"sar": unit}, reference="elevation")
    with open_scene(None, None, options) as scene:
        mean = scene.read(Window(4, 4, 20, 20)).data["sar"]
    np.testing.assert_allclose(mean, 10 * np.log10((1 + 0.01) / 2), atol=1e-3)


def test_minus_99_is_no_data_where_the_file_says_so(shared_data: Path, tmp_path: Path) -> None:
    real = shared_data / "open/readers/pyrosar/S1A__IW___A_20150309T173017_VV_grd_mli_geo_norm_db.tif"
    path = tmp_path / real.name
    shutil.copyfile(real, path)
    with rasterio.open(path, "r+") as out:
        db = out.read(1)
        db[40:60, 70:90] = -99
        out.write(db, 1)
    with open_scene(None, None, SceneOptions(sources={"sar": [path]})) as scene:
        tile = scene.read(Window(0, 0, *db.shape))
        assert str(scene.sources["sar"].info.acquired) == "2015-03-09T17:30:17Z"
    np.testing.assert_array_equal(tile.valid["sar"], db != -99)
    np.testing.assert_array_equal(tile.data["sar"][0][db != -99], db[db != -99])
