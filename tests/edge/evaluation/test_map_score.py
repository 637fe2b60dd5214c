"""A finished map against points, polygons and a raster."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import rasterio
from rasterio.transform import Affine

from mmedge.edge.evaluation.area import Z95, estimate_area
from mmedge.edge.evaluation.map_score import score_map
from mmedge.edge.evaluation.report import markdown
from mmedge.errors import SceneError
from mmedge.geo_io.labels import LabelFile

shapely = pytest.importorskip("shapely")
pyogrio = pytest.importorskip("pyogrio")
UTM = rasterio.crs.CRS.from_epsg(32718).to_wkt()


def write_map(path: Path, codes: np.ndarray) -> Path:
    profile = {"driver": "GTiff", "count": 1, "dtype": "uint8", "crs": UTM, "nodata": 255}
    profile["transform"] = Affine(10, 0, 700_000, 0, -10, 5_700_000)
    with rasterio.open(path, "w", height=codes.shape[0], width=codes.shape[1], **profile) as out:
        out.write(codes.astype(np.uint8), 1)
        out.update_tags(CLASS_1="water", CLASS_2="trees", CLASS_3="crops")
    return path


def write_units(path: Path, geometries: list[object], values: list[object]) -> LabelFile:
    blobs = shapely.to_wkb(np.array(geometries, object))
    pyogrio.raw.write(str(path), blobs, [np.array(values)], ["class"], geometry_type="Unknown", crs=UTM)
    return LabelFile(path=path)


def centre(row: int, col: int) -> object:
    return shapely.Point(700_005 + 10 * col, 5_699_995 - 10 * row)


CODES = np.ones((20, 30))
CODES[:, 10:] = 2
CODES[19, :] = 255


def no_warning(text: str) -> None:
    raise AssertionError(text)


def test_points_give_areas_with_intervals(tmp_path: Path) -> None:
    places = [(r, c) for r in (1, 5, 9) for c in (2, 5, 12, 20, 28)]
    truth = ["water" if c < 10 and r > 1 else "trees" for r, c in places]
    labels = write_units(tmp_path / "p.gpkg", [centre(*p) for p in places], truth)
    document = score_map(write_map(tmp_path / "m.tif", CODES), labels, warn=no_warning)
    counts = np.array([[4, 2], [0, 9]])
    expected = estimate_area(counts, np.array([190, 380]))
    assert document["confusion"] == counts.T.tolist()
    assert document["units"] == 15
    water = document["area_adjusted"]["classes"]["water"]
    total_ha = 570 * water["mapped_ha"] / 190
    assert total_ha == pytest.approx(5.7, rel=2e-3)  # UTM away from its central meridian
    assert water["area_ha"] == pytest.approx(
        [expected.area[0] * total_ha, Z95 * expected.area_se[0] * total_ha], abs=2e-4
    )
    assert document["area_adjusted"]["overall"][0] == pytest.approx(expected.overall, abs=1e-4)
    assert "user's accuracy" in markdown(document)


def test_a_polygon_is_one_unit(tmp_path: Path) -> None:
    boxes = [
        shapely.box(700_000, 5_699_900, 700_130, 5_700_000),  # 10 columns of water, 3 of trees
        shapely.box(700_150, 5_699_900, 700_300, 5_700_000),
        shapely.box(700_000, 5_699_850, 700_050, 5_699_880),
        shapely.box(700_150, 5_699_850, 700_200, 5_699_880),
        shapely.box(700_000, 5_699_800, 700_050, 5_699_810),  # nodata in the map
    ]
    labels = write_units(tmp_path / "p.gpkg", boxes, ["water", "trees", "crops", "trees", "water"])
    document = score_map(write_map(tmp_path / "m.tif", CODES), labels, warn=no_warning)
    assert document["units"] == 4
    assert document["confusion"] == [[1, 0, 0], [0, 2, 0], [1, 0, 0]]
    assert document["area_adjusted"]["classes"]["crops"]["producer"][0] == 0


def test_a_class_without_units_is_said(tmp_path: Path) -> None:
    codes = CODES.copy()
    codes[0, 0] = 3
    places = [(5, 2), (6, 2), (5, 12), (6, 12)]
    labels = write_units(tmp_path / "p.gpkg", [centre(*p) for p in places], [1, 1, 2, 2])
    said: list[str] = []
    document = score_map(write_map(tmp_path / "m.tif", codes), labels, warn=said.append)
    assert "class `crops` covers 0.2% of the map" in said[0]
    assert document["area_adjusted"]["overall"] == [1.0, 0.0]


def test_a_raster_is_no_sample(tmp_path: Path) -> None:
    labels = LabelFile(path=write_map(tmp_path / "l.tif", np.where(CODES == 1, 1, 2)))
    document = score_map(write_map(tmp_path / "m.tif", CODES), labels, warn=no_warning)
    assert document["units"] == 570
    assert document["oa"] == 1
    assert "area_adjusted" not in document
    assert "Area-adjusted" not in markdown(document)


def test_labels_elsewhere(tmp_path: Path) -> None:
    labels = write_units(tmp_path / "p.gpkg", [shapely.Point(0, 0)], [1])
    with pytest.raises(SceneError, match="no label"):
        score_map(write_map(tmp_path / "m.tif", CODES), labels, warn=no_warning)
