"""Windows of scenes for calibration and for scores: sampled per availability, class and scene.

Activations differ between availabilities and between land covers, so ranges that are observed on complete data, or on
the largest class alone, may not hold for the rest. A bad window is an error: never the early end of the data.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from itertools import chain, zip_longest
from pathlib import Path

import numpy as np

from mmedge.bundle import Bundle
from mmedge.edge.runtime.session import Feeds, GraphKey, input_shapes
from mmedge.edge.windows import batches
from mmedge.errors import MMEdgeError
from mmedge.geo_io.ground import gsd_m
from mmedge.geo_io.labels import NONE, LabelFile, Labels, read_labels
from mmedge.geo_io.scene import open_scene
from mmedge.geo_io.tiling import IoTile, Lattice
from mmedge.grid import Grid, Window
from mmedge.modality import Availability
from mmedge.tile import Tile

Rng = np.random.Generator
FEWEST = 8  # windows an availability is calibrated on at least
TILES = 64  # read of each scene at most: calibration takes the same time on a scene of any size
CELLS = 4
MIRRORED_PX = 64  # side of the crops of a convolutional network at most


class CalibrationError(MMEdgeError):
    """What was given to calibrate on cannot be used."""


@dataclass(frozen=True, slots=True)
class SceneFiles:
    """A scene and, if there are any, its reference classes: a raster, or polygons or points."""

    scene: Path
    labels: Path | None = None


@dataclass(frozen=True, slots=True)
class LabelledWindow:
    """One network window: inputs of batch 1, and the class index of each pixel of its core (-1: none)."""

    key: GraphKey
    feeds: Feeds
    labels: Labels
    scene: str

    @property
    def main_class(self) -> int:
        """The most frequent class of the core, -1 where it has no label."""
        known = self.labels[self.labels >= 0]
        return int(np.bincount(known).argmax()) if known.size else -1


def read_windows(
    scenes: Sequence[SceneFiles], bundle: Bundle, availability: Availability, rng: Rng, *, crops: int = 0
) -> list[LabelledWindow]:
    """Windows of some scenes as a map of `availability` sees them; scenes that lack one of its sensors are left out.

    `crops`: that many windows of each scene, anywhere in it; 0: those of the lattice, as in a map. The window of a
    convolutional network may be larger than a scene, so that none would be uniform: its crops are small and mirrored
    until they fill it, and its lattice is run once more with the scene mirrored at its edges.
    """
    return list(chain.from_iterable(_of_scene(scene, bundle, availability, rng, crops) for scene in scenes))


def _of_scene(
    item: SceneFiles, bundle: Bundle, availability: Availability, rng: Rng, crops: int
) -> Iterable[LabelledWindow]:
    with open_scene(item.scene, bundle.modalities) as scene:
        if not set(availability) <= set(scene.sensors):
            return
        scene = scene.only(availability.names)
        labels = np.full(scene.grid.shape, NONE, np.int16)
        if item.labels:
            labels = read_labels(LabelFile(path=item.labels), scene.grid, bundle.classes)
        step, halo = bundle.tiling.stride_px, bundle.tiling.halo_px
        for where, seen in _crops(bundle, scene.grid, crops, rng) if crops else _lattice(bundle, scene.grid, rng):
            tile = _mirrored(scene.read(seen), where.read)
            for batch in batches(tile, where, bundle, size=1, pixel_m=gsd_m(scene.grid)):
                if batch.key.mixed and seen != where.read:
                    continue
                row, col = where.read.row + halo, where.read.col + halo
                core = Window(row + batch.cells[0, 0] * step, col + batch.cells[0, 1] * step, step, step)
                yield LabelledWindow(batch.key, batch.feeds, _cut_labels(labels, core, seen), scene.name)


def _lattice(bundle: Bundle, grid: Grid, rng: Rng) -> list[tuple[IoTile, Window]]:
    """At most TILES tiles of the lattice and what is read of each."""
    tiles = list(Lattice.of(bundle.tiling, grid).tiles(grid.window, CELLS))
    some = [tiles[i] for i in sorted(rng.permutation(len(tiles))[:TILES])]
    found = [(tile, tile.read) for tile in some]
    if bundle.tiling.kind == "convolutional" and min(grid.shape) < bundle.tiling.window_px:
        found += [(tile, tile.read.intersect(grid.window)) for tile in some]
    return found


def _crops(bundle: Bundle, grid: Grid, count: int, rng: Rng) -> list[tuple[IoTile, Window]]:
    """Single windows at random places of a grid and what is read of each; none where it is smaller than that."""
    side, halo = bundle.tiling.window_px, bundle.tiling.halo_px
    read = min(side, MIRRORED_PX) if bundle.tiling.kind == "convolutional" else side
    if min(grid.shape) < read:
        return []
    rows, cols = (rng.integers(0, n - read + 1, count) for n in grid.shape)
    parts = [Window(int(row), int(col), read, read) for row, col in zip(rows, cols, strict=True)]
    wholes = [Window(p.row - (side - read) // 2, p.col - (side - read) // 2, side, side) for p in parts]
    return [(IoTile(w.grow(-halo), w, 1, 1), part) for w, part in zip(wholes, parts, strict=True)]


def _mirrored(tile: Tile, whole: Window) -> Tile:
    """The tile of `whole`: beyond the window of `tile`, its pixels again in mirrored order."""
    if tile.window == whole:
        return tile
    here = tile.window
    row, col = here.row - whole.row, here.col - whole.col
    pads = (row, whole.height - here.height - row), (col, whole.width - here.width - col)
    at = np.ix_(*(np.pad(np.arange(n), pad, mode="symmetric") for n, pad in zip(here.shape, pads, strict=True)))
    return Tile(whole, {m: x[:, at[0], at[1]] for m, x in tile.data.items()}, {m: v[at] for m, v in tile.valid.items()})


def _cut_labels(labels: Labels, core: Window, seen: Window) -> Labels:
    """The core's labels; -1 beyond the scene and what was read of it."""
    out = np.full(core.shape, NONE, np.int16)
    whole = Window(0, 0, *labels.shape)
    inside = core.intersect(whole).intersect(seen)
    if not inside.empty:
        out[inside.within(core)] = labels[inside.within(whole)]
    return out


def sample(windows: Sequence[LabelledWindow], count: int, rng: Rng) -> list[LabelledWindow]:
    """At most `count` windows, evenly from every scene and main class, in random order within each."""
    strata: dict[tuple[str, int], list[LabelledWindow]] = {}
    for i in rng.permutation(len(windows)):
        strata.setdefault((windows[i].scene, windows[i].main_class), []).append(windows[i])
    rounds = zip_longest(*(strata[key] for key in sorted(strata)))
    return [w for w in chain.from_iterable(rounds) if w is not None][:count]


def holed(window: LabelledWindow, rng: Rng) -> LabelledWindow:
    """The window for the mixed graph: a box of one sensor, larger than a token, is invalid."""
    sensor = str(rng.choice(window.key.availability.names))
    mask = np.array(window.feeds[f"{sensor}_valid"])
    side = mask.shape[-1]
    height, width = rng.integers(side // 4, side * 3 // 4, 2)
    row, col = rng.integers(0, side - height), rng.integers(0, side - width)
    mask[..., row : row + height, col : col + width] = False
    key = replace(window.key, mixed=True)
    return replace(window, key=key, feeds={**window.feeds, f"{sensor}_valid": mask})


def stack(windows: Sequence[LabelledWindow], size: int) -> list[Feeds]:
    """Windows of one graph as batches of `size`; the last one may be smaller."""
    parts = [windows[i : i + size] for i in range(0, len(windows), size)]
    return [{name: np.concatenate([w.feeds[name] for w in part]) for name in part[0].feeds} for part in parts]


def check_calibration(windows: Sequence[LabelledWindow], key: GraphKey, bundle: Bundle) -> None:
    """Raises CalibrationError where windows are too few, of a wrong shape or type, or not finite where valid."""
    if len(windows) < FEWEST:
        raise CalibrationError(
            f"only {len(windows)} windows show `{key}`, {FEWEST} are the least to calibrate on",
            hint="give more or larger scenes with --scenes",
        )
    shapes = input_shapes(bundle, key, 1)
    for window in windows:
        for name, shape in shapes.items():
            array = window.feeds.get(name)
            kind = np.bool_ if name.endswith("_valid") else np.float32
            if array is None or array.shape != shape or array.dtype != kind:
                found = "nothing" if array is None else f"{array.dtype} {array.shape}"
                raise CalibrationError(
                    f"`{name}` of a window of `{window.scene}` is {found}, not {kind.__name__} {shape}"
                )
        for name in key.availability:
            seen = np.broadcast_to(window.feeds[f"{name}_valid"], window.feeds[name].shape)
            if not np.isfinite(window.feeds[name][seen]).all():
                raise CalibrationError(
                    f"`{name}` of a window of `{window.scene}` has NaN or infinite pixels that are marked valid",
                    hint="mmedge info SCENE --failures",
                )
