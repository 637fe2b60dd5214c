"""Tiles cover every pixel once, and the lattice never moves."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mmedge.bundle import Tiling
from mmedge.geo_io.tiling import Lattice, fitted
from mmedge.grid import Grid, Window

lattices = st.builds(
    Lattice, st.just(64), st.just(8), st.tuples(st.integers(-10_000, 10_000), st.integers(-10_000, 10_000))
)


@given(lattices, st.integers(1, 400), st.integers(1, 400), st.integers(1, 9), st.integers(1, 4))
def test_every_pixel_is_in_exactly_one_tile(lattice: Lattice, rows: int, cols: int, cells: int, tall: int) -> None:
    covered = np.zeros((rows, cols), int)
    region = Window(0, 0, rows, cols)
    tiles = list(lattice.tiles(region, cells, tall=tall))
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


CONVOLUTIONAL = Tiling(kind="convolutional", window_px=960, halo_px=64, align_px=16, token_px=1, resizable=True)


@pytest.mark.parametrize(("rows", "cols"), [(10000, 10000), (10980, 10980), (2000, 3000), (224, 224), (100, 5000)])
def test_a_resizable_window_fits_the_scene(rows: int, cols: int) -> None:
    grid = Grid(rows, cols, (10, 0, 500003 * 10, 0, -10, 5300005 * 10), "EPSG:32632")
    tiling = fitted(CONVOLUTIONAL, grid)
    lattice = Lattice.of(tiling, grid)

    def computed(lattice: Lattice) -> int:
        return lattice.count(grid.window, 1) * lattice.window_px**2

    assert computed(lattice) <= computed(Lattice.of(CONVOLUTIONAL, grid))
    assert tiling.window_px <= 960
    for tile in lattice.tiles(grid.window, 1):
        assert (tile.read.row + grid.origin_px[0]) % 16 == (tile.read.col + grid.origin_px[1]) % 16 == 0
        assert tile.core.within(tile.read.grow(-64))


@pytest.mark.parametrize("window", [160, 208])
def test_a_narrow_resizable_window_has_but_few_sizes(window: int) -> None:
    """The steps of these are 32 and 80 pixels wide."""
    grid = Grid(500, 300, (10, 0, 500003 * 10, 0, -10, 5300005 * 10), "EPSG:32632")
    tiling = fitted(replace(CONVOLUTIONAL, window_px=window), grid)
    assert tiling.window_px <= window
    assert tiling.stride_px % 16 == 0


def test_other_windows_stay_as_they_are() -> None:
    fixed = replace(CONVOLUTIONAL, resizable=False)
    assert fitted(fixed, Grid(500, 500, (10, 0, 0, 0, -10, 0), "EPSG:32632")) == fixed
