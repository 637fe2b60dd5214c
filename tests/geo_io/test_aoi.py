"""Areas of interest: files in several formats and CRSs, masks that do not depend on the window."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rasterio.crs import CRS
from rasterio.features import geometry_mask
from rasterio.transform import Affine
from rasterio.warp import transform_geom

from mmedge.errors import MMEdgeError, SceneError, UsageError
from mmedge.geo_io.aoi import aoi_mask, aoi_window, read_aoi
from mmedge.grid import Grid, Window

GRID = Grid(60, 80, (10.0, 0.0, 300000.0, 0.0, -10.0, 6000000.0), CRS.from_epsg(32719).to_wkt())


def box(left: float, top: float, right: float, bottom: float) -> list[list[tuple[float, float]]]:
    """A rectangle given in pixels, as rings in the CRS of GRID."""
    corners = ((top, left), (bottom, left), (bottom, right), (top, right), (top, left))
    return [[GRID.xy(row, col) for row, col in corners]]


def write(path: Path, geometry: Any, *, crs: str | None = "urn:ogc:def:crs:EPSG::32719") -> Path:
    document = {"type": "FeatureCollection", "features": [{"type": "Feature", "properties": {}, "geometry": geometry}]}
    if crs:
        document["crs"] = {"type": "name", "properties": {"name": crs}}  # type: ignore[assignment]
    path.write_text(json.dumps(document))
    return path


def polygon(rings: Any) -> dict[str, Any]:
    return {"type": "Polygon", "coordinates": rings}


def lonlat(geometry: dict[str, Any]) -> Any:
    return transform_geom("EPSG:32719", "OGC:CRS84", geometry)


def test_pixel_centres_decide(tmp_path: Path) -> None:
    found = read_aoi(write(tmp_path / "a.geojson", polygon(box(10.4, 20.6, 14.6, 25.4))), GRID)
    mask = aoi_mask(found, GRID, GRID.window)
    expected = np.zeros(GRID.shape, bool)
    expected[21:25, 10:15] = True  # centres at 20.5 and 25.5 are outside, 10.5 and 14.5 inside
    np.testing.assert_array_equal(mask, expected)
    assert aoi_window(found, GRID) == Window(20, 10, 6, 5)


def test_geojson_is_longitude_and_latitude_unless_it_says_otherwise(tmp_path: Path) -> None:
    shape = polygon(box(10, 20, 30, 40))
    named = read_aoi(write(tmp_path / "utm.json", shape), GRID)
    plain = read_aoi(write(tmp_path / "lonlat.geojson", lonlat(shape), crs=None), GRID)
    a, b = (aoi_mask(g, GRID, GRID.window) for g in (named, plain))
    assert a.sum() == 400
    np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize("suffix", ["gpkg", "shp", "fgb"])
@pytest.mark.parametrize("epsg", [32719, 4326])
def test_other_formats_through_pyogrio(tmp_path: Path, suffix: str, epsg: int) -> None:
    pyogrio = pytest.importorskip("pyogrio")
    shapely = pytest.importorskip("shapely")
    hole = [*box(10, 20, 30, 40), box(15, 25, 20, 30)[0]]
    shape = shapely.geometry.shape(transform_geom("EPSG:32719", f"EPSG:{epsg}", polygon(hole)))
    path = tmp_path / f"a.{suffix}"
    geometry = shapely.to_wkb(
        np.array([shapely.multipolygons([shape]), shape.centroid][: 1 if suffix != "gpkg" else 2])
    )
    pyogrio.raw.write(
        str(path), geometry, [], [], crs=f"EPSG:{epsg}", geometry_type="Unknown" if suffix == "gpkg" else "MultiPolygon"
    )
    mask = aoi_mask(read_aoi(path, GRID), GRID, GRID.window)
    expected = np.zeros(GRID.shape, bool)
    expected[20:40, 10:30] = True
    expected[25:30, 15:20] = False
    np.testing.assert_array_equal(mask, expected)


def test_every_kind_of_polygon_is_found(tmp_path: Path) -> None:
    a, b = box(0, 0, 5, 5), box(50, 50, 60, 55)
    for geometry in (
        {"type": "MultiPolygon", "coordinates": [a, b]},
        {
            "type": "GeometryCollection",
            "geometries": [polygon(a), {"type": "Point", "coordinates": [0, 0]}, polygon(b)],
        },
    ):
        found = read_aoi(write(tmp_path / "a.geojson", geometry), GRID)
        assert aoi_mask(found, GRID, GRID.window).sum() == 75
        assert aoi_window(found, GRID) == Window(0, 0, 55, 60)


def test_a_polygon_partly_outside_is_clipped(tmp_path: Path) -> None:
    found = read_aoi(write(tmp_path / "a.geojson", polygon(box(-20, -20, 5, 7))), GRID)
    assert aoi_window(found, GRID) == Window(0, 0, 7, 5)
    assert aoi_mask(found, GRID, GRID.window).sum() == 35
    assert not aoi_mask(found, GRID, Window(30, 30, 5, 5)).any()
    assert aoi_mask(found, GRID, Window(0, 0, 0, 5)).shape == (0, 5)


def edge_distance(corners: np.ndarray, point: tuple[float, float]) -> float:
    """Distance of a point to the nearest edge of a closed ring of corners (n, 2)."""
    start, along, to = corners[:-1], np.diff(corners, axis=0), point - corners[:-1]
    share = np.clip((to * along).sum(axis=1) / np.maximum((along**2).sum(axis=1), 1e-12), 0, 1)
    return float(np.hypot(*(start + share[:, None] * along - point).T).min())


@settings(max_examples=40, deadline=None)
@given(
    vertices=st.lists(st.tuples(st.floats(-20, 100), st.floats(-20, 80)), min_size=3, max_size=7),
    rows=st.integers(1, 59),
    cols=st.integers(1, 79),
    angle=st.sampled_from([0.0, 0.3, 2.0]),
)
def test_a_mask_does_not_depend_on_the_window(
    vertices: list[tuple[float, float]], rows: int, cols: int, angle: float
) -> None:
    c, s = 10 * np.cos(angle), 10 * np.sin(angle)
    grid = Grid(60, 80, (c, s, 300000.0, s, -c, 6000000.0), GRID.crs)
    ring = [grid.xy(row, col) for col, row in [*vertices, vertices[0]]]
    points = np.array(ring)
    shape = {**polygon([ring]), "bbox": [*points.min(axis=0), *points.max(axis=0)]}
    whole = aoi_mask([shape], grid, grid.window)
    parts = np.zeros_like(whole)
    for window in (
        Window(0, 0, rows, cols),
        Window(0, cols, rows, 80 - cols),
        Window(rows, 0, 60 - rows, cols),
        Window(rows, cols, 60 - rows, 80 - cols),
    ):
        parts[window.within(grid.window)] = aoi_mask([shape], grid, window)
    np.testing.assert_array_equal(parts, whole)
    reference = geometry_mask([shape], grid.shape, Affine(*grid.transform), invert=True)
    corners = np.array([*vertices, vertices[0]])
    for row, col in np.argwhere(reference != whole):  # centres within 1/4096 pixel of an edge may fall either way
        assert edge_distance(corners, (col + 0.5, row + 0.5)) < 0.001
    bounds = aoi_window([shape], grid)
    inside = np.zeros_like(whole)
    if not bounds.empty:
        inside[bounds.within(grid.window)] = True
    assert not (whole & ~inside).any()


BAD = {
    "missing.geojson": (None, UsageError, "no such file"),
    "missing.gpkg": (None, UsageError, "no such file"),
    "text.geojson": ("hello", UsageError, "is not GeoJSON"),
    "list.geojson": ("[1, 2]", UsageError, "is not GeoJSON"),
    "binary.json": (b"\xff\xfe\x00", UsageError, "cannot read"),
    "short.geojson": ('{"type": "Polygon", "coordinates": [[[0, 0], [1, 1]]]}', UsageError, "four points"),
    "words.geojson": (
        '{"type": "Polygon", "coordinates": [[["a", 0], [1, 1], [1, 0], ["a", 0]]]}',
        UsageError,
        "GeoJSON",
    ),
    "point.geojson": ('{"type": "Point", "coordinates": [0, 0]}', UsageError, "holds no polygons"),
    "empty.geojson": ('{"type": "FeatureCollection", "features": []}', UsageError, "holds no polygons"),
    "crs.geojson": (
        '{"type": "Point", "coordinates": [0, 0], "crs": {"properties": {"name": "EPSG:999999"}}}',
        UsageError,
        "is not GeoJSON",
    ),
    "metres.geojson": (json.dumps(polygon(box(0, 0, 5, 5))), UsageError, "no longitudes and latitudes"),
    "elsewhere.geojson": (
        json.dumps(polygon([[[10, 50], [11, 50], [11, 51], [10, 50]]])),
        SceneError,
        "touches the scene",
    ),
    "text.gpkg": ("hello", UsageError, "no vector file"),
    "damaged.gpkg": (b"SQLite format 3\0hello", UsageError, "cannot read"),
    "elsewhere.gpkg": ("<OGRVRTDataSource></OGRVRTDataSource>", UsageError, "no vector file"),
}


@pytest.mark.filterwarnings("ignore::RuntimeWarning")  # GDAL's remark on a GeoPackage that is none
@pytest.mark.parametrize("name", BAD)
def test_mistakes_are_said_with_a_hint(tmp_path: Path, name: str) -> None:
    content, kind, message = BAD[name]
    if isinstance(content, str):
        (tmp_path / name).write_text(content)
    elif content:
        (tmp_path / name).write_bytes(content)
    with pytest.raises(MMEdgeError, match=message) as caught:
        read_aoi(tmp_path / name, GRID)
    assert type(caught.value) is kind
    assert caught.value.hint
