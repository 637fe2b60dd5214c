"""Gradient-boosted trees, fitted anew for each availability: what a practitioner would train in a minute."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
from scipy.ndimage import uniform_filter
from sklearn.ensemble import HistGradientBoostingClassifier

from benchmark_sets.examples import Benchmark, Ints, Split
from mmedge.edge.evaluation.metrics import Confusion

FIT_PIXELS = 120_000
AROUND_PX = 7


def score_trees(benchmark: Benchmark, split: Split, present: Sequence[str], seed: int) -> Confusion:
    """Of a map each pixel and its mean over 7 x 7; of a window the mean and deviation of each channel."""
    rng = np.random.default_rng(seed)
    x, y = _features(benchmark, split.train, present), benchmark.labels[split.train].ravel()
    some = rng.permutation(len(y))[:FIT_PIXELS]
    trees = HistGradientBoostingClassifier(max_iter=100, early_stopping=False, random_state=seed)
    trees.fit(x[some], y[some])
    total = np.zeros((len(benchmark.classes),) * 2, np.int64)
    for rows in (
        np.array_split(split.test, max(1, len(split.test) // 16)) if benchmark.truth is not None else [split.test]
    ):
        found = trees.predict(_features(benchmark, rows, present)).astype(np.int64)
        reference: npt.NDArray[np.integer] = benchmark.labels[rows]
        classed = found.reshape(reference.shape)
        if benchmark.truth is not None:
            reference = benchmark.truth[rows]
            times = reference.shape[-1] // classed.shape[-1]
            classed = classed.repeat(times, 1).repeat(times, 2)
        total += Confusion.of(reference, classed, len(total)).counts
    return Confusion(total)


def _features(benchmark: Benchmark, rows: Ints, present: Sequence[str]) -> npt.NDArray[np.float32]:
    """(places, features)."""
    found = []
    for m in present:
        x = benchmark.data[m][rows].astype(np.float32)
        if benchmark.task == "map":
            around = uniform_filter(x, (0, 0, AROUND_PX, AROUND_PX))
            found += [np.moveaxis(part, 1, -1).reshape(-1, x.shape[1]) for part in (x, around)]
        else:
            found += [x.mean((2, 3)), x.std((2, 3))] if x.shape[2] > 1 else [x[..., 0, 0]]
    return np.concatenate(found, axis=1)
