"""The morphological ground filter and the bounded interpolation, against loops that follow their definitions."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import rasterio
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from mmedge.geo_io.lidar import LidarSource
from mmedge.geo_io.pointclouds.ground_filter import MAX_RADIUS, GroundFilter, fill, filter_ground
from mmedge.grid import Grid

OPEN = Path(__file__).parents[4] / "shared" / "data" / "open"

SHAPES = hnp.array_shapes(min_dims=2, max_dims=2, max_side=14)
HEIGHTS = hnp.arrays(np.float64, SHAPES, elements=st.floats(0, 30, width=32))


def opening(heights: np.ndarray, known: np.ndarray, radius: int) -> np.ndarray:
    """Minimum, then maximum, over the known cells of a square."""

    def window(row: int, col: int) -> tuple[slice, slice]:
        return slice(max(0, row - radius), row + radius + 1), slice(max(0, col - radius), col + radius + 1)

    eroded, opened = np.full(heights.shape, np.nan), np.full(heights.shape, np.nan)
    for place in np.ndindex(heights.shape):
        if known[window(*place)].any():
            eroded[place] = heights[window(*place)][known[window(*place)]].min()
    for place in zip(*np.nonzero(known), strict=True):
        opened[place] = np.nanmax(eroded[window(*place)])
    return opened


@settings(max_examples=60, deadline=None)
@given(heights=HEIGHTS, seed=st.integers(0, 99), cell_m=st.sampled_from([0.5, 1.0, 3.0, 10.0]))
def test_the_filter_follows_its_definition(heights: np.ndarray, seed: int, cell_m: float) -> None:
    known = np.random.default_rng(seed).random(heights.shape) < 0.7
    chosen = GroundFilter(window_m=9.0, slope=0.4)
    expected, surface = known.copy(), heights.copy()
    for radius in chosen.radii(cell_m):
        opened = opening(surface, known, radius)
        expected &= np.where(known, surface - opened, np.inf) <= chosen.step_m(radius, cell_m)
        surface = np.where(known, opened, 0)
    np.testing.assert_array_equal(filter_ground(heights, known, cell_m, chosen), expected)


@settings(max_examples=60, deadline=None)
@given(heights=HEIGHTS, seed=st.integers(0, 99), distance=st.integers(1, 5))
def test_interpolation_is_the_inverse_distance_mean_of_what_is_near(
    heights: np.ndarray, seed: int, distance: int
) -> None:
    known = np.random.default_rng(seed).random(heights.shape) < 0.3
    filled, reached = fill(heights, known, distance)
    rows, cols = np.nonzero(known)
    for place in np.ndindex(heights.shape):
        square = (rows - place[0]) ** 2 + (cols - place[1]) ** 2
        near = square <= distance**2
        assert reached[place] == near.any()
        if known[place]:
            assert filled[place] == heights[place]
        elif near.any():
            expected = np.average(heights[rows[near], cols[near]], weights=1 / square[near])
            assert filled[place] == pytest.approx(expected, rel=1e-12, abs=1e-12)


def test_radii_are_the_papers_and_bounded() -> None:
    chosen = GroundFilter()
    assert chosen.radii(1.0) == [1, 2, 4, 8, 16]  # windows of 3, 5, 9, 17 and 33 m
    assert chosen.reach(1.0) == 62
    assert [chosen.step_m(r, 1.0) for r in chosen.radii(1.0)] == [0.15, 2.15, 2.5, 2.5, 2.5]
    assert chosen.radii(30.0) == [1]
    assert max(chosen.radii(0.01)) == MAX_RADIUS


def test_a_house_goes_and_a_hillside_stays() -> None:
    rows, cols = np.mgrid[:60, :60].astype(float)
    hillside = 0.2 * cols + 0.1 * rows
    house = np.zeros((60, 60), bool)
    house[20:35, 20:35] = True
    ground = filter_ground(hillside + 6.0 * house, np.ones((60, 60), bool), 1.0, GroundFilter())
    assert not ground[house].any()
    inner = np.zeros_like(house)
    inner[10:-10, 10:-10] = True
    assert ground[inner & ~house].all()


def test_the_filter_finds_the_ground_that_neon_classified() -> None:
    """60 IDTReeS plots at 1 m, both interpolated: figures in docs/sensors/lidar.md."""
    plots = OPEN / "idtrees" / "plots"
    if not plots.exists():
        pytest.skip("shared/data/open/idtrees is not here: the shared data are not part of the repository")
    errors = []
    for plot in sorted(plots.iterdir()):
        with rasterio.open(plot / "CHM.tif") as chm:
            grid = Grid(chm.height, chm.width, tuple(chm.transform)[:6], chm.crs.to_wkt())
        with (
            LidarSource(plot / "points.laz", grid, ground="class", fill_cells=10) as given_class,
            LidarSource(plot / "points.laz", grid, ground="filter", fill_cells=10) as filtered,
        ):
            (a, known), (b, found) = given_class.read(grid.window), filtered.read(grid.window)
        errors.append((b[0] - a[0])[known & found])
    error = np.concatenate(errors)
    assert len(error) > 0.99 * 60 * 400
    assert abs(float(np.median(error))) < 0.1
    assert (abs(error) <= 0.5).mean() > 0.97
