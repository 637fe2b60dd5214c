"""The worked example of Olofsson et al. 2014 (tables 8 and 9, section 5): counts in, published figures out."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mmedge.edge.evaluation.area import Z95, estimate_area

# Deforestation, forest gain, stable forest, stable non-forest; rows are the map, columns the reference.
COUNTS = np.array([[66, 0, 5, 4], [0, 55, 8, 12], [1, 0, 153, 11], [2, 1, 9, 313]])
MAPPED = np.array([200_000, 150_000, 3_200_000, 6_450_000])
PIXEL_HA = 0.09


def test_the_worked_example() -> None:
    found = estimate_area(COUNTS, MAPPED)
    assert round(found.overall, 2) == 0.95
    assert round(Z95 * found.overall_se, 2) == 0.02
    np.testing.assert_array_equal(found.user.round(2), [0.88, 0.73, 0.93, 0.96])
    np.testing.assert_array_equal((Z95 * found.user_se).round(2), [0.07, 0.10, 0.04, 0.02])
    np.testing.assert_array_equal(found.producer.round(2), [0.75, 0.85, 0.93, 0.96])
    deforested, error = found.area[0] * MAPPED.sum(), Z95 * found.area_se[0] * MAPPED.sum()
    assert round(deforested) == 235_086
    assert error == pytest.approx(68_418, abs=2)  # the paper's 1.96 is rounded
    assert round(deforested * PIXEL_HA) == 21_158
    assert error * PIXEL_HA == pytest.approx(6_158, abs=1)


def test_the_producer_errors_by_a_simulation() -> None:
    """Large stratified samples from a population of known shares: the estimate is right, its error as stated."""
    rng = np.random.default_rng(0)
    shares = COUNTS / COUNTS.sum(1, keepdims=True)
    truth = estimate_area(10 * COUNTS, MAPPED)
    drawn = []
    for _ in range(2000):
        sample = np.array([rng.multinomial(n, p) for n, p in zip(10 * COUNTS.sum(1), shares, strict=True)])
        drawn.append(estimate_area(sample, MAPPED).producer)
    found = np.array(drawn)
    np.testing.assert_allclose(found.mean(0), truth.producer, atol=0.01)
    np.testing.assert_allclose(found.std(0), truth.producer_se, rtol=0.1)


@given(st.lists(st.integers(2, 50), min_size=2, max_size=5))
def test_a_perfect_sample_gives_the_mapped_areas(units: list[int]) -> None:
    mapped = np.arange(1, len(units) + 1) * 1000
    found = estimate_area(np.diag(units), mapped)
    np.testing.assert_allclose(found.area, mapped / mapped.sum())
    assert found.overall == pytest.approx(1)
    assert found.overall_se == 0
    np.testing.assert_array_equal(found.producer_se, 0)


def test_a_class_without_enough_units_is_refused() -> None:
    with pytest.raises(ValueError, match="two sample units"):
        estimate_area(np.diag([5, 1]), np.array([10, 10]))
    with pytest.raises(ValueError, match="mapped nowhere"):
        estimate_area(np.diag([5, 5]), np.array([10, 0]))


def test_a_class_that_only_the_reference_knows_has_an_area() -> None:
    counts = np.array([[8, 0, 2], [0, 9, 1], [0, 0, 0]])
    found = estimate_area(counts, np.array([500, 500, 0]))
    assert found.area[2] == pytest.approx(0.15)
    assert found.producer[2] == 0
    assert np.isnan(found.user[2])
