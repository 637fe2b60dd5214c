"""Which method to take, over all benchmarks: one table and what it says."""

from __future__ import annotations

from benchmark_tables import LINES, METHODS, TABLES, gain, means, ranking
from page import OPEN, cell, table, wrapped
from rows import Row

SHOWN = tuple(t for t in TABLES if not t.leaks)


def which_to_take(rows: list[Row]) -> str:
    """The section of the page."""
    text = (
        "Mean over availabilities ± standard deviation over seeds, of every benchmark but MaMOL's own protocol; RMSE "
        "is better where it is lower. Bold: the best, the specialists apart, which are a network for every set of "
        "sensors. The default model's own scenes have [a page](default_model.md) of their own."
    )
    parts = [
        "## Which method to take",
        wrapped(text),
        _table(rows),
        wrapped(against_dropout(rows)),
        wrapped(best(rows)),
    ]
    return "\n\n".join(part for part in parts if part)


def _table(rows: list[Row]) -> str:
    first = [next(iter(ranking(rows, shown)), None) for shown in SHOWN]
    body = []
    for name, method, part in LINES:
        if part == "test":
            cells = [cell(means(rows, shown, method)) for shown in SHOWN]
            body.append([name, *(f"**{c}**" if f == name else c for c, f in zip(cells, first, strict=True))])
    return table(["method", *(shown.short for shown in SHOWN)], body)


def against_dropout(rows: list[Row]) -> str:
    """How often each method of the papers beats modality dropout, over the benchmarks of which both have a spread."""
    said, balance = [], {}
    for method, name in METHODS.items():
        found = [g for shown in SHOWN if (g := gain(rows, shown, method))]
        gains = [more / spread for more, spread in found if spread]
        better, worse = sum(g > 1 for g in gains), sum(g < -1 for g in gains)
        if gains:
            said.append(f"{name} is better on {better} and worse on {worse} of {len(gains)}")
            balance[name] = better - worse
    if not said:
        return f"No method can be compared with modality dropout yet: rows are {OPEN}."
    first = [name for name, count in balance.items() if count == max(balance.values())]
    return (
        f"Against modality dropout, by more than one standard deviation: {'; '.join(said)}. So of these the first to "
        f"try is {' or '.join(first)}."
    )


def best(rows: list[Row]) -> str:
    """What came out first, and on which benchmarks."""
    where: dict[str, list[str]] = {}
    for shown in SHOWN:
        for name in list(ranking(rows, shown))[:1]:
            where.setdefault(name, []).append(shown.short)
    said = [f"{name} on {' and '.join(shorts)}" for name, shorts in where.items()]
    return f"The best was {', '.join(said)}." if said else ""
