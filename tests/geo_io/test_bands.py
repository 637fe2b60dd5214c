"""Band names and their aliases."""

from __future__ import annotations

import pytest

from mmedge.geo_io.bands import band_in_file_name, band_name, sensor_name, split_description


@pytest.mark.parametrize(
    ("description", "meant"),
    [
        ("optical:B02", ("optical", "B02")),
        ("B2", ("optical", "B02")),
        ("blue", ("optical", "B02")),
        ("b8a", ("optical", "B8A")),
        ("sentinel-1:vv", ("sar", "VV")),
        ("vh", ("sar", "VH")),
        ("lidar:DEM", ("elevation", "DEM")),
        ("Elevation", ("elevation", "DEM")),
        ("hsi:band 17", ("hsi", "band 17")),
        ("thermal", (None, "thermal")),
        ("", (None, None)),
        (None, (None, None)),
    ],
)
def test_descriptions(description: str | None, meant: tuple[str | None, str | None]) -> None:
    assert split_description(description) == meant


def test_aliases_of_sensors_and_bands() -> None:
    assert sensor_name("LiDAR") == "elevation"
    assert sensor_name("radar") == "sar"
    assert band_name("SWIR16") == "B11"


def test_a_file_name_counts_only_where_it_is_unambiguous() -> None:
    assert band_in_file_name("T18HYC_20200412T141741_B04_10m") == "B04"
    assert band_in_file_name("S1A_IW_GRDH_VV") == "VV"
    assert band_in_file_name("stack_B02_B03") is None
    assert band_in_file_name("mosaic") is None
