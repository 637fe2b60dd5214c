"""What a raster file holds: its bands, grid and tags, and what a product's metadata add to them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path

from mmedge.geo_io.acquired import Acquisition
from mmedge.geo_io.location import Location
from mmedge.geo_io.rasters.gcp import ControlPoints, north_up
from mmedge.geo_io.rasters.quality import Rule
from mmedge.grid import Grid, Window
from mmedge.tile import Data, Valid

# What a reader does to scaled values (bands, rows, cols), their validity and the window that they were read from.
Convert = Callable[[Data, Valid, Window], tuple[Data, Valid]]
# What a raster without any georeference has for a transform.
NO_TRANSFORM = (1.0, 0.0, 0.0, 0.0, 1.0, 0.0)


@dataclass(frozen=True, slots=True, kw_only=True)
class RasterBand:
    """One band of a file. `sensor` and `name` are usual names, None where the file does not say.

    Values are `scale * DN + offset` once nodata is taken out; `tagged` tells whether the file itself gave them. `fill`
    are DN that are invalid beside the file's own nodata; `assumptions` are said when the band is used. `categorical`:
    the file says that values are classes (a palette, a thematic layer).
    """

    path: Location
    index: int
    sensor: str | None
    name: str | None
    dtype: str
    scale: float
    offset: float
    tagged: bool
    unit: str | None
    fill: tuple[float, ...] = ()
    wavelength_nm: float | None = None
    assumptions: tuple[str, ...] = ()
    categorical: bool = False

    @property
    def is_complex(self) -> bool:
        return self.dtype.startswith("complex")

    def named(self, sensor: str, name: str) -> RasterBand:
        return replace(self, sensor=sensor, name=name)

    def scaled(self, scale: float, offset: float) -> RasterBand:
        return replace(self, scale=scale, offset=offset, tagged=True)

    def assuming(self, text: str) -> RasterBand:
        return replace(self, assumptions=(*self.assumptions, text))

    def __str__(self) -> str:
        known = ":".join(part for part in (self.sensor, self.name) if part)
        return known or f"unnamed band {self.index}"


@dataclass(frozen=True, slots=True, kw_only=True)
class RasterFile:
    """What a raster holds. `grid.crs` is empty where the file has no CRS; then `control` may still place it.

    `strip_bytes`: what a row of pixels of a striped file takes unpacked, band by band, or once for all bands where
    pixels hold them together; () for a tiled one. `block_px`: the longest side of its blocks; `pixel_bytes`: what they
    take for a pixel, given in the same way.

    The rest is what a product's metadata add: `acquired`, `quality` layers, `convert` (digital numbers to dB, say) and
    `sidecars`, the metadata files that say so.
    """

    path: Location
    driver: str
    grid: Grid
    bands: tuple[RasterBand, ...]
    tags: dict[str, str]
    strip_bytes: tuple[int, ...] = ()
    block_px: int = 0
    pixel_bytes: tuple[int, ...] = ()
    control: ControlPoints | None = None
    acquired: Acquisition | None = None
    quality: tuple[QualityLayer, ...] = ()
    convert: Convert | None = field(default=None, compare=False)
    sidecars: tuple[Path, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class QualityLayer:
    """One band of a raster that says which pixels of `sensor` are usable. Its own nodata value means nothing.

    `name` is the layer's in its product (SCL, QA_PIXEL ...), or `mask` for a user's.
    """

    file: RasterFile
    index: int
    rule: Rule
    name: str
    sensor: str = "optical"


def ground_grid(file: RasterFile) -> Grid:
    """Where a file lies: its own grid, or a north-up one that covers it where control points place it."""
    return north_up(file.control) if file.control else file.grid
