"""The picture of a map for people: classes, legend with shares, scale bar, north arrow.

Pillow only, with its built-in font: the same map gives the same bytes. No data is hatched, so that no class colour
can be taken for it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from math import floor, log10
from pathlib import Path

import numpy as np
import numpy.typing as npt
import rasterio
from PIL import Image, ImageDraw, ImageFont
from rasterio.enums import Resampling
from rasterio.io import DatasetReader

from mmedge.bundle import LandClass
from mmedge.errors import GeoreferenceError
from mmedge.geo_io.ground import pixel_size_m
from mmedge.geo_io.maps.mapwriter import MapCounts
from mmedge.grid import Grid

RGB = tuple[int, int, int]

LONG_SIDE_PX = 1600  # a scene is drawn at most this long
SMALL_SIDE_PX = 800  # a small scene is enlarged by whole factors up to about this length
MARGIN = 40
PANEL_PX = 380
PAPER: RGB = (255, 255, 255)
INK: RGB = (33, 37, 41)
MUTED: RGB = (108, 117, 125)
LINE: RGB = (206, 212, 218)
NODATA: RGB = (241, 243, 245)
HATCH: RGB = (206, 212, 218)
HATCH_PX = 12
PNG_LEVEL = 2  # half the time of the default; plain areas stay small


@dataclass(frozen=True, slots=True)
class _Entry:
    """One line of the legend."""

    name: str
    color: RGB | None  # None: hatched
    share: float


def write_quicklook(
    map_tif: str | Path,
    png: str | Path,
    *,
    legend: Sequence[LandClass],
    counts: MapCounts,
    title: str,
    subtitle: str = "",
) -> None:
    """Draw the finished map `map_tif` into `png`: at most 1,600 px on its long side, true proportions on the ground.

    `title` is the scene's name, `subtitle` what it was made from. The legend holds the classes that occur, with their
    share of the scene's area. A local CRS, whose place on the Earth nobody knows, gets no scale bar.
    """
    with rasterio.open(map_tif) as dataset:
        grid = Grid(dataset.height, dataset.width, tuple(dataset.transform)[:6], dataset.crs.to_wkt())
        pixel_m = _pixel_m(grid)
        picture, scale = _draw_map(dataset, legend, pixel_m or grid.pixel_size)
    entries = _entries(legend, counts)
    wide = picture.width > 1.9 * picture.height
    sheet = _Sheet(picture, beside=not wide)
    sheet.header(title, subtitle)
    sheet.legend(entries)
    a, b, _, d, e, _ = grid.transform
    if pixel_m:
        sheet.scale_bar(scale, north_up=a > 0 and e < 0 and b == d == 0)
    sheet.image.save(png, format="PNG", compress_level=PNG_LEVEL)


def _pixel_m(grid: Grid) -> tuple[float, float] | None:
    try:
        return pixel_size_m(grid)
    except GeoreferenceError:
        return None


def _draw_map(
    dataset: DatasetReader, legend: Sequence[LandClass], pixel: tuple[float, float]
) -> tuple[Image.Image, float]:
    """The map in its colours and true proportions, and the length of one of its pixels in the unit of `pixel`."""
    width, height = dataset.width * pixel[0], dataset.height * pixel[1]
    longest = max(dataset.shape)
    target = LONG_SIDE_PX if longest > SMALL_SIDE_PX else longest * max(1, SMALL_SIDE_PX // longest)
    scale = max(width, height) / target
    shape = max(1, round(height / scale)), max(1, round(width / scale))
    resampling = Resampling.mode if max(shape) < longest else Resampling.nearest
    return _colored(dataset.read(1, out_shape=shape, resampling=resampling), legend), scale


def _colored(classes: npt.NDArray[np.uint8], legend: Sequence[LandClass]) -> Image.Image:
    palette, unknown = np.zeros((256, 3), np.uint8), np.full(256, 255, np.uint8)
    for c in legend:
        palette[c.value], unknown[c.value] = c.color, 0
    picture = Image.fromarray(classes)
    picture.putpalette(palette.tobytes())
    picture = picture.convert("RGB")
    blank = unknown[classes]
    if blank.any():
        picture.paste(_hatched(*classes.shape), mask=Image.fromarray(blank))
    return picture


def _hatched(height: int, width: int) -> Image.Image:
    """What stands for no data."""
    stripe = ((np.arange(height)[:, None] + np.arange(width)) % HATCH_PX < 2).astype(np.uint8)
    picture = Image.fromarray(stripe)
    picture.putpalette(bytes((*NODATA, *HATCH)))
    return picture.convert("RGB")


def _entries(legend: Sequence[LandClass], counts: MapCounts) -> list[_Entry]:
    """Classes that occur, the largest first, then nodata."""
    found = [
        _Entry(c.name, c.color, counts.classes[c.value] / counts.pixels) for c in legend if c.value in counts.classes
    ]
    found.sort(key=lambda entry: -entry.share)
    return [*found, _Entry("no data", None, counts.nodata / counts.pixels)] if counts.nodata else found


def percent(share: float) -> str:
    """A share as people write it; what occurs is never shown as 0."""
    if share < 0.001:
        return "< 0.1 %"
    return f"{100 * share:.1f} %"


def round_length(metres: float) -> float:
    """The largest 1, 2 or 5 times a power of ten that is not longer."""
    power = 10.0 ** floor(log10(metres) + 1e-9)
    return max(step * power for step in (1, 2, 5) if step == 1 or step * power <= metres * (1 + 1e-9))


def length_label(metres: float) -> str:
    """`500 m`, `2 km`, `20 cm`."""
    for unit, size in (("km", 1000.0), ("m", 1.0), ("cm", 0.01)):
        if metres >= size * (1 - 1e-9):
            return f"{metres / size:,.0f} {unit}"
    return f"{metres * 1000:.3g} mm"


class _Sheet:
    """A page with a map on it, and a panel beside (or below) it."""

    def __init__(self, picture: Image.Image, *, beside: bool) -> None:
        self.beside = beside
        map_width = max(picture.width, 120 if beside else 800)
        map_height = max(picture.height, 420 if beside else 1)
        self.left, self.top = MARGIN, 118
        panel_top = self.top + map_height + MARGIN
        self.panel = (self.left + map_width + MARGIN, self.top) if beside else (self.left, panel_top)
        self.panel_width = PANEL_PX if beside else map_width
        width = self.panel[0] + self.panel_width + MARGIN
        height = (self.top + map_height if beside else panel_top) + MARGIN
        self.image = Image.new("RGB", (width, height), PAPER)
        self.draw = ImageDraw.Draw(self.image)
        self.image.paste(picture, (self.left, self.top))
        frame = (self.left - 1, self.top - 1, self.left + picture.width, self.top + picture.height)
        self.draw.rectangle(frame, outline=LINE)

    def header(self, title: str, subtitle: str) -> None:
        width = self.image.width - 2 * MARGIN
        self._text((MARGIN, 30), _shorten(title, 34, width), 34, INK)
        self._text((MARGIN, 80), _shorten(subtitle, 20, width), 20, MUTED)

    def legend(self, entries: Sequence[_Entry]) -> None:
        """One column beside the map, as many as fit below it."""
        columns = max(1, self.panel_width // PANEL_PX)
        lines = -(-len(entries) // columns)
        self._grow(self.panel[1] + 40 * lines + 44 + 46 + MARGIN)
        for i, entry in enumerate(entries):
            x = self.panel[0] + i // lines * (self.panel_width // columns)
            self._entry(x, self.panel[1] + 40 * (i % lines), entry)
        self.cursor = self.panel[1] + 40 * lines + 44

    def scale_bar(self, metres_per_px: float, *, north_up: bool) -> None:
        """At the foot of the panel, alternating black and white, with an arrow where up is north."""
        x, y = self.panel[0], max(self.cursor, self.image.height - MARGIN - 46) if self.beside else self.cursor
        length_m = round_length(metres_per_px * (PANEL_PX - 90))
        length = length_m / metres_per_px
        for i in range(4):
            box = (x + round(length * i / 4), y, x + round(length * (i + 1) / 4), y + 10)
            self.draw.rectangle(box, fill=PAPER if i % 2 else INK, outline=INK)
        self._text((x, y + 20), "0", 20, INK)
        self._text((x + round(length), y + 20), length_label(length_m), 20, INK, anchor="ra")
        if north_up:
            self._north(x + PANEL_PX - 24, y + 38)

    def _entry(self, x: int, y: int, entry: _Entry) -> None:
        if entry.color is None:
            self.image.paste(_hatched(24, 34), (x, y))
        self.draw.rounded_rectangle((x, y, x + 34, y + 24), radius=4, fill=entry.color, outline=LINE)
        self._text((x + 48, y + 12), _shorten(entry.name, 22, PANEL_PX - 150), 22, INK, anchor="lm")
        self._text((x + PANEL_PX - 10, y + 12), percent(entry.share), 22, MUTED, anchor="rm")

    def _north(self, x: int, y: int) -> None:
        self._text((x, y - 62), "N", 22, INK, anchor="mm")
        self.draw.polygon([(x, y - 48), (x - 12, y), (x, y - 10)], fill=INK)
        self.draw.polygon([(x, y - 48), (x + 12, y), (x, y - 10)], fill=PAPER, outline=INK)

    def _text(self, xy: tuple[int, int], text: str, size: int, color: RGB, anchor: str = "la") -> None:
        self.draw.text(xy, _drawable(text), fill=color, font=ImageFont.load_default(size), anchor=anchor)

    def _grow(self, height: int) -> None:
        """Make room below."""
        if height <= self.image.height:
            return
        taller = Image.new("RGB", (self.image.width, height), PAPER)
        taller.paste(self.image)
        self.image, self.draw = taller, ImageDraw.Draw(taller)


def _drawable(text: str) -> str:
    """The built-in font has few signs beyond Latin: dashes become hyphens, what it lacks a question mark."""
    plain = text.translate({0x2013: "-", 0x2014: "-", 0x2026: "..."})
    return "".join("?" if _glyph(sign) == _glyph("\uffff") else sign for sign in plain)


@lru_cache(maxsize=512)
def _glyph(sign: str) -> tuple[tuple[int, int], bytes]:
    """Size and pixels of a sign."""
    mask = ImageFont.load_default(16).getmask(sign)
    return mask.size, bytes(mask)


def _shorten(text: str, size: int, width: int) -> str:
    font = ImageFont.load_default(size)
    if font.getlength(text) <= width:
        return text
    while text and font.getlength(text + "...") > width:
        text = text[:-1]
    return text + "..."
