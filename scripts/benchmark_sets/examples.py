"""A benchmark in memory: examples of every sensor, labels, and the splits that a row of the table is made of."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

Ints = npt.NDArray[np.int64]
Arrays = Mapping[str, npt.NDArray[Any]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Split:
    """Indices of the examples that train, that choose the checkpoint, and that are scored."""

    name: str
    train: Ints
    validate: Ints
    test: Ints


@dataclass(frozen=True, slots=True, kw_only=True)
class Budget:
    """What every method gets: optimisation steps in all its stages together, examples a step, crops of `window_px`."""

    steps: int
    batch: int
    check_every: int = 100
    window_px: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Benchmark:
    """Examples (N, C, H, W) of each sensor; labels (N,) of windows, or (N, H, W) of maps, at the examples' resolution.

    `truth`: labels of maps at their own resolution, a whole multiple; what is scored. `protocols`: the splits of each;
    their confusions are summed. `tested`: the availabilities for which test data exist. `score`: the figure that
    chooses checkpoints and heads the table. `grades`: what each class stands for on a scale, where errors have a size.
    """

    name: str
    task: Literal["map", "window"]
    classes: tuple[str, ...]
    data: Arrays
    labels: Ints
    protocols: Mapping[str, tuple[Split, ...]]
    tested: tuple[tuple[str, ...], ...]
    score: str
    encoder: Mapping[str, Any]
    budget: Budget
    truth: npt.NDArray[np.int8] | None = None
    grades: tuple[float, ...] = ()

    @property
    def sensors(self) -> tuple[str, ...]:
        return tuple(self.data)


def cached(path: Path, decode: Callable[[], dict[str, npt.NDArray[Any]]]) -> dict[str, npt.NDArray[Any]]:
    """What `decode` returns, from one file after the first time."""
    if not path.is_file():
        path.parent.mkdir(parents=True, exist_ok=True)
        part = path.with_suffix(".part.npz")
        np.savez(part, **decode())
        part.replace(path)
    with np.load(path) as z:
        return {name: z[name] for name in z.files}


def grouped(groups: Sequence[str], strata: Sequence[str], bins: int) -> Ints:
    """A bin (N,) for each example. A group is never divided; every stratum is spread evenly as far as that goes."""
    names = np.asarray(groups)
    kinds = np.asarray(strata)
    found = np.zeros(len(names), np.int64)
    for kind in np.unique(kinds):
        load = np.zeros(bins, np.int64)
        members, sizes = np.unique(names[kinds == kind], return_counts=True)
        for i in np.argsort(-sizes, kind="stable"):
            emptiest = int(load.argmin())
            found[names == members[i]] = emptiest
            load[emptiest] += sizes[i]
    return found


def folds_of(bins: Ints, folds: int) -> tuple[Split, ...]:
    """Splits from twice as many bins: two are tested, the next chooses the checkpoint, the rest trains."""
    count = 2 * folds
    splits = []
    for k in range(folds):
        test = np.isin(bins, (2 * k, 2 * k + 1))
        validate = bins == (2 * k + 2) % count
        train = ~test & ~validate
        splits.append(Split(name=f"fold-{k}", **_where(train=train, validate=validate, test=test)))
    return tuple(splits)


def _where(**masks: npt.NDArray[np.bool_]) -> dict[str, Ints]:
    return {name: np.flatnonzero(mask) for name, mask in masks.items()}
