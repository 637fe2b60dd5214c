"""Maps as polygons: they cover what the map covers, share their edges, and are the same every time."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import rasterio
from rasterio.crs import CRS
from rasterio.features import rasterize
from rasterio.transform import Affine
from rasterio.windows import Window

from mmedge.cli.app import run
from mmedge.edge.infer import infer
from mmedge.geo_io.maps.vectors import ClassMap, Polygons, read_map, trace
from mmedge.grid import Grid

shapely = pytest.importorskip("shapely", reason="needs shapely: pip install 'mmedge[vector]'")
pyogrio = pytest.importorskip("pyogrio", reason="needs pyogrio: pip install 'mmedge[vector]'")


@pytest.fixture(scope="module")
def made(chile: Path, small: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A map of the example."""
    return infer(chile / "scene.tif", tmp_path_factory.mktemp("map") / "chile_map.tif", model=small).outputs.map


def drawn(polygons: Polygons, shape: tuple[int, int]) -> np.ndarray:
    return rasterize(zip(polygons.geometries, polygons.values, strict=True), shape, fill=255, dtype="uint8")


def test_polygons_drawn_again_are_the_map(made: Path) -> None:
    found = read_map(made)
    polygons = trace(found)
    assert shapely.is_valid(polygons.geometries).all()
    assert shapely.coverage_is_valid(polygons.geometries)
    np.testing.assert_array_equal(drawn(polygons, found.classes.shape), found.classes)


def test_a_patch_across_many_blocks_is_one_polygon_and_nodata_is_none() -> None:
    """A ring around the whole raster, with nodata inside of it and a square in that."""
    classes = np.full((1100, 1300), 255, np.uint8)
    classes[:10], classes[-10:], classes[:, :10], classes[:, -10:] = 1, 1, 1, 1
    classes[500:600, 500:600] = 2
    grid = Grid(*classes.shape, (10.0, 0, 3e5, 0, -10.0, 6e6), CRS.from_epsg(32719).to_wkt())
    found = trace(ClassMap(classes=classes, names={1: "a", 2: "b"}, nodata=255, grid=grid))
    corners = shapely.get_num_coordinates(found.geometries).tolist()
    assert sorted(zip(found.values.tolist(), found.pixels.tolist(), corners, strict=True)) == [
        (1, 47600.0, 10),
        (2, 10000.0, 5),
    ]


def test_simplified_neighbours_keep_sharing_their_edges(made: Path) -> None:
    found = read_map(made)
    stairs, simple = trace(found, least_px=10), trace(found, least_px=10, tolerance_px=1.5)
    np.testing.assert_array_equal(stairs.values, simple.values)
    np.testing.assert_array_equal(stairs.pixels, simple.pixels)
    assert shapely.coverage_is_valid(simple.geometries)
    assert shapely.is_valid(simple.geometries).all()
    assert shapely.area(simple.geometries).sum() == pytest.approx(found.classes.size)  # neither gap nor overlap
    before, after = (shapely.get_num_coordinates(p.geometries).sum() for p in (stairs, simple))
    assert after < before / 2
    moved = shapely.hausdorff_distance(shapely.boundary(simple.geometries), shapely.boundary(stairs.geometries))
    assert moved.max() < 6  # pixels


def test_small_patches_go_to_their_largest_neighbour(made: Path) -> None:
    found = read_map(made)
    polygons = trace(found, least_px=20)
    assert trace(found).pixels.min() < 20 <= polygons.pixels.min()
    again = drawn(polygons, found.classes.shape)
    assert (again != 255).all()
    assert 0 < (again != found.classes).mean() < 0.1


def test_the_file_is_in_the_crs_of_the_map_and_always_the_same(
    made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    told = ["vectorize", str(made), "--min-area", "0.1", "--simplify", "15", "--json"]
    assert run(told) == 0
    said = json.loads(capsys.readouterr().out)
    assert (said["output"], sorted(path.name for path in tmp_path.iterdir())) == ("chile_map.gpkg", ["chile_map.gpkg"])
    meta, _, geometries, (values, names, areas) = pyogrio.raw.read(tmp_path / "chile_map.gpkg")
    with rasterio.open(made) as dataset:
        assert CRS.from_user_input(meta["crs"]) == dataset.crs
        assert shapely.total_bounds(shapely.from_wkb(geometries)) == pytest.approx(tuple(dataset.bounds))
        tags = dataset.tags()
    assert len(values) == said["polygons"]
    assert [tags[f"CLASS_{value}"] for value in values] == list(names)
    assert areas.sum() == pytest.approx(224 * 224 * 0.01)
    assert areas.min() >= 0.1
    first = (tmp_path / "chile_map.gpkg").read_bytes()
    assert run(told) == 2
    assert run([*told, "--overwrite"]) == 0
    assert (tmp_path / "chile_map.gpkg").read_bytes() == first


def test_a_mosaic_is_traced_across_the_maps(chile: Path, small: Path, tmp_path: Path) -> None:
    """Two halves of a scene, mapped one by one: their polygons are those of one raster."""
    with rasterio.open(chile / "scene.tif") as src:
        for name, col in (("west", 0), ("east", 112)):
            window = Window(col, 0, 112, 224)
            profile = {**src.profile, "width": 112, "transform": src.window_transform(window)}
            with rasterio.open(tmp_path / f"{name}.tif", "w", **profile) as out:
                out.write(src.read(window=window))
                out.descriptions, out.scales, out.offsets = src.descriptions, src.scales, src.offsets
            infer(tmp_path / f"{name}.tif", tmp_path / f"{name}_map.tif", model=small)
    assert run(["catalog", str(tmp_path)]) == 0
    assert run(["vectorize", str(tmp_path / "mosaic_EPSG_32718_10.vrt"), "-o", str(tmp_path / "all.gpkg")]) == 0
    found = shapely.from_wkb(pyogrio.raw.read(tmp_path / "all.gpkg")[2])
    with rasterio.open(tmp_path / "west_map.tif") as west:
        seam = shapely.LineString([(west.bounds.right, west.bounds.bottom), (west.bounds.right, west.bounds.top)])
        assert shapely.crosses(found, seam).any()
        assert shapely.area(found).sum() == pytest.approx(224 * 224 * abs(Affine(*west.transform[:6]).determinant))


def test_what_is_no_map_is_refused(chile: Path, made: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    lost = made.with_name("no_crs.tif")
    profile = {"width": 2, "height": 2, "count": 1, "dtype": "uint8", "nodata": 255, "transform": Affine.scale(10, -10)}
    with rasterio.open(lost, "w", **profile) as out:
        out.update_tags(CLASS_1="water")
    for told, why in (
        ([str(lost), "-o", str(tmp_path / "a.gpkg")], "has no CRS"),
        ([str(chile / "scene.tif"), "-o", str(tmp_path / "a.gpkg")], "names no classes"),
        ([str(tmp_path / "gone.tif"), "-o", str(tmp_path / "a.gpkg")], "no such file"),
        ([str(made), "-o", str(tmp_path / "a.shp")], "polygons go to a GeoPackage"),
        ([str(made), "-o", str(tmp_path / "no" / "a.gpkg")], "does not exist"),
    ):
        assert run(["vectorize", *told]) == 2
        assert why in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []
    assert run(["vectorize", str(made), "-o", str(tmp_path / "a.gpkg"), "--dry-run"]) == 0
    assert list(tmp_path.iterdir()) == []
