"""Accuracy and class areas of a map from a reference sample, with confidence intervals.

Olofsson et al. 2014, "Good practices for estimating area and assessing accuracy of land change", Remote Sensing of
Environment 148: the stratified estimators of equations 1-11. Strata are the classes of the map; units are drawn at
random within each. A simple random sample is treated the same way (post-stratified).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]
Z95 = 1.959963984540054  # half width of a 95 % interval in standard errors


@dataclass(frozen=True, slots=True, kw_only=True)
class AreaEstimate:
    """Shares (0..1) and standard errors. `user`, `producer` and `area` are (classes,), area as a share of the map.

    NaN where a class cannot be judged: it is neither in the sample nor, for `user`, mapped and sampled.
    """

    overall: float
    overall_se: float
    user: Floats
    user_se: Floats
    producer: Floats
    producer_se: Floats
    area: Floats
    area_se: Floats


def estimate_area(counts: Ints, mapped: Floats) -> AreaEstimate:
    """Estimates from counts (classes, classes), row = map, column = reference, and the mapped area (classes,) of each
    class, in any unit.

    Raises ValueError where a class that is mapped has fewer than two sample units: its variance is unknown.
    """
    counts, mapped = np.asarray(counts, np.int64), np.asarray(mapped, np.float64)
    if counts.ndim != 2 or counts.shape[0] != counts.shape[1] or mapped.shape != counts.shape[:1]:
        raise ValueError(f"counts {counts.shape} and mapped pixels {mapped.shape} do not fit")
    rows = counts.sum(1)
    if ((mapped > 0) & (rows < 2)).any():
        raise ValueError("every class of the map needs at least two sample units")
    if (rows[mapped == 0] > 0).any():
        raise ValueError("a sample unit lies in a class that is mapped nowhere")
    weight = mapped / mapped.sum()
    share = counts / np.maximum(rows, 1)[:, None]  # of the stratum's sample, n_ij / n_i.
    spread = share * (1 - share) / np.maximum(rows - 1, 1)[:, None]  # its variance
    cell = weight[:, None] * share  # of the map, p_ij
    area, hit = cell.sum(0), np.diag(cell)
    user = np.where(rows > 0, np.diag(share), np.nan)
    user_var = np.where(rows > 0, np.diag(spread), np.nan)
    producer = np.divide(hit, area, out=np.full(len(area), np.nan), where=area > 0)
    return AreaEstimate(
        overall=float(hit.sum()),
        overall_se=float(np.sqrt((weight**2 * np.diag(spread)).sum())),
        user=user,
        user_se=np.sqrt(user_var),
        producer=producer,
        producer_se=_producer_error(weight, spread, producer, area),
        area=area,
        area_se=np.sqrt((weight[:, None] ** 2 * spread).sum(0)),
    )


def _producer_error(weight: Floats, spread: Floats, producer: Floats, area: Floats) -> Floats:
    """Standard errors (classes,) of equation 7; NaN where the class has no area."""
    inside = weight**2 * np.diag(spread)
    outside = (weight[:, None] ** 2 * spread).sum(0) - inside
    variance = (1 - producer) ** 2 * inside + producer**2 * outside
    errors: Floats = np.sqrt(np.divide(variance, area**2, out=np.full(len(area), np.nan), where=area > 0))
    return errors
