"""The item of a map: valid by the published schemas (offline), true to its files, the same every time.

GeoJSON's and PROJJSON's own schemas are not here: pystac's copy serves for the first, anything passes for the second.
"""

from __future__ import annotations

import hashlib
import json
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pystac.validation
import pytest
from jsonschema import Draft7Validator
from pystac import Item
from rasterio.crs import CRS
from referencing import Registry, Resource
from referencing.jsonschema import DRAFT7

from mmedge.bundle import LandClass
from mmedge.files import part_of
from mmedge.geo_io.acquired import Acquisition, parse_acquisition
from mmedge.geo_io.ground import footprint, pixel_size_m
from mmedge.geo_io.maps.mapwriter import MapCounts, MapWriter
from mmedge.geo_io.maps.outputs import Outputs, plan_outputs
from mmedge.geo_io.maps.quicklook import write_quicklook
from mmedge.geo_io.maps.stac import EXTENSIONS, InputFile, Provenance, map_item, write_item
from mmedge.grid import Grid
from mmedge.modality import Availability

SCHEMAS = Path(__file__).parents[2] / "schemas"
CORE = Path(pystac.validation.__file__).parent / "jsonschemas"
LEGEND = (LandClass(1, "water", (0, 100, 200)), LandClass(2, "trees", (0, 100, 0)))
ORDER = ("optical", "sar", "elevation")
UTM = CRS.from_epsg(32719).to_wkt()
GRID = Grid(40, 60, (10.0, 0.0, 300000.0, 0.0, -10.0, 6000000.0), UTM)
SPHERE = 'PROJCS["no code",GEOGCS["ball",DATUM["ball",SPHEROID["ball",6371000,0]],PRIMEM["Greenwich",0],UNIT["degree",0.0174532925199433]],PROJECTION["Transverse_Mercator"],PARAMETER["central_meridian",-70],PARAMETER["scale_factor",1],UNIT["metre",1]]'  # noqa: E501
LOCAL = 'LOCAL_CS["site",UNIT["metre",1],AXIS["x",EAST],AXIS["y",NORTH]]'
PROVENANCE = Provenance(
    bundle="mamol-terra",
    bundle_sha256="ab" * 32,
    backend="openvino",
    precision="fp32",
    available=Availability.of(("optical", "sar"), ORDER),
    inputs=(InputFile(name="scene.tif", sha256="cd" * 32), InputFile(name="sär 2.tif", sha256="ef" * 32)),
)


@cache
def registry() -> Registry[Any]:
    resources: dict[str, Any] = {"https://proj.org/schemas/v0.7/projjson.schema.json": {}}
    for path in SCHEMAS.glob("*-v*.json"):
        name, version = path.stem.rsplit("-", 1)
        url = f"https://stac-extensions.github.io/{name}/{version}/schema.json"
        resources |= {url: json.loads(path.read_text()) | {"$id": url}}
    for path in CORE.rglob("*.json"):
        schema = json.loads(path.read_text())
        schema["$id"] = f"{schema['$id'].rpartition('/')[0]}/{path.name}"  # common.json calls itself `commonjson`
        resources[schema["$id"]] = schema
    both = [(u, s) for url, s in resources.items() for u in (url, url + "#")]
    return Registry().with_resources((u, Resource(contents=s, specification=DRAFT7)) for u, s in both)


def errors(item: dict[str, Any]) -> list[str]:
    found = registry()
    core = "https://schemas.stacspec.org/v1.1.0/item-spec/json-schema/item.json"
    return [
        f"{url}: {error.json_path} {error.message}"
        for url in (core, *item["stac_extensions"])
        for error in Draft7Validator(found.contents(url), registry=found).iter_errors(item)
    ]


def make(
    folder: Path, grid: Grid = GRID, acquired: Acquisition | None = None, probs: bool = True
) -> tuple[dict[str, Any], Outputs, MapCounts]:
    folder.mkdir(exist_ok=True)
    outputs = plan_outputs(folder / "scene_map.tif", probs=probs)
    assert outputs.quicklook is not None
    assert outputs.item is not None
    classes = np.full(grid.shape, 2, np.uint8)
    classes[0], classes[1] = 255, 1
    valid = classes != 255
    sensors = np.where(valid, 3, 0).astype(np.uint8)
    sensors[-1] = 2
    p = np.where(valid, np.full((2, *grid.shape), 125), 255).astype(np.uint8)
    with MapWriter(grid, outputs, legend=LEGEND, order=ORDER, tags=PROVENANCE.tags()) as writer:
        writer.write(grid.window, classes, np.where(valid, 50, 255).astype(np.uint8), sensors, p if probs else None)
        counts = writer.finish()
        part = part_of(outputs.map)
        write_quicklook(part, part_of(outputs.quicklook), legend=LEGEND, counts=counts, title="scene")
        item = map_item(
            grid=grid,
            outputs=outputs,
            counts=counts,
            legend=LEGEND,
            nodata=255,
            provenance=PROVENANCE,
            acquired=acquired,
        )
        write_item(item, part_of(outputs.item))
    return item, outputs, counts


@pytest.mark.parametrize("when", [None, "2020-04-12", "2020-04-12T14:27:41Z", "2020-04-01/2020-04-12"])
@pytest.mark.parametrize("crs", [UTM, SPHERE, LOCAL], ids=["epsg", "no code", "local"])
def test_items_are_valid(tmp_path: Path, when: str | None, crs: str) -> None:
    grid = Grid(40, 60, GRID.transform, crs)
    item, outputs, _ = make(tmp_path / "a", grid, parse_acquisition(when) if when else None, probs=when is None)
    assert errors(item) == []
    assert tuple(item["stac_extensions"]) == EXTENSIONS
    assert outputs.item is not None
    stored = json.loads(outputs.item.read_text(encoding="utf-8"))
    assert stored == json.loads(json.dumps(item))
    Item.from_dict(stored)


def test_the_schemas_can_fail(tmp_path: Path) -> None:
    """The validation above would notice: each of these breaks another schema."""
    item, _, _ = make(tmp_path / "a")
    sensors = item["assets"]["sensors"]
    for holder, key, value in (
        (item, "bbox", [0]),
        (item["properties"], "start_datetime", None),
        (item["properties"], "proj:shape", [1.5, 2]),
        (item["properties"], "processing:software", "mmedge"),
        (sensors, "file:size", "large"),
        (sensors, "classification:bitfields", [{"offset": 0}]),
        (sensors, "raster:spatial_resolution", "fine"),
    ):
        kept = holder[key]
        holder[key] = value
        assert errors(item), key
        holder[key] = kept
    assert errors(item) == []


def test_an_unknown_date_is_said(tmp_path: Path) -> None:
    properties = make(tmp_path / "a")[0]["properties"]
    assert properties["datetime"] is None
    assert properties["mmedge:datetime_unknown"] is True
    assert properties["start_datetime"] == "1900-01-01T00:00:00Z"
    known = make(tmp_path / "b", acquired=parse_acquisition("2020-04-12"))[0]["properties"]
    assert "mmedge:datetime_unknown" not in known
    assert (known["start_datetime"], known["end_datetime"]) == ("2020-04-12T00:00:00Z", "2020-04-12T23:59:59Z")
    assert known["mmedge:datetime_source"] == "--datetime"
    instant = make(tmp_path / "c", acquired=parse_acquisition("2020-04-12T14:27:41Z"))[0]["properties"]
    assert instant["datetime"] == "2020-04-12T14:27:41Z"
    assert "start_datetime" not in instant


def test_what_it_says_is_true_of_the_files(tmp_path: Path) -> None:
    item, outputs, _ = make(tmp_path / "a")
    for asset in item["assets"].values():
        path = outputs.map.parent / asset["href"]
        raw = path.read_bytes()
        assert asset["file:size"] == len(raw)
        assert asset["file:checksum"] == "1220" + hashlib.sha256(raw).hexdigest()
    assert set(item["assets"]) == {"map", "confidence", "sensors", "probs", "quicklook"}
    properties = item["properties"]
    assert properties["proj:code"] == "EPSG:32719"
    assert properties["proj:shape"] == [40, 60]
    assert properties["mmedge:nodata_share"] == pytest.approx(1 / 40)
    assert properties["mmedge:class_share"] == {
        "water": pytest.approx(1 / 39, abs=1e-6),
        "trees": pytest.approx(38 / 39, abs=1e-6),
    }
    assert properties["mmedge:sensors_share"] == {
        "sar": pytest.approx(1 / 39, abs=1e-6),
        "optical+sar": pytest.approx(38 / 39, abs=1e-6),
    }
    assert [link["href"] for link in item["links"]] == ["./scene.tif", "./sär 2.tif"]
    assert item["assets"]["map"]["classification:classes"][0] == {
        "value": 1,
        "name": "water",
        "description": "water",
        "color_hint": "0064C8",
    }
    assert item["assets"]["map"]["raster:spatial_resolution"] == pytest.approx(10, abs=0.01)


def test_same_map_same_item_and_nothing_of_the_machine(tmp_path: Path) -> None:
    a, b = make(tmp_path / "a")[1].item, make(tmp_path / "b")[1].item
    assert a is not None
    assert b is not None
    assert a.read_bytes() == b.read_bytes()
    assert str(tmp_path).encode() not in a.read_bytes()


def grid_at(epsg: int, transform: tuple[float, ...], rows: int = 1000, cols: int = 1000) -> Grid:
    return Grid(rows, cols, transform, CRS.from_epsg(epsg).to_wkt())  # type: ignore[arg-type]


PLACES = {
    "degrees": (grid_at(4326, (0.001, 0, 10, 0, -0.001, 60)), [10, 59, 11, 60]),
    "whole globe": (grid_at(4326, (0.36, 0, -180, 0, -0.18, 90)), [-180, -90, 180, 90]),
    "beyond 180": (grid_at(4326, (0.001, 0, 179.5, 0, -0.001, 60)), [179.5, 59, -179.5, 60]),
    "0 to 360": (grid_at(4326, (0.001, 0, 200, 0, -0.001, 60)), [-160, 59, -159, 60]),
    "north pole": (grid_at(3413, (3000, 0, -1.5e6, 0, -3000, 1.5e6)), [-180, 70.597566, 180, 90]),
    "south pole": (grid_at(3031, (3000, 0, -1.5e6, 0, -3000, 1.5e6)), [-180, -90, 180, -70.654568]),
    "fiji": (
        grid_at(3460, (100, 0, 1.9e6, 0, -100, 4e6), 1000, 3000),
        [177.806327, -17.903642, -179.362475, -16.991303],
    ),
    "upside down": (grid_at(4326, (0.001, 0, 10, 0, 0.001, 59)), [10, 59, 11, 60]),
}


@pytest.mark.parametrize("place", PLACES)
def test_footprints(place: str) -> None:
    shapely = pytest.importorskip("shapely")
    grid, expected = PLACES[place]
    geometry, bbox = footprint(grid)
    assert bbox == pytest.approx(expected, abs=1e-5)
    shape = shapely.geometry.shape(geometry)
    assert shape.is_valid
    assert shape.geom_type == ("MultiPolygon" if bbox[0] > bbox[2] else "Polygon")
    west, south, east, north = shape.bounds
    assert -180 <= west <= east <= 180
    assert -90 <= south <= north <= 90
    for part in getattr(shape, "geoms", [shape]):
        assert part.exterior.is_ccw  # RFC 7946


def test_pixel_sizes_on_the_ground() -> None:
    """Against known lengths: a degree on WGS 84 at 60 degrees, a US survey foot, the scale of UTM and of Mercator."""
    assert pixel_size_m(grid_at(4326, (1e-3, 0, 10, 0, -1e-3, 60.5))) == pytest.approx((55.8, 111.41), rel=2e-3)
    assert pixel_size_m(grid_at(2263, (10, 0, 980000, 0, -10, 200000))) == pytest.approx((3.048, 3.048), rel=1e-4)
    assert pixel_size_m(grid_at(32719, (10, 0, 495000, 0, -10, 6e6))) == pytest.approx((10.004, 10.004), rel=1e-5)
    assert pixel_size_m(grid_at(3857, (10, 0, 1e6, 0, -10, 8399738))) == pytest.approx((5.01, 5.01), rel=2e-3)
    rotated = grid_at(32719, (8, 6, 495000, 6, -8, 6e6))
    assert pixel_size_m(rotated) == pytest.approx((10.004, 10.004), rel=1e-4)
