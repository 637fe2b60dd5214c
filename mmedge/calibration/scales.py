"""From a histogram of |x| to the largest value that int8 keeps: minmax, percentile, entropy, mean squared error."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import numpy.typing as npt

from mmedge.calibration.observe import Histogram

LEVELS = 128  # magnitudes that int8 tells apart, 0 to 127
PERCENTILE = 99.99
STRIDE = 16  # every 16th bin is a candidate
Floats = npt.NDArray[np.float64]


def minmax(histogram: Histogram) -> float:
    """The largest value seen: nothing is clipped."""
    return histogram.top


def percentile(histogram: Histogram, share: float = PERCENTILE) -> float:
    """The value that `share` percent of the values do not exceed."""
    total = histogram.counts.cumsum()
    bin_ = int(np.searchsorted(total, total[-1] * share / 100))
    return (min(bin_, len(total) - 1) + 1) * histogram.top / len(total)


def mean_squared_error(histogram: Histogram) -> float:
    """The clip with the least squared error of rounding and clipping together."""
    x, weight = histogram.centres, histogram.counts

    def error(clip: float) -> float:
        step = clip / (LEVELS - 1)
        rounded = np.rint(np.minimum(x, clip) / step) * step
        return float((weight * (x - rounded) ** 2).sum())

    return min(_candidates(histogram), key=error)


def entropy(histogram: Histogram) -> float:
    """The clip whose int8 distribution diverges least (Kullback-Leibler) from the clipped one.

    S. Migacz, "8-bit inference with TensorRT", GTC 2017: what is clipped counts in the last bin of the reference.
    """
    counts = histogram.counts.astype(np.float64)
    width = histogram.top / len(counts)
    return min(_candidates(histogram), key=lambda clip: _divergence(counts, round(clip / width)))


def _divergence(counts: Floats, kept: int) -> float:
    reference = counts[:kept].copy()
    reference[-1] += counts[kept:].sum()
    level = np.arange(kept) * LEVELS // kept
    filled = counts[:kept] > 0
    total = np.bincount(level, counts[:kept], LEVELS)
    share = np.bincount(level, filled, LEVELS)
    spread = np.where(filled, total[level] / np.maximum(share[level], 1), 0.0)
    p, q = reference / reference.sum(), spread / max(spread.sum(), 1e-12)
    some = p > 0
    return float((p[some] * np.log(p[some] / np.maximum(q[some], 1e-12))).sum())


def _candidates(histogram: Histogram) -> list[float]:
    bins = len(histogram.counts)
    return [kept * histogram.top / bins for kept in range(LEVELS, bins + 1, STRIDE)]


METHODS: dict[str, Callable[[Histogram], float]] = {
    "minmax": minmax,
    "percentile": percentile,
    "entropy": entropy,
    "mse": mean_squared_error,
}
