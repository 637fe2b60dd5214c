"""Acquisition dates: what real names and tags say, and what must not be taken for a date."""

from __future__ import annotations

import pytest

from mmedge.errors import UsageError
from mmedge.geo_io.acquired import acquisition_date, find_acquisition, join_acquisitions, parse_acquisition

NAMES = {
    "S2A_MSIL2A_20200412T142741_N0214_R053_T19HCC_20200412T184500.SAFE": "2020-04-12T14:27:41Z",
    "S1A_IW_GRDH_1SDV_20200412T101112_20200412T101137_032098_03B5E7_1A2B.tif": "2020-04-12T10:11:12Z",
    "LC08_L1TP_233083_20200412_20200822_02_T1_B4.TIF": "2020-04-12",
    "LE07_L2SP_233083_20030101_20200822_02_T1.tif": "2003-01-01",
    "T19HCC_20200412T142741_B02_10m.jp2": "2020-04-12T14:27:41Z",
    "scene_2020-04-12.tif": "2020-04-12",
    "scene_2020_04_12_v2.tif": "2020-04-12",
    "20200412.tif": "2020-04-12",
    "2020-04-12_again_20200412.tif": "2020-04-12",
    "scene.tif": None,
    "20201312.tif": None,  # no thirteenth month
    "20210229.tif": None,  # no leap year
    "12042020.tif": None,  # day or month first: the year would be 1204
    "tile_1202004123.tif": None,  # digits around it
    "2020.tif": None,
    "202004.tif": None,
    "2020-0412.tif": None,
    "change_20200412_20210412.tif": None,  # which of the two?
    "20200412T256161.tif": None,  # no such time
    "S2A_MSIL2A_20201412T142741_N0214.SAFE": None,
}


@pytest.mark.parametrize("name", NAMES)
def test_file_names(name: str) -> None:
    assert acquisition_date({}, name) == NAMES[name]


@pytest.mark.parametrize(
    ("tags", "expected"),
    [
        ({"TIFFTAG_DATETIME": "2020:04:12 14:27:41"}, "2020-04-12T14:27:41Z"),
        ({"ACQUISITION_DATE": "2020-04-12"}, "2020-04-12"),
        ({"ACQUISITIONDATETIME": "2020-04-12T14:27:41.024Z"}, "2020-04-12T14:27:41Z"),
        ({"PRODUCT_START_TIME": "2020-04-12T23:30:00-03:00"}, "2020-04-13T02:30:00Z"),
        ({"DATE_ACQUIRED": "2020-04-12", "TIFFTAG_DATETIME": "2021:01:01 00:00:00"}, "2020-04-12"),
        ({"DATATAKE_1_DATATAKE_SENSING_START": "later"}, None),
        ({"ACQUISITION_DATE": "12/04/2020"}, None),
        ({"TIFFTAG_DATETIME": "0000:00:00 00:00:00"}, None),
        ({"PROCESSING_DATE": "2020-04-12"}, None),
        ({"ACQUISITION_MODE": "2020-04-12"}, None),
    ],
)
def test_tags(tags: dict[str, str], expected: str | None) -> None:
    assert acquisition_date(tags, "scene.tif") == expected


def test_what_says_it_is_kept_and_ranked() -> None:
    """A tag of acquisition before the name, the name before the time of writing."""
    tags = {"TIFFTAG_DATETIME": "2022:01:01 00:00:00", "ACQUISITION_DATE": "2020-04-12"}
    found = [
        find_acquisition("s_20210505.tif", tags),
        find_acquisition("s_20210505.tif", {"TIFFTAG_DATETIME": "2022:01:01 00:00:00"}),
        find_acquisition("s.tif", {"TIFFTAG_DATETIME": "2022:01:01 00:00:00"}),
    ]
    assert [a.source for a in found if a] == ["tag ACQUISITION_DATE", "file name", "tag TIFFTAG_DATETIME"]


@pytest.mark.parametrize("text", ["2020-04-12", "2020-04-12T14:27:41Z", "2020-04-01T00:00:00Z/2020-04-12T10:00:00Z"])
def test_text_round_trips(text: str) -> None:
    assert str(parse_acquisition(text)) == text


def test_a_span_of_days_ends_with_its_last_day() -> None:
    assert str(parse_acquisition("2020-04-01/2020-04-12")) == "2020-04-01T00:00:00Z/2020-04-12T23:59:59Z"


@pytest.mark.parametrize(
    "text", ["", "yesterday", "2020-13-01", "2020-04-12/", "2020-04-12/2020-04-01", "a/b/c", "1066-10-14"]
)
def test_bad_datetimes(text: str) -> None:
    with pytest.raises(UsageError) as caught:
        parse_acquisition(text)
    assert caught.value.hint


def test_several_sources() -> None:
    a, b = parse_acquisition("2020-04-12"), parse_acquisition("2020-04-14T10:00:00Z", source="tag X")
    assert str(join_acquisitions([b, a])) == "2020-04-12T00:00:00Z/2020-04-14T10:00:00Z"
    assert join_acquisitions([a, None]) is None
    assert join_acquisitions([]) is None
