"""Modalities, availabilities, grids and windows."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mmedge.grid import Grid, Window
from mmedge.modality import Availability, Modality

ORDER = ("optical", "sar", "elevation")


def test_availability_reads_what_it_prints() -> None:
    for availability in Availability.every(ORDER):
        assert Availability.parse(str(availability), ORDER) == availability
    assert str(Availability(0, ORDER)) == "none"
    assert Availability.parse("none", ORDER).bits == 0


def test_availability_keeps_the_models_order_and_counts_all_subsets() -> None:
    assert str(Availability.of(["sar", "optical"], ORDER)) == "optical+sar"
    assert len(Availability.every(ORDER)) == 7
    assert len({*Availability.every(ORDER)}) == 7


def test_availability_refuses_bits_that_no_modality_has() -> None:
    with pytest.raises(ValueError, match="do not fit"):
        Availability(8, ORDER)


def test_a_derived_modality_has_the_derived_channels() -> None:
    elevation = Modality(name="elevation", bands=("DEM",), unit="m", gsd_m=10, derive="relief")
    assert elevation.channels == 2
    assert Modality(name="sar", bands=("VV", "VH"), unit="dB", gsd_m=10).channels == 2


windows = st.builds(Window, *[st.integers(-50, 50)] * 2, *[st.integers(1, 60)] * 2)


@given(windows, windows)
def test_intersection_is_the_common_pixels(a: Window, b: Window) -> None:
    def pixels(w: Window) -> set[tuple[int, int]]:
        return {(r, c) for r in range(w.row, w.row + w.height) for c in range(w.col, w.col + w.width)}

    common = a.intersect(b)
    assert pixels(common) == pixels(a) & pixels(b)
    assert common.empty == (not pixels(a) & pixels(b))


@given(windows, st.integers(5, 70))
def test_blocks_cover_every_pixel_once_row_by_row(whole: Window, size: int) -> None:
    seen, blocks = np.zeros(whole.shape, int), list(whole.blocks(size))
    for block in blocks:
        seen[block.within(whole)] += 1
        assert max(block.shape) <= size
    assert (seen == 1).all()
    assert [(b.row, b.col) for b in blocks] == sorted((b.row, b.col) for b in blocks)


@given(st.integers(-300, 300), st.integers(-300, 300), st.sampled_from([0.0, 0.25, 1 / 3, 0.5, 0.9835]))
def test_a_cut_scene_keeps_its_place_on_the_lattice(row: int, col: int, off: float) -> None:
    grid = Grid(500, 500, (10.0, 0.0, 717720 + 10 * off, 0.0, -10.0, 5700090 + 10 * off), "")
    cut = grid.crop(Window(row, col, 10, 10))
    assert cut.origin_px == (grid.origin_px[0] + row, grid.origin_px[1] + col)
