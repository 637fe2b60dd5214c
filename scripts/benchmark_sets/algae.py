"""Presto's algae blooms: severity of a bloom from a year of four sensors; here more sensors can hurt (restricted).

Tseng et al., arXiv:2304.14065. Twelve months are channels; the stored NDVI is wrong and computed anew. The published
split is geographic; the training samples of every fifth square degree choose the checkpoint.
"""

from __future__ import annotations

from itertools import combinations
from pathlib import Path

import numpy as np
import numpy.typing as npt

from benchmark_sets.examples import Benchmark, Budget, Split, grouped

SENSORS = {
    "s1": ("VV", "VH"),
    "s2": ("B2", "B3", "B4", "B5", "B6", "B7", "B8", "B8A", "B11", "B12", "NDVI"),
    "era5": ("temperature_2m", "total_precipitation"),
    "srtm": ("elevation", "slope"),
}
STATIC = "srtm"
BINS = 5
Floats = npt.NDArray[np.float64]


def read(root: Path, cache: Path) -> Benchmark:
    """`root`: the data bundle."""
    with np.load(root / "restricted" / "presto_pixels" / "algae_blooms.npz") as z:
        series, bands = with_ndvi(z["s1_s2_era5_srtm"], z["bands"].tolist()), z["bands"].tolist()
        is_test, latlon = z["is_test"].astype(bool), z["latlon"]
        labels = z["target"].astype(np.int64) - 1
    squares = [f"{lat}_{lon}" for lat, lon in np.floor(latlon).astype(int)]
    validates = ~is_test & (grouped(squares, ["all"] * len(squares), BINS) == 0)
    train = ~is_test & ~validates
    split = Split(name="published", train=np.flatnonzero(train), validate=np.flatnonzero(validates),
                  test=np.flatnonzero(is_test))  # fmt: skip
    names = tuple(SENSORS)
    return Benchmark(
        name="algae",
        task="window",
        classes=tuple(f"severity {i + 1}" for i in range(5)),
        data=by_sensor(series, bands),
        labels=labels,
        protocols={"published": (split,)},
        tested=tuple(c for n in range(1, len(names) + 1) for c in combinations(names, n)),
        score="oa",
        encoder={"encoder": "vit", "encoder_options": {"patch": 1}},
        budget=Budget(steps=300, batch=64, check_every=25),
        grades=(1, 2, 3, 4, 5),
    )


def with_ndvi(series: Floats, bands: list[str]) -> Floats:
    """The series (N, months, bands) with the vegetation index made of its bands."""
    red, infrared = series[..., bands.index("B4")], series[..., bands.index("B8")]
    series[..., bands.index("NDVI")] = (infrared - red) / np.maximum(infrared + red, 1e-6)
    return series


def by_sensor(series: Floats, bands: list[str]) -> dict[str, npt.NDArray[np.float32]]:
    """(N, months, bands) -> (N, months * bands, 1, 1) of each sensor; terrain is the same every month."""
    found = {}
    for sensor, wanted in SENSORS.items():
        columns = [bands.index(b) for b in wanted]
        part = series[:, :1, columns] if sensor == STATIC else series[:, :, columns]
        found[sensor] = part.reshape(len(series), -1, 1, 1).astype(np.float32)
    return found
