"""CRS and vertical unit of point clouds, compared with pyproj's EPSG names by way of rasterio."""

from __future__ import annotations

import struct
from pathlib import Path

import laspy
import pytest
from laspy.vlrs.vlr import VLR
from rasterio.crs import CRS

from mmedge.errors import GeoreferenceError
from mmedge.geo_io.pointclouds.cloud import open_cloud
from mmedge.geo_io.pointclouds.las_crs import CloudCrs, split_wkt

DATA = Path(__file__).parents[2] / "data" / "lidar"
US_FT = 1200 / 3937


def crs_of(path: Path, **options: object) -> CloudCrs:
    return open_cloud(path, **({"crs": None, "z_unit_m": None, "swap_xy": False} | options)).crs  # type: ignore[arg-type]


def write(path: Path, *, version: str, kind: int, wkt: str = "", keys: list[tuple[int, int]] | None = None) -> Path:
    """One point, with the CRS records that are asked for."""
    header = laspy.LasHeader(version=version, point_format=kind)
    las = laspy.LasData(header)
    las.x, las.y, las.z = [500_000.0], [4_000_000.0], [100.0]
    if wkt:
        las.header.vlrs.append(VLR("LASF_Projection", 2112, "", wkt.encode() + b"\0"))
    if keys:
        entries = b"".join(struct.pack("<4H", key, 0, 1, value) for key, value in keys)
        las.header.vlrs.append(VLR("LASF_Projection", 34735, "", struct.pack("<4H", 1, 1, 0, len(keys)) + entries))
    las.write(path)
    return path


def test_wkt_wins_in_new_formats_and_geotiff_keys_win_in_old_ones(tmp_path: Path) -> None:
    wkt, keys = CRS.from_epsg(32633).to_wkt(), [(1024, 1), (3072, 32617)]
    new = crs_of(write(tmp_path / "new.las", version="1.4", kind=6, wkt=wkt, keys=keys))
    old = crs_of(write(tmp_path / "old.las", version="1.2", kind=3, wkt=wkt, keys=keys))
    assert (CRS.from_wkt(new.wkt).to_epsg(), CRS.from_wkt(old.wkt).to_epsg()) == (32633, 32617)
    assert not any("prefer" in note for note in new.notes + old.notes)


def test_the_record_that_is_not_preferred_is_used_and_said(tmp_path: Path) -> None:
    found = crs_of(write(tmp_path / "new.las", version="1.4", kind=6, wkt="PROJCS[", keys=[(1024, 1), (3072, 32617)]))
    assert CRS.from_wkt(found.wkt).to_epsg() == 32617
    assert any("does not prefer" in note for note in found.notes)


@pytest.mark.parametrize(
    ("epsg", "unit_m"),
    [
        ("EPSG:32633+5773", 1.0),  # EGM96 height, metres
        ("EPSG:2991+6360", US_FT),  # NAVD88 height (ftUS)
        ("EPSG:2992+8228", 0.3048),  # NAVD88 height (ft)
        ("EPSG:2992", 0.3048),  # Oregon GIC Lambert (ft): z as x and y
        ("EPSG:2264", US_FT),  # North Carolina (ftUS)
        ("EPSG:32633", 1.0),
        ("EPSG:4326", 1.0),  # degrees: z in metres
        ("EPSG:4979", 1.0),
    ],
)
@pytest.mark.parametrize("version", ["WKT1_GDAL", "WKT2_2019"])
def test_heights_are_metres_whatever_the_vertical_unit(epsg: str, unit_m: float, version: str) -> None:
    if version == "WKT1_GDAL" and epsg == "EPSG:4979":
        pytest.skip("WKT 1 has no three-dimensional geographic CRS")
    wkt = CRS.from_user_input(epsg).to_wkt(version=version)
    found = crs_of(DATA / "hextest.las", crs=wkt)
    assert found.z_unit_m == pytest.approx(unit_m, rel=1e-9)
    horizontal = CRS.from_wkt(found.wkt)
    assert horizontal == CRS.from_user_input(epsg.partition("+")[0])
    assert "VERT" not in found.wkt


def test_vertical_unit_of_geotiff_keys(tmp_path: Path) -> None:
    keys = [(1024, 1), (3072, 32633), (4099, 9003)]
    assert crs_of(write(tmp_path / "ft.las", version="1.2", kind=1, keys=keys)).z_unit_m == pytest.approx(US_FT)


def test_liblas_counts_its_terminator_and_more_zero_keys_are_damage(tmp_path: Path) -> None:
    keys = [(1024, 1), (3072, 32617)]
    raw = write(tmp_path / "a.las", version="1.2", kind=1, keys=[*keys, (0, 0)]).read_bytes()
    at = raw.index(struct.pack("<4H", 0, 0, 1, 0))
    one = tmp_path / "one.las"
    one.write_bytes(raw[:at] + bytes(8) + raw[at + 8 :])
    assert CRS.from_wkt(crs_of(one).wkt).to_epsg() == 32617
    with pytest.raises(GeoreferenceError, match="cannot be read"):
        crs_of(DATA / "bad-geotiff-keys.las")


def test_a_foot_with_factor_one_is_read_as_a_foot() -> None:
    found = crs_of(DATA / "test1_4.las")  # VERTCS[..., UNIT["US survey foot",1.0]]
    assert found.z_unit_m == pytest.approx(US_FT)
    assert any("read as feet" in text for text in found.warnings)
    assert crs_of(DATA / "test1_4.las", z_unit_m=1.0).z_unit_m == 1.0


def test_a_geocentric_crs_has_no_map_plane() -> None:
    with pytest.raises(GeoreferenceError, match="no map plane"):
        crs_of(DATA / "hextest.las", crs="EPSG:4978")
    with pytest.raises(GeoreferenceError, match="is not a CRS"):
        crs_of(DATA / "hextest.las", crs="EPSG:0")


def test_brackets_by_the_million_are_an_error_not_a_crash() -> None:
    for text in ("A[" * 100_000, "]" * 100_000, "", '"', "A[" * 100_000 + "]" * 100_000 + "]"):
        with pytest.raises(ValueError, match="unbalanced"):
            split_wkt(text)
