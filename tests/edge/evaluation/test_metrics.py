"""Metrics against scikit-learn."""

from __future__ import annotations

import numpy as np
import pytest

from mmedge.edge.evaluation.metrics import Confusion

sk = pytest.importorskip("sklearn.metrics")
RNG = np.random.default_rng(0)
REFERENCE = RNG.integers(0, 5, (40, 50))
PREDICTED = np.where(RNG.random(REFERENCE.shape) < 0.6, REFERENCE, RNG.integers(0, 6, REFERENCE.shape))


def test_against_scikit_learn() -> None:
    c, r, p = Confusion.of(REFERENCE, PREDICTED, 6), REFERENCE.ravel(), PREDICTED.ravel()
    np.testing.assert_array_equal(c.counts, sk.confusion_matrix(r, p, labels=range(6)))
    assert c.overall_accuracy == pytest.approx(sk.accuracy_score(r, p))
    assert c.average_accuracy == pytest.approx(sk.recall_score(r, p, labels=range(5), average="macro"))
    assert c.kappa == pytest.approx(sk.cohen_kappa_score(r, p))
    assert c.mean_iou == pytest.approx(sk.jaccard_score(r, p, labels=range(5), average="macro"))
    assert c.macro_f1 == pytest.approx(sk.f1_score(r, p, labels=range(5), average="macro"))


def test_unknown_pixels_do_not_count_and_parts_add_up() -> None:
    known = np.where(RNG.random(REFERENCE.shape) < 0.5, REFERENCE, -1)
    rest = np.where(known < 0, REFERENCE, -1)
    total = Confusion.of(known, PREDICTED, 6) + Confusion.of(rest, PREDICTED, 6)
    np.testing.assert_array_equal(total.counts, Confusion.of(REFERENCE, PREDICTED, 6).counts)


def test_nothing_known_scores_nothing() -> None:
    empty = Confusion.of(np.full((3, 3), -1), np.zeros((3, 3), np.int64), 4)
    assert (empty.pixels, empty.overall_accuracy, empty.mean_iou, empty.kappa) == (0, 0, 0, 0)


def test_shapes_must_agree() -> None:
    with pytest.raises(ValueError, match="map is"):
        Confusion.of(np.zeros((2, 3), np.int64), np.zeros((3, 2), np.int64), 2)
