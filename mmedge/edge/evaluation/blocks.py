"""Which pixels train, validate and test: squares of a scene, so that neighbours do not land on both sides.

Pixels of one square are alike, so a random split of pixels flatters every model. Squares are dealt out by a seed; of
many deals the one that gives each part its share of every class is taken. Ground that several scenes show, as several
dates of one place do, has one part in all of them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from rasterio.crs import CRS
from rasterio.warp import transform as transform_points

from mmedge.errors import UsageError
from mmedge.geo_io.ground import footprint
from mmedge.grid import Grid

Parts = npt.NDArray[np.uint8]
Labels = npt.NDArray[np.signedinteger[Any]]
PARTS = ("train", "validate", "test")
TRAIN, VALIDATE, TEST = range(3)
ELSEWHERE = 255  # outside the scene
DEALS = 256
ROWS_AT_ONCE = 256


@dataclass(frozen=True, slots=True, kw_only=True)
class Blocks:
    """The part of each square of `block_px` pixels of a grid: `parts` (block rows, block cols)."""

    grid: Grid
    block_px: int
    parts: Parts

    def pixels(self) -> Parts:
        """Part of each pixel (rows, cols)."""
        wide = self.parts.repeat(self.block_px, 0).repeat(self.block_px, 1)
        return wide[: self.grid.rows, : self.grid.cols]

    def on(self, other: Grid) -> Parts:
        """Part of each pixel of another grid (rows, cols), `ELSEWHERE` where this one has none."""
        if other == self.grid:
            return self.pixels()
        found = np.full(other.shape, ELSEWHERE, np.uint8)
        mine, theirs = CRS.from_wkt(self.grid.crs), CRS.from_wkt(other.crs)
        for top in range(0, other.rows, ROWS_AT_ONCE):
            rows, cols = np.mgrid[top : min(top + ROWS_AT_ONCE, other.rows), : other.cols] + 0.5
            x, y = other.xy(rows, cols)
            if mine != theirs:
                x, y = (np.reshape(v, rows.shape) for v in transform_points(theirs, mine, x.ravel(), y.ravel()))
            row, col = (np.floor(v) for v in self.grid.rowcol(x, y))
            inside = (row >= 0) & (row < self.grid.rows) & (col >= 0) & (col < self.grid.cols)
            where = tuple(v[inside].astype(np.intp) // self.block_px for v in (row, col))
            found[top : top + ROWS_AT_ONCE][inside] = self.parts[where]
        return found

    def document(self) -> dict[str, Any]:
        """As JSON: a letter a square (t train, v validate, e test), a string a row."""
        letters = ["".join("tve"[p] for p in row) for row in self.parts]
        return {
            "rows": self.grid.rows,
            "cols": self.grid.cols,
            "transform": list(self.grid.transform),
            "crs": self.grid.crs,
            "block_px": self.block_px,
            "blocks": letters,
        }

    @classmethod
    def parse(cls, document: dict[str, Any]) -> Blocks:
        """The inverse of `document`."""
        a, b, c, d, e, f = document["transform"]
        grid = Grid(document["rows"], document["cols"], (a, b, c, d, e, f), document["crs"])
        parts = np.array([["tve".index(letter) for letter in row] for row in document["blocks"]], np.uint8)
        return cls(grid=grid, block_px=document["block_px"], parts=parts)


def deal_scenes(
    labels: Sequence[Labels],
    grids: Sequence[Grid],
    fixed: Sequence[int | None],
    block_px: int,
    shares: tuple[float, float, float],
    classes: int,
    seed: int,
) -> tuple[list[Blocks], list[Labels]]:
    """Squares of each scene, and the labels that are left. labels: class indices (rows, cols), -1 = none; fixed: a
    scene's part or None.

    A square that shows ground of an earlier scene takes its part there, of several the one that is trained least on;
    scenes of a fixed part come first, those that test before all. Labels whose ground has another part in an earlier
    scene are taken away. Squares without a label train: nothing is learnt there, but windows may reach into them.
    Raises UsageError where there are fewer than three squares with labels to deal out.
    """
    earlier = _earlier(grids, fixed)
    whole = [Blocks(grid=g, block_px=g.rows + g.cols, parts=np.zeros((1, 1), np.uint8)) for g in grids]
    shared = [_largest([whole[j].on(grid) for j in earlier[i]], grid, block_px) > 0 for i, grid in enumerate(grids)]
    dealt = _deal(labels, fixed, shared, block_px, shares, classes, seed)
    found = [Blocks(grid=grid, block_px=block_px, parts=parts) for grid, parts in zip(grids, dealt, strict=True)]
    left = list(labels)
    for i, before in earlier.items():
        others = [found[j].on(grids[i]) for j in before]
        if fixed[i] is None:
            found[i].parts[shared[i]] = _largest(others, grids[i], block_px)[shared[i]] - 1
        mine = found[i].pixels()
        for other in others:
            left[i] = np.where((other != ELSEWHERE) & (other != mine), labels[i].dtype.type(-1), left[i])
    return found, left


def _earlier(grids: Sequence[Grid], fixed: Sequence[int | None]) -> dict[int, list[int]]:
    """Of each scene those that are settled before it and may show ground of it; in the order of settling."""
    order = sorted(range(len(grids)), key=lambda i: -1 if (part := fixed[i]) is None else part, reverse=True)
    boxes = [footprint(grid)[1] for grid in grids]
    return {i: [j for j in order[:place] if _meet(boxes[i], boxes[j])] for place, i in enumerate(order)}


def _meet(one: Sequence[float], other: Sequence[float]) -> bool:
    """Whether two boxes in longitude and latitude overlap; one that crosses the antimeridian may, in longitude."""
    crosses = one[0] > one[2] or other[0] > other[2]
    return one[1] < other[3] and other[1] < one[3] and (crosses or (one[0] < other[2] and other[0] < one[2]))


def _largest(known: Sequence[Parts], grid: Grid, block_px: int) -> Parts:
    """1 + the largest part that each square (block rows, block cols) has in other scenes; 0 where it lies in none.

    known: those scenes' parts of the pixels of `grid`.
    """
    most = np.zeros(grid.shape, np.uint8)
    for parts in known:
        most = np.maximum(most, parts + np.uint8(1))  # ELSEWHERE wraps around to 0
    rows, cols = (np.arange(0, n, block_px) for n in grid.shape)
    largest: Parts = np.maximum.reduceat(np.maximum.reduceat(most, rows, axis=0), cols, axis=1)
    return largest


def _deal(
    labels: Sequence[Labels],
    fixed: Sequence[int | None],
    shared: Sequence[npt.NDArray[np.bool_]],
    block_px: int,
    shares: tuple[float, float, float],
    classes: int,
    seed: int,
) -> list[Parts]:
    """Parts of the squares of each scene; those that are `shared` with an earlier scene train for the time being."""
    counts = [_class_counts(scene, block_px, classes) for scene in labels]
    parts = [np.full(c.shape[:2], TRAIN if p is None else p, np.uint8) for c, p in zip(counts, fixed, strict=True)]
    free = [(c.sum(-1) > 0) & (p is None) & ~s for c, p, s in zip(counts, fixed, shared, strict=True)]
    number = sum(int(f.sum()) for f in free)
    settled = np.zeros((3, classes))
    for count, given in zip(counts, fixed, strict=True):
        if given is not None:
            settled[given] += count.sum((0, 1))
    if number == 0:
        return parts
    if number < 3:
        raise UsageError(
            f"{number} squares of {block_px} px hold labels: too few for training, validation and test",
            hint="lower `block_px`, or give each scene a `part`",
        )
    table = np.concatenate([c[f] for c, f in zip(counts, free, strict=True)])
    dealt = _best_deal(table, settled, shares, np.random.default_rng(seed))
    start = 0
    for part, mine in zip(parts, free, strict=True):
        end = start + int(mine.sum())
        part[mine] = dealt[start:end]
        start = end
    return parts


def _class_counts(labels: Labels, block_px: int, classes: int) -> npt.NDArray[np.int64]:
    """Labelled pixels (block rows, block cols, classes)."""
    rows, cols = (-(-n // block_px) for n in labels.shape)
    row, col = np.nonzero(labels >= 0)
    key = ((row // block_px) * cols + col // block_px) * classes + labels[row, col]
    return np.bincount(key, minlength=rows * cols * classes).reshape(rows, cols, classes)


def _best_deal(
    table: npt.NDArray[np.int64],
    settled: npt.NDArray[np.float64],
    shares: tuple[float, float, float],
    rng: np.random.Generator,
) -> Parts:
    """Parts of squares with `table` (squares, classes) labels: each class's share of each part is near `shares`."""
    number = len(table)
    each = np.maximum(1, np.round(np.array(shares) * number)).astype(int)
    each[TRAIN] = max(1, number - each[VALIDATE] - each[TEST])
    cards = np.repeat(np.arange(3), each)[:number].astype(np.uint8)
    target = np.array(shares)[:, None]
    best, least = cards, np.inf
    for _ in range(DEALS):
        cards = rng.permutation(cards)
        found = settled + np.stack([table[cards == part].sum(0) for part in range(3)])
        total = found.sum(0)
        share = found[:, total > 0] / total[total > 0]
        cost = float(np.abs(share - target).sum() + 10 * (share[TRAIN] == 0).sum() + (share == 0).sum())
        if cost < least:
            best, least = cards.copy(), cost
    return best
