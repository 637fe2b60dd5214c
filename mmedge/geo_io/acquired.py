"""When a scene was acquired, as far as its tags and its name say; never a guess."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime, time, timedelta, timezone

from mmedge.errors import UsageError

UTC = timezone.utc
MIDNIGHT = time()
DAY = timedelta(days=1) - timedelta(seconds=1)
FIRST_YEAR, LAST_YEAR = 1900, 2099

# Tags that say when the sensor looked. TIFFTAG_DATETIME, the time of writing in many products, is the last resort.
ACQUISITION_TAG = re.compile(
    r"(ACQUISITION|SENSING|DATATAKE|PRODUCT_START|SCENE_CENTER)_?(DATE|TIME|DATETIME|START|SENSING_START)?(_?TIME)?"
    r"|DATE_ACQUIRED|MMEDGE_DATETIME",
    re.IGNORECASE,
)

# (name, date and time of the acquisition) of products whose names hold a second date, that of processing
PRODUCTS = (
    re.compile(r"^S1[A-D]_.*?_(?P<ymd>\d{8})T(?P<hms>\d{6})_\d{8}T\d{6}_"),
    re.compile(r"^S2[A-D]_MSIL(?:1C|2A)_(?P<ymd>\d{8})T(?P<hms>\d{6})(?!\d)"),
    re.compile(r"^L[COTEM]0[4-9]_L\d[A-Z]{2}_\d{6}_(?P<ymd>\d{8})_\d{8}_"),
)
NAMED_TIME = re.compile(r"(?<![0-9])(?P<ymd>\d{8})T(?P<hms>\d{6})(?![0-9])")
NAMED_DAY = re.compile(r"(?<![0-9])(\d{4})([-_]?)(\d{2})\2(\d{2})(?![0-9])")
STAMP = re.compile(
    r"(\d{4})[-:/](\d{2})[-:/](\d{2})(?:[T ](\d{2}):(\d{2})(?::(\d{2})(?:\.\d+)?)?)?\s*(Z|UTC|[+-]\d{2}:?\d{2})?"
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Acquisition:
    """From when to when a scene was acquired, in UTC, and what says so. `start` = `end`: an instant.

    Prints as ISO 8601: `2020-04-12` (a day), `2020-04-12T14:27:41Z` or `start/end`; `parse_acquisition` reads it.
    """

    start: datetime
    end: datetime
    source: str

    def __str__(self) -> str:
        if self.end - self.start == DAY and self.start.time() == MIDNIGHT:
            return self.start.date().isoformat()
        return "/".join(dict.fromkeys((rfc3339(self.start), rfc3339(self.end))))


def rfc3339(moment: datetime) -> str:
    """A time in UTC to the second."""
    return moment.strftime("%Y-%m-%dT%H:%M:%SZ")


def find_acquisition(name: str, tags: Mapping[str, str]) -> Acquisition | None:
    """The acquisition of a file: from its tags, else its name, else TIFFTAG_DATETIME; None where nothing is certain.

    A day without a time is the whole day. A name with several different dates says nothing, unless it is that of a
    Sentinel-1, Sentinel-2 or Landsat product. Times without a zone are taken for UTC.
    """
    for key in sorted(tags):
        if ACQUISITION_TAG.fullmatch(key) and (found := _stamp(tags[key], f"tag {key}")):
            return found
    return _from_name(name) or _stamp(tags.get("TIFFTAG_DATETIME", ""), "tag TIFFTAG_DATETIME")


def acquisition_date(tags: Mapping[str, str], name: str) -> str | None:
    """`find_acquisition` as ISO 8601 text."""
    found = find_acquisition(name, tags)
    return str(found) if found else None


def parse_acquisition(text: str, *, source: str = "--datetime") -> Acquisition:
    """What a user gives as `--datetime`: `2020-04-12`, `2020-04-12T14:27:41Z`, or two of them with `/` between.

    Raises UsageError.
    """
    found = [_stamp(part, source) for part in text.split("/")]
    if len(found) > 2 or None in found:
        raise UsageError(f"`{text}` is not a date or time", hint="--datetime 2020-04-12T14:27:41Z")
    span = join_acquisitions([a for a in found if a])
    if span is None or (found[0] and found[-1] and found[0].start > found[-1].end):
        raise UsageError(f"`{text}` ends before it starts", hint="--datetime 2020-04-01/2020-04-12")
    return span


def join_acquisitions(acquisitions: Iterable[Acquisition | None]) -> Acquisition | None:
    """The span that holds those of several sources; None where one of them is unknown, or there are none.

    Leave out sources that have no date by nature, such as elevation.
    """
    found = list(acquisitions)
    known = [a for a in found if a is not None]
    if not known or len(known) < len(found):
        return None
    sources = dict.fromkeys(a.source for a in known)
    return Acquisition(start=min(a.start for a in known), end=max(a.end for a in known), source=", ".join(sources))


def _from_name(name: str) -> Acquisition | None:
    for product in PRODUCTS:
        if match := product.match(name):
            return _named(match["ymd"], match.groupdict().get("hms"))
    times = {match.group("ymd", "hms") for match in NAMED_TIME.finditer(name)}
    days = {year + month + day for year, _, month, day in NAMED_DAY.findall(NAMED_TIME.sub(" ", name))}
    found = [a for a in (*(_named(*t) for t in times), *(_named(d, None) for d in days)) if a]
    return found[0] if len(found) == 1 else None


def _named(ymd: str, hms: str | None) -> Acquisition | None:
    date = (int(ymd[:4]), int(ymd[4:6]), int(ymd[6:8]))
    clock = (int(hms[:2]), int(hms[2:4]), int(hms[4:6])) if hms else None
    return _acquisition(date, clock, "file name")


def _stamp(text: str, source: str) -> Acquisition | None:
    """A written date (`2020-04-12`, TIFF's `2020:04:12 14:27:41`), with or without a time and a zone."""
    match = STAMP.fullmatch(text.strip())
    if not match:
        return None
    year, month, day, hour, minute, second, zone = match.groups()
    clock = (int(hour), int(minute), int(second or 0)) if hour else None
    found = _acquisition((int(year), int(month), int(day)), clock, source)
    if found is None or zone in (None, "Z", "UTC"):
        return found
    hours, minutes = int(zone[1:3]), int(zone[-2:])
    ahead = timedelta(hours=hours, minutes=minutes) * (-1 if zone[0] == "-" else 1)
    return Acquisition(start=found.start - ahead, end=found.end - ahead, source=source)


def _acquisition(date: tuple[int, int, int], clock: tuple[int, int, int] | None, source: str) -> Acquisition | None:
    """None for what is no date, or none at which anyone could have acquired a scene."""
    try:
        start = datetime(*date, *(clock or (0, 0, 0)), tzinfo=UTC)
    except ValueError:
        return None
    if not FIRST_YEAR <= start.year <= LAST_YEAR:
        return None
    return Acquisition(start=start, end=start if clock else start + DAY, source=source)
