"""From a scene's tiles to classes: windows grouped by availability, and what each pixel was made from."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from mmedge.edge.runtime.session import Engines, Feeds, Session, TracingSession
from mmedge.edge.stream import in_order
from mmedge.edge.windows import batches
from mmedge.errors import MachineError
from mmedge.geo_io.ground import gsd_m
from mmedge.geo_io.rasters.header import GDAL_CACHE_BYTES
from mmedge.geo_io.scene import Scene
from mmedge.geo_io.tiling import IoTile, Lattice
from mmedge.grid import Window
from mmedge.tile import Data, Tile, Valid

Counts = Mapping[str, Mapping[str, int]]  # pixels by sensor and by what took them
U8 = npt.NDArray[np.uint8]
NO_CONFIDENCE = 255
# Probabilities are stored in steps of 1/250, so that 255 is free for nodata.
PROB_STEPS = 250
READERS, AHEAD = 2, 2
SLAB_VALUES = 1 << 17


@dataclass(frozen=True, slots=True, kw_only=True)
class MapTile:
    """A finished piece of the map, (rows, cols) each, `probs` (classes, rows, cols).

    `sensors`: bit i where the bundle's `traces[i]` was valid (or recovered) and used, 0 where no sensor saw the pixel;
    there `classes` is nodata and `confidence` 255. `confidence` is in percent. `lost` counts pixels that a sensor did
    not give, by what took them (see `Tile.lost`). `seconds` are (reading, computing).
    """

    window: Window
    classes: U8
    confidence: U8
    sensors: U8
    probs: U8 | None
    lost: Counts
    seconds: tuple[float, float]


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """How a run is cut up: tiles of `cells` x `cells` windows, in bands of `tall` rows; `cache_bytes`
    of GDAL's cache for scene and map together. None of it can change the map.
    """

    threads: int
    cells: int
    tall: int = 1
    cache_bytes: int = GDAL_CACHE_BYTES
    readers: int = READERS
    ahead: int = AHEAD


def predict(
    scene: Scene,
    engines: Engines,
    region: Window,
    plan: Plan,
    *,
    keep: Callable[[Window], Valid] | None = None,
    probs: bool = False,
) -> Iterator[MapTile]:
    """Map a region of a scene, tile by tile in a fixed order; reading and computing overlap.

    `keep` gives, for a window, the pixels to map (an area of interest). At most `plan.readers` tiles are being read,
    one has been, and `plan.threads + plan.ahead` are computed or wait for it: memory does not grow with the scene.
    """
    lattice = Lattice.of(engines.bundle.tiling, scene.grid)
    pixel_m = gsd_m(scene.grid)

    def read(where: IoTile) -> tuple[IoTile, Tile, Valid | None, float]:
        start = time.perf_counter()
        wanted = keep(where.core) if keep else None
        tile = scene.read(where.read) if wanted is None or wanted.any() else Tile(where.read, {}, {})
        return where, tile, wanted, time.perf_counter() - start

    def compute(job: tuple[IoTile, Tile, Valid | None, float]) -> MapTile:
        where, tile, wanted, reading = job
        return _classify(tile, where, wanted, engines, pixel_m=pixel_m, probs=probs, reading=reading)

    wheres = lattice.tiles(region, plan.cells, tall=plan.tall)
    tiles = in_order(read, wheres, workers=plan.readers, depth=plan.readers + 1)
    yield from in_order(compute, tiles, workers=plan.threads, depth=plan.threads + plan.ahead)


def _classify(
    tile: Tile,
    where: IoTile,
    wanted: Valid | None,
    engines: Engines,
    *,
    pixel_m: float,
    probs: bool,
    reading: float,
) -> MapTile:
    start = time.perf_counter()
    bundle, step, halo = engines.bundle, engines.bundle.tiling.stride_px, engines.bundle.tiling.halo_px
    canvas = _Canvas(where.rows, where.cols, step, len(bundle.classes), bundle.nodata, probs=probs)
    recovered = np.zeros((where.rows, step, where.cols, step), np.uint8) if bundle.recovers else None
    rows, cols = where.core.within(where.read.grow(-halo))
    sensors = _sensors(tile, bundle.order, where.core)
    if wanted is not None:
        sensors[~wanted] = 0
    seen = sensors > 0
    cells = np.zeros((where.rows * step, where.cols * step), bool)
    cells[rows, cols] = seen
    some = np.asarray(cells.reshape(where.rows, step, where.cols, step).any(axis=(1, 3)))
    for batch in batches(tile, where, bundle, size=engines.batch, pixel_m=pixel_m, wanted=some):
        session, core = engines.session(batch.key), np.s_[: len(batch.cells), :, halo : halo + step, halo : halo + step]
        if recovered is None:
            logits = session.run(batch.feeds)[core]
        else:
            logits, bits = _traced(session, batch.feeds, core, engines.runtime.name)
            recovered[batch.cells[:, 0], :, batch.cells[:, 1], :] = bits
        canvas.put(batch.cells, logits, bundle.temperature(batch.key.availability))
    if recovered is not None:
        there = recovered.reshape(where.rows * step, where.cols * step)[rows, cols]
        sensors |= np.where(seen, there << np.uint8(len(bundle.order)), np.uint8(0))
    values = np.array([c.value for c in bundle.classes] + [bundle.nodata], np.uint8)
    canvas_probs = None if canvas.probs is None else canvas.probs[:, rows, cols]
    if canvas_probs is not None:
        np.copyto(canvas_probs, np.uint8(255), where=~seen)
    return MapTile(
        window=where.core,
        classes=np.where(seen, values[canvas.label[rows, cols]], np.uint8(bundle.nodata)),
        confidence=np.where(seen, canvas.confidence[rows, cols], np.uint8(NO_CONFIDENCE)),
        sensors=sensors,
        probs=canvas_probs,
        lost=_lost(tile, where.core, wanted),
        seconds=(reading, time.perf_counter() - start),
    )


def _traced(session: Session, feeds: Feeds, core: tuple[slice, ...], backend: str) -> tuple[Data, U8]:
    """Logits of the windows' cores, and bit i where modality i was recovered and believed: (n, step, step)."""
    if not isinstance(session, TracingSession):
        raise MachineError(
            f"`{backend}` does not say which sensors this model recovered", hint="--backend openvino says it"
        )
    logits, recovered = session.run_traced(feeds)
    weights = (1 << np.arange(recovered.shape[1])).astype(np.uint8)[:, None, None]
    bits: U8 = (recovered[core].astype(np.uint8) * weights).sum(1, dtype=np.uint8)
    return logits[core], bits


def _sensors(tile: Tile, order: tuple[str, ...], core: Window) -> U8:
    rows, cols = core.within(tile.window)
    bits = np.zeros(core.shape, np.uint8)
    for i, name in enumerate(order):
        if name in tile.valid:
            bits |= tile.valid[name][rows, cols].astype(np.uint8) << np.uint8(i)
    return bits


def _lost(tile: Tile, core: Window, wanted: Valid | None) -> Counts:
    rows, cols = core.within(tile.window)
    counted: dict[str, dict[str, int]] = {}
    for name, lost in tile.lost.items():
        inside = {cause: mask[rows, cols] for cause, mask in lost.items()}
        numbers = {c: int((m if wanted is None else m & wanted).sum()) for c, m in inside.items()}
        counted[name] = {cause: n for cause, n in numbers.items() if n}
    return counted


class _Canvas:
    """The windows' cores, side by side: label (index of the class), confidence and probabilities of a tile."""

    def __init__(self, rows: int, cols: int, step: int, classes: int, nodata: int, *, probs: bool) -> None:
        shape = rows * step, cols * step
        self.label = np.full(shape, classes, np.uint8)
        self.confidence = np.full(shape, NO_CONFIDENCE, np.uint8)
        self.probs = np.full((classes, *shape), 255, np.uint8) if probs else None
        self._cells = [
            array.reshape(*array.shape[:-2], rows, step, cols, step)
            for array in (self.label, self.confidence, self.probs)
            if array is not None
        ]

    def put(self, cells: npt.NDArray[np.intp], logits: Data, temperature: float) -> None:
        """Place the cores of some windows: cells (n, 2), logits (n, classes, step, step)."""
        label, confidence, share = _decide(logits, np.float32(temperature), probs=self.probs is not None)
        i, j = cells[:, 0], cells[:, 1]
        self._cells[0][i, :, j, :] = label
        self._cells[1][i, :, j, :] = confidence
        if share is not None:
            self._cells[2][:, i, :, j, :] = share  # the two indexed axes come first


def _decide(logits: Data, temperature: np.float32, *, probs: bool) -> tuple[U8, U8, U8 | None]:
    """Class index, confidence in percent and, if wanted, probabilities (n, classes, rows, cols) of some logits.

    Done in slabs of a few rows: what is needed in between stays in the cache.
    """
    n, classes, rows, cols = logits.shape
    label, confidence = np.zeros((n, rows, cols), np.uint8), np.empty((n, rows, cols), np.uint8)
    share = np.empty(logits.shape, np.uint8) if probs else None
    height = max(1, SLAB_VALUES // (n * classes * cols))
    for row in range(0, rows, height):
        slab = slice(row, row + height)
        some = logits[:, :, slab] if temperature == 1 else logits[:, :, slab] / temperature
        top, best = some[:, 0].copy(), label[:, slab]
        for k in range(1, classes):  # the last class above all before it; a product, for masks take thrice as long
            np.maximum(best, (some[:, k] > top).view(np.uint8) * np.uint8(k), out=best)
            np.maximum(top, some[:, k], out=top)
        power = some - top[:, None]
        np.exp(power, out=power)
        total = power.sum(axis=1)
        confidence[:, slab] = np.rint(100 / total)
        if share is not None:
            share[:, :, slab] = np.rint(PROB_STEPS * power / total[:, None])
    return label, confidence, share
