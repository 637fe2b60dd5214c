"""Write a map tile by tile in bounded memory, and publish all of its files or none: `MapWriter`.

Tiles go to uncompressed sparse GeoTIFFs (`*.raw.part`) with nodata set at creation, so that what nobody writes reads as
nodata, never as class 0. When all tiles are there, one pass per product writes the compressed COG (`*.part`).
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType

import numpy as np
import numpy.typing as npt
import rasterio
from rasterio.errors import RasterioError
from rasterio.io import DatasetWriter
from rasterio.windows import Window as RasterioWindow

from mmedge.bundle import LandClass
from mmedge.errors import GeoreferenceError, OutputError
from mmedge.files import publish
from mmedge.geo_io.ground import pixel_area_m2
from mmedge.geo_io.maps.outputs import Outputs, refuse_existing
from mmedge.geo_io.maps.products import CACHE_BYTES, SENSORS_NODATA, Product, compress, create_raw, plan_layers
from mmedge.geo_io.maps.publication import claimed
from mmedge.grid import Grid, Window

UInt8 = npt.NDArray[np.uint8]


@dataclass(frozen=True, slots=True, kw_only=True)
class MapCounts:
    """Pixels of a finished map. `classes` by class value, `sensors` by bitmask (never 0); only what occurs.

    `area_m2` by class value; empty where the CRS has no place on the Earth.
    """

    pixels: int
    written: int
    classes: dict[int, int]
    sensors: dict[int, int]
    area_m2: dict[int, float]

    @property
    def mapped(self) -> int:
        """Pixels that have a class."""
        return sum(self.classes.values())

    @property
    def nodata(self) -> int:
        """Pixels that have none, never written ones included."""
        return self.pixels - self.mapped


class MapWriter:
    """Writes the rasters of `outputs` on `grid`; publishes the whole set when its `with` block ends well.

    `legend` gives the class values, names and colours; `order` the modality of each bit of the sensors product; `tags`
    the provenance, written into every product. Probabilities are written where `outputs.probs` is named.
    GDAL's cache has `cache_bytes` inside the block, for whatever is read meanwhile too.
    `write` may be called from one other thread. The bytes depend on the pixels, the grid and the tags alone.

    Quicklook and item, where planned, are written by the caller to `part_of(...)` between `finish()` and the end of
    the block::

        with MapWriter(grid, outputs, legend=bundle.classes, order=bundle.order, tags=tags) as writer:
            for ...:
                writer.write(window, classes, confidence, sensors)
            counts = writer.finish()
            write_quicklook(part_of(outputs.map), part_of(outputs.quicklook), ...)

    Raises OutputError where an output exists (without `overwrite`) or cannot be written.
    """

    def __init__(
        self,
        grid: Grid,
        outputs: Outputs,
        *,
        legend: Sequence[LandClass],
        order: tuple[str, ...],
        tags: Mapping[str, str] | None = None,
        nodata: int = 255,
        overviews: bool = True,
        overwrite: bool = False,
        cache_bytes: int = CACHE_BYTES,
    ) -> None:
        if nodata in {c.value for c in legend}:
            raise ValueError(f"nodata {nodata} is the value of a class")
        if len(order) > 8:
            raise ValueError(f"8 modalities fit the sensors product, not {len(order)}")
        self._grid, self._outputs, self._nodata = grid, outputs, nodata
        self._layers = plan_layers(outputs, legend, order, nodata, tags or {})
        self._overviews, self._overwrite, self._cache_bytes = overviews, overwrite, cache_bytes
        self._stack = ExitStack()
        self._open: dict[Product, DatasetWriter] = {}
        # Pixels of each class in each row: an area summed from whole numbers does not depend on the order of tiles.
        self._classes = {c.value: np.zeros(grid.rows, np.int64) for c in legend}
        self._sensors = np.zeros(256, np.int64)
        self._written = 0
        self._counts: MapCounts | None = None

    def __enter__(self) -> MapWriter:
        refuse_existing(self._outputs, overwrite=self._overwrite)
        try:
            with _disk_errors(self._outputs.map):
                self._stack.enter_context(claimed(self._outputs))
            self._check_space()
            self._stack.enter_context(rasterio.Env(GDAL_CACHEMAX=self._cache_bytes))
            for product, layer in self._layers.items():
                with _disk_errors(layer.path):
                    self._open[product] = self._stack.enter_context(create_raw(layer, self._grid))
        except BaseException:
            self._discard()
            raise
        return self

    def write(
        self, window: Window, classes: UInt8, confidence: UInt8, sensors: UInt8, probs: UInt8 | None = None
    ) -> None:
        """Write the pixels of `window`, which lies inside the grid; each pixel at most once, windows in any order.

        `classes`, `confidence` [percent] and `sensors` [bitmask] are (h, w); `probs` [1/250] is (classes, h, w), bands
        in the legend's order; all uint8. A pixel without a class is nodata in every product (confidence and probs 255,
        sensors 0). Raises OutputError where the disk is full.
        """
        tiles: dict[Product, UInt8] = {"map": classes, "confidence": confidence, "sensors": sensors}
        if probs is not None:
            tiles["probs"] = probs
        self._check(window, tiles)
        self._count(window, classes, confidence, sensors)
        where = RasterioWindow(window.col, window.row, window.width, window.height)
        for product, dataset in self._open.items():
            with _disk_errors(self._layers[product].path):
                dataset.write(tiles[product].reshape(-1, *window.shape), window=where)

    def tag(self, tags: Mapping[str, str]) -> None:
        """Add provenance that was not known at the start, such as checksums of the inputs; before `finish`."""
        for dataset in self._open.values():
            dataset.update_tags(**tags)

    def finish(self) -> MapCounts:
        """Compress every product into its part, the map last; return what was written. Later calls only return it."""
        if self._counts is None:
            if self._written > self._grid.rows * self._grid.cols:
                raise ValueError(f"{self._written} pixels were written to {self._grid.shape}: some of them twice")
            for product, layer in self._layers.items():
                with _disk_errors(layer.path):
                    self._open.pop(product).close()
                    compress(layer, self._grid, overviews=self._overviews)
            self._counts = MapCounts(
                pixels=self._grid.rows * self._grid.cols,
                written=self._written,
                classes={value: int(rows.sum()) for value, rows in self._classes.items() if rows.any()},
                sensors={int(bits): int(self._sensors[bits]) for bits in np.flatnonzero(self._sensors) if bits},
                area_m2=self._area_m2(),
            )
        return self._counts

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            if kind is None:
                self.finish()
                with _disk_errors(self._outputs.map):
                    publish(self._outputs.paths)
        finally:
            self._discard()

    def _check_space(self) -> None:
        """The raw parts, overviews included (4/3), must fit the disk."""
        bands = sum(len(layer.bands) for layer in self._layers.values())
        needed = self._grid.rows * self._grid.cols * bands * 4 // 3
        disk = shutil.disk_usage(self._outputs.map.parent)
        if disk.total and disk.free < needed:  # pseudo file systems say 0
            raise OutputError(
                f"`{self._outputs.map}` needs {needed / 1e9:.1f} GB of disk while it is written, "
                f"{disk.free / 1e9:.1f} GB are free",
                hint="-o FOLDER/map.tif on a larger disk, or --bbox for a part of the scene",
            )

    def _check(self, window: Window, tiles: dict[Product, UInt8]) -> None:
        if window.intersect(self._grid.window) != window:
            raise ValueError(f"{window} does not lie inside a grid of {self._grid.shape}")
        if tiles.keys() != self._open.keys():
            raise ValueError(f"{sorted(tiles)} are given, {sorted(self._open)} are to be written")
        for product, tile in tiles.items():
            bands = (len(self._layers["probs"].bands),) if product == "probs" else ()
            if tile.dtype != np.uint8 or tile.shape != (*bands, *window.shape):
                raise ValueError(f"{product}: {tile.dtype} {tile.shape} for {window}")

    def _area_m2(self) -> dict[int, float]:
        try:
            area = pixel_area_m2(self._grid)
        except GeoreferenceError:
            return {}
        return {value: float((rows * area).sum()) for value, rows in self._classes.items() if rows.any()}

    def _count(self, window: Window, classes: UInt8, confidence: UInt8, sensors: UInt8) -> None:
        found = {value: np.count_nonzero(classes == value, axis=1) for value in self._classes}
        mapped = sum(int(rows.sum()) for rows in found.values())
        bits = np.bincount(sensors.ravel(), minlength=256)
        if mapped + np.count_nonzero(classes == self._nodata) != classes.size:
            raise ValueError(f"values {np.setdiff1d(classes, [*found, self._nodata])} are not in the legend")
        if mapped != np.count_nonzero(confidence <= 100) or mapped != classes.size - bits[SENSORS_NODATA]:
            raise ValueError("a pixel has a class exactly where it has a confidence (0..100) and at least one sensor")
        for value, rows in found.items():
            self._classes[value][window.row : window.row + window.height] += rows
        self._sensors += bits
        self._written += classes.size

    def _discard(self) -> None:
        """Close and remove what is left of the parts; nothing is left after a publication."""
        self._open.clear()
        self._stack.close()


@contextmanager
def _disk_errors(path: Path) -> Iterator[None]:
    """What the file system refuses is the user's to mend."""
    try:
        yield
    except (RasterioError, OSError) as err:
        reason = (isinstance(err, OSError) and err.strerror) or str(err)
        raise OutputError(
            f"cannot write `{path}`: {reason}", hint="free disk space, or -o FOLDER/map.tif elsewhere"
        ) from err
