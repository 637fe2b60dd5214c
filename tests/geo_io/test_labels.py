"""Reference classes on a scene's grid: rasters of other grids, polygons and points, against what was drawn."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import rasterio
from rasterio.transform import Affine

from mmedge.bundle import LandClass
from mmedge.errors import MMEdgeError, UsageError
from mmedge.geo_io.labels import LabelFile, legend_of, read_labels, read_units, unit_pixels
from mmedge.grid import Grid

shapely = pytest.importorskip("shapely")
pyogrio = pytest.importorskip("pyogrio")

UTM = rasterio.crs.CRS.from_epsg(32718).to_wkt()
GRID = Grid(20, 30, (10.0, 0.0, 700_000.0, 0.0, -10.0, 5_700_000.0), UTM)
CLASSES = (LandClass(1, "water", (0, 0, 255)), LandClass(2, "trees", (0, 255, 0)))


def write_raster(path: Path, values: np.ndarray, transform: Affine, nodata: int | None = None) -> Path:
    profile = {"driver": "GTiff", "count": 1, "dtype": values.dtype, "crs": UTM, "transform": transform}
    with rasterio.open(path, "w", height=values.shape[0], width=values.shape[1], nodata=nodata, **profile) as out:
        out.write(values, 1)
    return path


def write_vector(path: Path, geometries: list[object], values: list[object], crs: str = UTM) -> Path:
    pyogrio.raw.write(
        str(path),
        shapely.to_wkb(np.array(geometries, object)),
        [np.array(values)],
        ["class"],
        geometry_type="Unknown",
        crs=crs,
    )
    return path


def test_the_example_brings_names_and_colours(chile: Path) -> None:
    legend = legend_of([LabelFile(path=chile / "landcover.tif")])
    assert [(c.value, c.name) for c in legend][:2] == [(1, "water"), (2, "trees")]
    assert legend[0].color == (0x41, 0x9B, 0xDF)


def test_values_that_are_not_listed_or_nodata_are_no_labels(tmp_path: Path) -> None:
    codes = np.tile(np.array([1, 2, 3, 0], np.uint8), (20, 8))[:, :30]
    file = LabelFile(path=write_raster(tmp_path / "l.tif", codes, Affine(*GRID.transform), nodata=0))
    expected = np.select([codes == 1, codes == 2], [0, 1], -1)
    np.testing.assert_array_equal(read_labels(file, GRID, CLASSES), expected)
    assert [c.value for c in legend_of([file])] == [1, 2, 3]


def test_a_finer_raster_gives_its_most_frequent_class(tmp_path: Path) -> None:
    coarse = np.random.default_rng(0).integers(1, 3, GRID.shape).astype(np.uint8)
    fine = coarse.repeat(5, 0).repeat(5, 1)
    fine[::5, ::5] = 3 - fine[::5, ::5]  # one of 25, and the one that a nearest neighbour might take
    fine[2::5, 2::5] = 3 - fine[2::5, 2::5]
    transform = Affine(2, 0, 700_000, 0, -2, 5_700_000)
    labels = read_labels(LabelFile(path=write_raster(tmp_path / "l.tif", fine, transform)), GRID, CLASSES)
    np.testing.assert_array_equal(labels, coarse.astype(int) - 1)


def test_polygons_and_points_in_another_crs(tmp_path: Path) -> None:
    from rasterio.warp import transform

    box = shapely.box(700_000, 5_699_900, 700_050, 5_700_000)  # rows 0-9, columns 0-4
    point = shapely.Point(700_105, 5_699_995)  # row 0, column 10
    lonlat = [
        shapely.transform(g, lambda xy: np.column_stack(transform(UTM, "EPSG:4326", xy[:, 0], xy[:, 1])))
        for g in (box, point)
    ]
    path = write_vector(tmp_path / "l.geojson", lonlat, ["trees", "water"], "EPSG:4326")
    expected = np.full(GRID.shape, -1)
    expected[:10, :5], expected[0, 10] = 1, 0
    np.testing.assert_array_equal(read_labels(LabelFile(path=path), GRID, CLASSES), expected)
    units = read_units(LabelFile(path=path), GRID)
    np.testing.assert_array_equal(unit_pixels(units, GRID) >= 0, expected >= 0)
    assert [(c.value, c.name) for c in legend_of([LabelFile(path=path)])] == [(1, "trees"), (2, "water")]


def test_a_pixel_with_points_of_two_classes_is_no_label(tmp_path: Path) -> None:
    points = [shapely.Point(700_001, 5_699_999), shapely.Point(700_009, 5_699_991), shapely.Point(700_011, 5_699_999)]
    path = write_vector(tmp_path / "l.gpkg", points, [1, 2, 2])
    labels = read_labels(LabelFile(path=path), GRID, CLASSES)
    assert labels[0, 0] == -1
    assert labels[0, 1] == 1


def test_an_attribute_that_is_not_there(tmp_path: Path) -> None:
    path = write_vector(tmp_path / "l.gpkg", [shapely.Point(700_001, 5_699_999)], [1])
    with pytest.raises(UsageError, match="no attribute `species`"):
        read_labels(LabelFile(path=path, field="species"), GRID, CLASSES)


VRT = """<VRTDataset rasterXSize="30" rasterYSize="20"><SRS>EPSG:32718</SRS>
<GeoTransform>700000, 10, 0, 5700000, 0, -10</GeoTransform><VRTRasterBand dataType="Byte" band="1"><SimpleSource>
<SourceFilename relativeToVRT="1">secret.tif</SourceFilename><SourceBand>1</SourceBand></SimpleSource></VRTRasterBand>
</VRTDataset>"""
OGR_VRT = """<OGRVRTDataSource><OGRVRTLayer name="secret"><SrcDataSource relativeToVRT="1">secret.gpkg</SrcDataSource>
</OGRVRTLayer></OGRVRTDataSource>"""


@pytest.mark.parametrize(("name", "content"), [("l.tif", VRT), ("l.vrt", VRT), ("l.gpkg", OGR_VRT), ("l.vrt", OGR_VRT)])
def test_a_file_that_points_elsewhere_is_not_followed(tmp_path: Path, name: str, content: str) -> None:
    write_raster(tmp_path / "secret.tif", np.ones(GRID.shape, np.uint8), Affine(*GRID.transform))
    write_vector(tmp_path / "secret.gpkg", [shapely.Point(700_001, 5_699_999)], [1])
    (tmp_path / name).write_text(content)
    with pytest.raises(MMEdgeError, match="mmedge reads") as caught:
        read_labels(LabelFile(path=tmp_path / name), GRID, CLASSES)
    assert caught.value.hint


def test_labels_that_are_not_there(tmp_path: Path) -> None:
    for name in ("no.tif", "no.gpkg"):
        with pytest.raises(MMEdgeError, match="no such file"):
            read_labels(LabelFile(path=tmp_path / name), GRID, CLASSES)
