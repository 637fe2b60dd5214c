"""Where the network's windows lie on a scene, and how they are bundled into tiles that are read at once.

The lattice is anchored at the CRS origin: neither the tile size nor `--bbox` nor the scene's own corner moves it, so
none of them can change a map. Windows of convolutional networks need only lie on multiples of the network's stride from
there: their lattice begins at the scene's corner, and its step may be chosen to fit the scene.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

from mmedge.bundle import Tiling
from mmedge.grid import Grid, Window

# Where a network may be run at any size: the overlap of windows, computed for nothing, is kept below this share.
# The widest bounds the memory: the benchmark's U-Net takes 680 MiB on 2 threads, probabilities included, and 860 with
# windows of up to 1,280 px, which are 5 % faster (tried once; docs/results/scaling.md has the first).
OVERLAP = 1.25
WIDE_PX = range(256, 961, 64)
# Of networks with graphs for mixed windows: two graphs at work have memory of their own each.
WIDEST_MIXED_PX = 640
# Small scenes of nearly the same size get the same window: to compile a graph for each would take as long as the scene.
GRAIN_PX = 32
CORE_HALOS = 3  # the core of a narrow window is at least so many halos wide: at most 2.8 times a map's pixels


@dataclass(frozen=True, slots=True)
class IoTile:
    """A block of `rows` x `cols` network windows.

    `core` is what it answers for (clipped to the region), `read` the union of its windows, halo included; the window
    (i, j) begins at (read.row + i * step, read.col + j * step).
    """

    core: Window
    read: Window
    rows: int
    cols: int


@dataclass(frozen=True, slots=True)
class Lattice:
    """Network windows of `window_px`, `step_px` apart; each answers for the `step_px` pixels inside its halo."""

    window_px: int
    halo_px: int
    origin: tuple[int, int]

    @classmethod
    def of(cls, tiling: Tiling, grid: Grid) -> Lattice:
        """The lattice of a bundle on a grid."""
        row, col = grid.origin_px
        if tiling.kind == "convolutional":
            row, col = row % tiling.align_px, col % tiling.align_px
        return cls(tiling.window_px, tiling.halo_px, (row, col))

    @property
    def step_px(self) -> int:
        return self.window_px - 2 * self.halo_px

    def tiles(self, region: Window, cells: int, *, tall: int = 1) -> Iterator[IoTile]:
        """Blocks of at most `cells` x `cells` windows that cover a region of the grid, in bands of `tall` rows of
        blocks; a band is walked column by column, so that neighbours are read soon after each other.
        """
        rows = list(self._blocks(region.row, region.height, self.origin[0], cells))
        for first in range(0, len(rows), tall):
            for j in self._blocks(region.col, region.width, self.origin[1], cells):
                for i in rows[first : first + tall]:
                    yield self._tile(region, i, j)

    def count(self, region: Window, cells: int) -> int:
        """Number of tiles that `tiles` yields."""
        rows = sum(1 for _ in self._blocks(region.row, region.height, self.origin[0], cells))
        return rows * sum(1 for _ in self._blocks(region.col, region.width, self.origin[1], cells))

    def _blocks(self, start: int, length: int, origin: int, cells: int) -> Iterator[tuple[int, int]]:
        """Ranges of lattice cells [first, last) along one axis, cut at multiples of `cells`."""
        first = (start + origin) // self.step_px
        end = -((start + length + origin) // -self.step_px)
        while first < end:
            last = min(end, (first // cells + 1) * cells)
            yield first, last
            first = last

    def _tile(self, region: Window, i: tuple[int, int], j: tuple[int, int]) -> IoTile:
        step, halo = self.step_px, self.halo_px
        rows, cols = i[1] - i[0], j[1] - j[0]
        covered = Window(i[0] * step - self.origin[0], j[0] * step - self.origin[1], rows * step, cols * step)
        return IoTile(covered.intersect(region), covered.grow(halo), rows, cols)


def wide_px(halo_px: int) -> int:
    """The smallest window whose overlap costs little."""
    fits = (w for w in WIDE_PX if w > 2 * halo_px and (w / (w - 2 * halo_px)) ** 2 <= OVERLAP)
    return next(fits, WIDE_PX[-1])


def narrow_px(halo_px: int, least: int = 0) -> int:
    """A window for work on single windows, not on maps: of at least `least` pixels."""
    return -(-max(least, (CORE_HALOS + 2) * halo_px) // WIDE_PX.step) * WIDE_PX.step


def widened(tiling: Tiling) -> Tiling:
    """The tiling for maps: of a convolutional network in wide windows of any size."""
    if tiling.kind != "convolutional":
        return tiling
    window = max(tiling.window_px, min(WIDEST_MIXED_PX, wide_px(tiling.halo_px)))
    window -= window % tiling.align_px
    return replace(tiling, window_px=window, resizable=True)


def narrowed(tiling: Tiling) -> Tiling:
    """The tiling for crops: a resizable window is no wider than it has to be."""
    if not tiling.resizable:
        return tiling
    window = min(tiling.window_px, narrow_px(tiling.halo_px)) // tiling.align_px * tiling.align_px
    return replace(tiling, window_px=window, resizable=False)


def fitted(tiling: Tiling, grid: Grid) -> Tiling:
    """The tiling for a scene: of some resizable windows, half as large to as large, the one that computes least."""
    if not tiling.resizable:
        return tiling
    align, largest = tiling.align_px, tiling.stride_px
    row, col = (n % align for n in grid.origin_px)
    longest = max(grid.rows + row, grid.cols + col)
    grain = -(-GRAIN_PX // align) * align if longest <= 2 * largest else align

    def cost(step: int) -> int:
        return -((grid.rows + row) // -step) * -((grid.cols + col) // -step) * (step + 2 * tiling.halo_px) ** 2

    whole = -(-longest // grain) * grain  # a small scene is one window
    steps = [min(whole, step) for step in (*range(largest // 2 // grain * grain + grain, largest, grain), largest)]
    return replace(tiling, window_px=min(steps, key=lambda step: (cost(step), -step)) + 2 * tiling.halo_px)
