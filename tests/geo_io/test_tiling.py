"""Tiles cover every pixel once, and the lattice never moves."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from mmedge.geo_io.tiling import Lattice
from mmedge.grid import Window

lattices = st.builds(
    Lattice, st.just(64), st.just(8), st.tuples(st.integers(-10_000, 10_000), st.integers(-10_000, 10_000))
)


@given(lattices, st.integers(1, 400), st.integers(1, 400), st.integers(1, 9))
def test_every_pixel_is_in_exactly_one_tile(lattice: Lattice, rows: int, cols: int, cells: int) -> None:
    covered = np.zeros((rows, cols), int)
    region = Window(0, 0, rows, cols)
    tiles = list(lattice.tiles(region, cells))
    for tile in tiles:
        covered[tile.core.within(region)] += 1
    assert (covered == 1).all()
    assert len(tiles) == lattice.count(region, cells)


@given(lattices, st.integers(1, 9), st.integers(1, 9), st.integers(0, 300), st.integers(0, 300))
def test_a_pixel_belongs_to_the_same_window_whatever_is_cut(
    lattice: Lattice, cells: int, other: int, row: int, col: int
) -> None:
    def owner(region: Window, cells: int) -> tuple[int, int]:
        """Origin of the network window that answers for pixel (row, col)."""
        for tile in lattice.tiles(region, cells):
            if not tile.core.intersect(Window(row, col, 1, 1)).empty:
                i = (row - tile.read.row - lattice.halo_px) // lattice.step_px
                j = (col - tile.read.col - lattice.halo_px) // lattice.step_px
                assert 0 <= i < tile.rows
                assert 0 <= j < tile.cols
                return tile.read.row + i * lattice.step_px, tile.read.col + j * lattice.step_px
        raise AssertionError("no tile answers for the pixel")

    whole = owner(Window(0, 0, 301, 301), cells)
    assert whole == owner(Window(row // 2, col // 3, 301 - row // 2, 301 - col // 3), other)
    assert (whole[0] + lattice.origin[0] + lattice.halo_px) % lattice.step_px == 0
