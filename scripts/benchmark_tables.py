"""What the tables of the public benchmarks show, and the rows of docs/results/benchmark_rows.json behind each."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import combinations

import numpy as np
from rows import Row


@dataclass(frozen=True, slots=True, kw_only=True)
class Table:
    """What one protocol's table shows. `letters`: short names of the sensors; `reference`: figures of others' runs.

    `short`: the benchmark's name in a column. `taken_apart`: methods are, there. `leaks`: test and training share too
    much for advice.
    """

    benchmark: str
    protocol: str
    title: str
    score: str
    letters: Mapping[str, str]
    text: str
    short: str
    tested: tuple[str, ...] = ()
    reference: Mapping[str, float] | None = None
    better: str = "higher"
    taken_apart: bool = False
    leaks: bool = False

    @property
    def columns(self) -> tuple[str, ...]:
        names = tuple(self.letters)
        every = ("+".join(c) for n in range(1, len(names) + 1) for c in combinations(names, n))
        return self.tested or tuple(every)


SHIPPED = "MaMOL, two stages"
# A line of a table: its name, the method whose row it is taken from, and the part of the row's scores.
LINES = (
    ("gradient-boosted trees", "trees", "test"),
    ("zero fill", "zero-fill", "test"),
    ("mean fill", "mean-fill", "test"),
    ("modality dropout", "dropout", "test"),
    (SHIPPED, "mamol", "test"),
    ("MARS", "mars", "test"),
    ("MARS, its own route trained too (ours)", "mars:deployed", "test"),
    ("MARS, oracle: routed by the true residual", "mars", "oracle"),
    ("DyMo", "dymo", "test"),
    ("DyMo, discard: nothing recovered", "dymo", "discard"),
    ("impute-all: everything recovered is believed", "dymo", "impute-all"),
    ("DyMo, oracle: best subset by the label", "dymo", "oracle"),
    ("specialists: one network an availability", "specialists", "test"),
)
METHODS = {"mamol": "MaMOL", "mars": "MARS", "mars:deployed": "MARS with its own route trained", "dymo": "DyMo"}

OMBRIA = {"s1": "S1", "s2": "S2"}
TABLES = (
    Table(
        benchmark="ombria",
        protocol="published",
        short="OMBRIA",
        taken_apart=True,
        title="OMBRIA, published split: IoU of flood",
        score="flood_iou",
        letters=OMBRIA,
        text="624 chips train and choose the checkpoint, 70 are tested. Test chips share their flood events with "
        "training chips, so this split flatters every method.",
        reference={"s1": 0.318, "s2": 0.681, "s1+s2": 0.727},
    ),
    Table(
        benchmark="ombria",
        protocol="events",
        short="OMBRIA by event",
        title="OMBRIA, four folds by event inside the training chips: IoU of flood",
        score="flood_iou",
        letters=OMBRIA,
        text="Events are not recorded; chips are numbered event by event, and a fold is a run of numbers. Chips within "
        "30 numbers of the tested run do not train.",
    ),
    Table(
        benchmark="idtrees",
        protocol="plots",
        short="IDTReeS",
        taken_apart=True,
        title="IDTReeS, five folds by group of plots: overall accuracy, eight species",
        score="oa",
        letters={"hsi": "HSI", "chm": "CHM", "rgb": "RGB"},
        text="719 crowns of 60 plots. Plots that touch or share a tree are one group and never divided.",
        reference={"hsi": 0.541, "chm": 0.343, "rgb": 0.468, "hsi+chm+rgb": 0.560},
    ),
    Table(
        benchmark="houston2013",
        protocol="official",
        short="Houston 2013",
        taken_apart=True,
        title="Houston 2013: trained with spectra and LiDAR, tested without spectra: overall accuracy",
        score="oa",
        letters={"hsi": "HSI", "lidar": "LiDAR"},
        text="12,197 official test samples, whose spectra are not at hand. Training pixels have no coordinates.",
        tested=("lidar",),
        reference={"lidar": 0.689},
    ),
    Table(
        benchmark="houston2013-random",
        protocol="random",
        short="Houston 2013, leaking",
        title="Houston 2013 by MaMOL's own protocol, which leaks: overall accuracy",
        score="oa",
        letters={"hsi": "HSI", "lidar": "LiDAR"},
        text="A side table: no figure of it says how well a map will be. As in the method's released scripts, pixels "
        "are drawn at random, 100 a class to train and to choose the checkpoint, and others of the same fields, whose "
        "neighbours they are, are tested: 1,332 of the official training pixels. The table above, of the same networks "
        "on other fields, has the LiDAR column to compare.",
        leaks=True,
    ),
    Table(
        benchmark="algae",
        protocol="published",
        short="algae (RMSE)",
        taken_apart=True,
        title="Presto's algae blooms, geographic split: RMSE of the severity (lower is better)",
        score="rmse",
        letters={"s1": "1", "s2": "2", "era5": "W", "srtm": "D"},
        text="345 test samples. 1 Sentinel-1, 2 Sentinel-2, W weather, D terrain. Here more sensors can hurt. Networks "
        "classify; the class with the highest probability is scored.",
        better="lower",
        reference={"s1": 1.133, "s2": 0.990, "era5": 0.853, "s1+s2": 0.974, "s1+s2+era5+srtm": 1.337},
    ),
    Table(
        benchmark="fuel",
        protocol="published",
        short="fuel (RMSE)",
        title="Presto's fuel moisture, by site: RMSE in per cent of moisture, ten classes (lower is better)",
        score="rmse",
        letters={"s1": "1", "s2": "2", "era5": "W", "srtm": "D"},
        text="735 test samples of sites that do not train. A regression made a classification: a class stands for the "
        "mean of its training samples, in the reference as in the map, so the figures compare methods here and are not "
        "those of a regression.",
        better="lower",
    ),
)


def by_seed(rows: list[Row], shown: Table, method: str, part: str = "test") -> dict[int, dict[str, float]]:
    """Of each seed that was run: availability -> score."""
    return {
        row["seed"]: {a: values[shown.score] for a, values in row["scores"][part].items()}
        for row in rows
        if (row["benchmark"], row["protocol"], row["method"]) == (shown.benchmark, shown.protocol, method)
        and part in row["scores"]
    }


def scores(rows: list[Row], shown: Table, method: str, part: str = "test") -> list[dict[str, float]]:
    """One dict for each seed that was run: availability -> score."""
    return list(by_seed(rows, shown, method, part).values())


def means(rows: list[Row], shown: Table, method: str) -> list[float]:
    """Mean over the availabilities, for each seed."""
    return [float(np.mean([found[a] for a in shown.columns])) for found in scores(rows, shown, method)]


def gain(rows: list[Row], shown: Table, method: str) -> tuple[float, float | None] | None:
    """How much better than modality dropout, and the larger of both standard deviations; None: not run, one seed."""
    mine, dropout = (means(rows, shown, m) for m in (method, "dropout"))
    if not mine or not dropout:
        return None
    sign = 1 if shown.better == "higher" else -1
    several = min(len(mine), len(dropout)) > 1
    spread = float(max(np.std(mine, ddof=1), np.std(dropout, ddof=1))) if several else None
    return sign * float(np.mean(mine) - np.mean(dropout)), spread


def ranking(rows: list[Row], shown: Table) -> dict[str, float]:
    """Mean over availabilities and seeds of each line but the specialists, the best first.

    A line with fewer seeds than another is left out: it may be first by chance.
    """
    found = {
        name: means(rows, shown, method) for name, method, part in LINES if part == "test" and method != "specialists"
    }
    seeds = max(map(len, found.values()))
    whole = {name: float(np.mean(mine)) for name, mine in found.items() if mine and len(mine) == seeds}
    return dict(sorted(whole.items(), key=lambda item: item[1], reverse=shown.better == "higher"))
