"""What each part of a method is worth: tables and sentences from the rows of methods with a part switched off."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from benchmark_sets.variants import ABLATIONS
from benchmark_tables import SHIPPED, TABLES, Table, by_seed
from page import OPEN, cell, table, wrapped
from rows import Row

NAMES = {"mamol": SHIPPED, "mars": "MARS", "dymo": "DyMo"}
SHOWN = tuple(t for t in TABLES if t.taken_apart)
# A line: what is different, the method whose row it is taken from, and the part of the row's scores.
Line = tuple[str, str, str]
FUSED = ("everything recovered is fused (impute-all)", "dymo", "impute-all")


@dataclass(frozen=True, slots=True)
class Effect:
    """What a part of a method adds to the mean over availabilities, over seeds run with it and without it.

    `spread`: the larger of the two standard deviations; None: of one seed nobody knows it.
    """

    gain: float
    spread: float | None


def lines_of(method: str) -> list[Line]:
    mine = [(v.text, name, "test") for name, v in ABLATIONS.items() if v.method == method]
    return [*mine, FUSED] if method == "dymo" else mine


def means(rows: list[Row], shown: Table, method: str, part: str = "test") -> dict[int, float]:
    """Of each seed: the mean over the availabilities."""
    found = by_seed(rows, shown, method, part)
    return {seed: float(np.mean([f[a] for a in shown.columns])) for seed, f in found.items()}


def effect(rows: list[Row], shown: Table, method: str, line: Line) -> Effect | None:
    whole, less = means(rows, shown, method), means(rows, shown, line[1], line[2])
    seeds = sorted(whole.keys() & less.keys())
    if not seeds:
        return None
    sign = 1 if shown.better == "higher" else -1
    pairs = np.array([[whole[s], less[s]] for s in seeds])
    spread = float(pairs.std(0, ddof=1).max()) if len(seeds) > 1 else None
    return Effect(sign * float((pairs[:, 0] - pairs[:, 1]).mean()), spread)


def method_table(rows: list[Row], method: str) -> str:
    body = []
    for text, name, part in [("nothing: the method", method, "test"), *lines_of(method)]:
        found = [list(means(rows, shown, name, part).values()) for shown in SHOWN]
        body.append([text, *(f"{cell(f)} ({len(f)})" if f else OPEN for f in found)])
    return table(["what is different", *(t.short for t in SHOWN)], body)


def verdict(rows: list[Row], method: str) -> str:
    """What the rows say of each part, and nothing beyond."""
    held, hurts, nothing, unsure = [], [], [], []
    for line in lines_of(method):
        for shown in SHOWN:
            found = effect(rows, shown, method, line)
            if found is None:
                continue
            said = f"{line[0]} ({shown.short}, {found.gain:+.3f})"
            if found.spread is None:
                unsure.append(said)
            elif abs(found.gain) <= found.spread:
                nothing.append(said)
            else:
                (held if found.gain > 0 else hurts).append(said)
    groups = {
        "Held up, worse by more than one standard deviation": held,
        "Did not hold up, better by more than one standard deviation": hurts,
        "Within one standard deviation": nothing,
        "One seed, so nothing is known yet": unsure,
    }
    said = [f"{name}: {'; '.join(parts)}." for name, parts in groups.items() if parts]
    return " ".join(said) or "No part can be judged yet: rows are open."


def parts_off(rows: list[Row]) -> str:
    """The section of the page."""
    text = (
        "One part of a method is switched off or changed at a time; all else is as above. Mean over availabilities ± "
        "standard deviation, number of seeds in brackets. In the sentences the figure is what the part gains, positive "
        "where the method is better with it, over the seeds that were run both ways."
    )
    parts = ["## Methods taken apart", wrapped(text)]
    for method, name in NAMES.items():
        parts += [f"### {name}", method_table(rows, method), wrapped(verdict(rows, method))]
    return "\n\n".join(parts)
