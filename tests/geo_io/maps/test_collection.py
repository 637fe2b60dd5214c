"""A folder of maps as a collection and mosaics: valid, true to the maps, the same every time; areas on the Earth."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
from jsonschema import Draft7Validator
from pystac import Collection
from rasterio.crs import CRS
from rasterio.merge import merge
from test_stac import LOCAL, UTM, grid_at, make, registry

from mmedge.cli.app import run
from mmedge.geo_io.acquired import parse_acquisition
from mmedge.geo_io.ground import pixel_area_m2
from mmedge.grid import Grid

CORE = "https://schemas.stacspec.org/v1.1.0/collection-spec/json-schema/collection.json"


def map_at(folder: Path, name: str, grid: Grid, when: str | None = None) -> None:
    """A map called `name` in `folder`; row 0 is nodata, row 1 water, the rest trees."""
    work = folder.parent / "work"
    shutil.rmtree(work, ignore_errors=True)
    make(work, grid, parse_acquisition(when) if when else None, probs=False)
    folder.mkdir(exist_ok=True)
    for path in work.iterdir():
        target = folder / path.name.replace("scene", name)
        path.rename(target)
        if target.suffix == ".json":
            target.write_text(target.read_text().replace("scene_map", f"{name}_map"))


@pytest.fixture
def maps(tmp_path: Path) -> Path:
    """Two maps in UTM that overlap by ten rows, one in degrees, one without a place on the Earth."""
    folder = tmp_path / "maps"
    map_at(folder, "a", Grid(40, 60, (10.0, 0.0, 300000.0, 0.0, -10.0, 6000000.0), UTM), "2020-04-12")
    map_at(folder, "b", Grid(40, 60, (10.0, 0.0, 300200.0, 0.0, -10.0, 5999700.0), UTM), "2021-01-01T10:00:00Z")
    map_at(folder, "c", Grid(40, 60, (0.001, 0.0, -72.0, 0.0, -0.001, -36.0), CRS.from_epsg(4326).to_wkt()))
    map_at(folder, "d", Grid(40, 60, (10.0, 0.0, 0.0, 0.0, -10.0, 0.0), LOCAL))
    (folder / "notes.json").write_text('{"type": "Feature", "properties": null}')
    return folder


def errors(document: dict[str, Any]) -> list[str]:
    found = registry()
    return [
        f"{url}: {error.json_path} {error.message}"
        for url in (CORE, *document["stac_extensions"])
        for error in Draft7Validator(found.contents(url), registry=found).iter_errors(document)
    ]


def test_the_collection_is_valid_and_true(maps: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["catalog", str(maps)]) == 0
    named = [Path(line).name for line in capsys.readouterr().out.splitlines()]
    assert named.pop() == "collection.json"
    assert sorted(named) == ["mosaic_EPSG_32719_10.vrt", "mosaic_EPSG_4326_0.001.vrt", "mosaic_local_10.vrt"]
    document = json.loads((maps / "collection.json").read_text())
    assert errors(document) == []
    assert errors({**document, "license": 1})
    assert errors({**document, "summaries": {"proj:code": [4]}})
    opened = Collection.from_file(str(maps / "collection.json"))
    assert [item.id for item in opened.get_items()] == ["a_map", "b_map", "c_map", "d_map"]
    items = [item.to_dict() for item in opened.get_items()]
    west, south, east, north = document["extent"]["spatial"]["bbox"][0]
    for box in [item["bbox"] for item in items if "bbox" in item]:
        assert west <= box[0] < box[2] <= east
        assert south <= box[1] < box[3] <= north
    assert document["extent"]["temporal"]["interval"] == [["2020-04-12T00:00:00Z", "2021-01-01T10:00:00Z"]]
    assert document["summaries"]["proj:code"] == ["EPSG:32719", "EPSG:4326"]
    areas = [item["properties"].get("mmedge:class_area_ha", {}) for item in items]
    assert areas[0] == {"water": 0.6, "trees": 22.8}  # 60 and 38 x 60 pixels of 100 m2
    assert areas[3] == {}
    total = {name: pytest.approx(sum(area.get(name, 0) for area in areas)) for name in ("water", "trees")}
    assert document["mmedge:class_area_ha"] == total
    assert str(maps.parent) not in (maps / "collection.json").read_text()


def test_a_mosaic_is_what_merging_the_maps_gives(maps: Path) -> None:
    assert run(["catalog", str(maps), "-q"]) == 0
    with rasterio.open(maps / "mosaic_EPSG_32719_10.vrt") as mosaic:
        found, transform = mosaic.read(), mosaic.transform
        assert (mosaic.nodata, mosaic.crs.to_epsg()) == (255, 32719)
        assert mosaic.colormap(1)[1] == (0, 100, 200, 255)
    expected, where = merge([maps / "b_map.tif", maps / "a_map.tif"])
    assert transform == where
    np.testing.assert_array_equal(found, expected)


def test_the_same_maps_give_the_same_bytes_and_nothing_is_replaced_unasked(maps: Path, tmp_path: Path) -> None:
    shutil.copytree(maps, tmp_path / "copy")
    assert [run(["catalog", str(folder)]) for folder in (maps, tmp_path / "copy", maps)] == [0, 0, 2]
    for path in maps.iterdir():
        assert path.read_bytes() == (tmp_path / "copy" / path.name).read_bytes()
    for path in maps.glob("c_map*"):
        path.unlink()
    assert run(["catalog", str(maps), "--overwrite"]) == 0
    assert not (maps / "mosaic_EPSG_4326_0.001.vrt").exists()
    assert len(json.loads((maps / "collection.json").read_text())["links"]) == 4
    assert not list(maps.glob("*.part"))


def test_a_folder_without_maps_is_an_error(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["catalog", str(tmp_path)]) == 2
    assert "holds no map" in capsys.readouterr().err


@pytest.mark.parametrize("epsg", [4326, 3857, 32719, 2263])
def test_areas_are_those_on_the_ellipsoid(epsg: int) -> None:
    """Against pyproj's geodesic polygons; in UTM the area is the projection's, 0.1 % off at most."""
    pyproj = pytest.importorskip("pyproj")
    west, north, side = {
        4326: (10, 60.5, 1e-3),
        3857: (1e6, 8399738, 100),
        32719: (495000, 6e6, 10),
        2263: (980000, 200000, 10),
    }[epsg]
    grid = grid_at(epsg, (side, 0, west, 0, -side, north), 400, 2)
    area = pixel_area_m2(grid)
    to_degrees = pyproj.Transformer.from_crs(epsg, 4326, always_xy=True)
    for row in (0, 399):
        corners = [grid.xy(row + r, c) for r, c in ((0, 0), (0, 1), (1, 1), (1, 0))]
        lon, lat = zip(*(to_degrees.transform(*corner) for corner in corners), strict=True)
        expected = abs(pyproj.Geod(ellps="WGS84").polygon_area_perimeter(lon, lat)[0])
        assert area[row] == pytest.approx(expected, rel=1e-3 if epsg in (32719, 2263) else 1e-5)
    assert (area[0] == 100) == (epsg == 32719)
