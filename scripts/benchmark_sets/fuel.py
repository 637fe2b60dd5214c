"""Presto's fuel moisture: per cent of water in living plants from three months of four sensors (restricted).

Tseng et al., arXiv:2304.14065. A regression, here in ten classes with equally many training samples: a class stands for
the mean of its training samples, in the reference as in the map. Sites are never divided, neither by the published
split nor between training and validation.
"""

from __future__ import annotations

from itertools import combinations
from pathlib import Path

import numpy as np

from benchmark_sets.algae import BINS, SENSORS, by_sensor, with_ndvi
from benchmark_sets.examples import Benchmark, Budget, Split, grouped

CLASSES = 10


def read(root: Path, cache: Path) -> Benchmark:
    """`root`: the data bundle."""
    with np.load(root / "restricted" / "presto_pixels" / "fuel_moisture.npz") as z:
        bands, is_test, sites = z["bands"].tolist(), z["is_test"].astype(bool), z["site"].tolist()
        series, moisture = with_ndvi(z["s1_s2_era5_srtm"], bands), z["target"]
    known = moisture[~is_test]
    edges = np.quantile(known, np.linspace(0, 1, CLASSES + 1)[1:-1])
    labels = np.digitize(moisture, edges).astype(np.int64)
    grades = tuple(round(float(known[labels[~is_test] == k].mean()), 2) for k in range(CLASSES))
    validates = ~is_test & (grouped(sites, ["all"] * len(sites), BINS) == 0)
    split = Split(
        name="published",
        train=np.flatnonzero(~is_test & ~validates),
        validate=np.flatnonzero(validates),
        test=np.flatnonzero(is_test),
    )
    names = tuple(SENSORS)
    return Benchmark(
        name="fuel",
        task="window",
        classes=tuple(f"about {g} %" for g in grades),
        data=by_sensor(series, bands),
        labels=labels,
        protocols={"published": (split,)},
        tested=tuple(c for n in range(1, len(names) + 1) for c in combinations(names, n)),
        score="rmse",
        encoder={"encoder": "vit", "encoder_options": {"patch": 1}},
        budget=Budget(steps=300, batch=64, check_every=25),
        grades=grades,
    )
