"""Write the tables of the public benchmarks from what was measured: `python scripts/benchmark_results.py`.

Reads docs/results/benchmark_rows.json (scripts/score_benchmark.py), writes docs/results/benchmarks.md. What was not run
stands there as open. `--check` fails where the page is stale.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import numpy as np
from benchmark_ablations import parts_off
from benchmark_summary import which_to_take
from benchmark_tables import LINES, METHODS, SHIPPED, TABLES, Table, gain, means, ranking, scores
from page import OPEN, cell, table, wrapped
from rows import Row, read_rows

ROWS, PAGE = Path("docs/results/benchmark_rows.json"), Path("docs/results/benchmarks.md")


def lines(rows: list[Row], shown: Table) -> str:
    body = []
    if shown.reference:
        cells = [cell([shown.reference[a]]) if a in shown.reference else "-" for a in shown.columns]
        body.append(["trees or forest of the data's README", "-", *cells, "-", "-"])
    for name, method, part in LINES:
        if part == "oracle" and shown.tested:
            continue  # without complete test data nobody knows it
        found = scores(rows, shown, method, part)
        cells = [cell([f[a] for f in found]) for a in shown.columns]
        mean = cell([float(np.mean([f[a] for a in shown.columns])) for f in found])
        worst = cell([(min if shown.better == "higher" else max)(f[a] for a in shown.columns) for f in found])
        body.append([name, str(len(found)) if found else OPEN, *cells, mean, worst])
    letters = ["+".join(shown.letters[m] for m in a.split("+")) for a in shown.columns]
    return table(["method", "seeds", *letters, "mean", "worst"], body)


def verdict(rows: list[Row], shown: Table) -> str:
    """What the seeds that were run say of the methods, and nothing beyond."""
    ranked = ranking(rows, shown)
    if len(ranked) < 2:
        return "No method can be compared yet: rows are open."
    best = next(iter(ranked))
    said = [
        f"Best mean over availabilities among the {len(ranked)} methods with all seeds: {best} ({ranked[best]:.3f})."
    ]
    said += [text for method in METHODS if (text := against_dropout(rows, shown, method))]
    return " ".join([*said, *advice(rows, shown, best)])


def advice(rows: list[Row], shown: Table, best: str) -> list[str]:
    """What to take where the method that ships does not beat modality dropout; nothing where it does, or is unknown."""
    found = gain(rows, shown, "mamol")
    if shown.leaks or found is None or found[1] is None or found[0] > found[1]:
        return []
    instead = "no other is better, though" if best == SHIPPED else f"take {best}"
    return [f"MaMOL, which ships, does not beat modality dropout by more than one standard deviation here: {instead}."]


def against_dropout(rows: list[Row], shown: Table, method: str) -> str:
    """A sentence on the mean over availabilities; empty where there is nothing to compare."""
    found = gain(rows, shown, method)
    if found is None:
        return ""
    mine, dropout, above = (means(rows, shown, m) for m in (method, "dropout", "specialists"))
    more, spread = found
    text = f"{METHODS[method]} is {abs(more):.3f} {'better' if more > 0 else 'worse'} than modality dropout"
    if spread is not None:
        text += f", {'more' if abs(more) > spread else 'less'} than one standard deviation ({spread:.3f})"
    else:
        text += f" ({len(mine)} seed against {len(dropout)}, so no spread is known)"
    if above:
        sign = 1 if shown.better == "higher" else -1
        behind = sign * float(np.mean(above) - np.mean(mine))
        text += f", and {abs(behind):.3f} {'behind' if behind > 0 else 'ahead of'} the specialists"
    return text + "."


def made_with(rows: list[Row], shown: Table) -> str:
    """Steps, cost and size of the rows of a table."""
    mine = [r for r in rows if (r["benchmark"], r["protocol"]) == (shown.benchmark, shown.protocol)]
    networks = [r for r in mine if "steps" in r]
    if not networks:
        return ""
    steps = " and ".join(sorted({str(r["steps"]) for r in networks}))
    sizes = {r["method"]: r["parameters"] for r in networks if r["method"] in {m for _, m, _ in LINES}}
    size = ", ".join(f"{m} {n:,}" for m, n in sizes.items())
    took = max(r["cpu_seconds"] for r in networks)
    return f"{steps} steps, at most {took} CPU seconds a row. Parameters: {size}."


def section(rows: list[Row], shown: Table) -> str:
    below = (wrapped(text) for text in (made_with(rows, shown), verdict(rows, shown)))
    parts = [f"## {shown.title}", wrapped(shown.text), lines(rows, shown), *below]
    return "\n\n".join(part for part in parts if part)


def conditions(rows: list[Row]) -> str:
    if not rows:
        return "No row was run yet."
    flags = "; ".join(sorted({f"{r['cpu']} ({r['flags']}), {r['threads']} thread" for r in rows}))
    commits = ", ".join(sorted({r["commit"] for r in rows}))
    torch = ", ".join(sorted({r["torch"] for r in rows}))
    return wrapped(f"Measured on {flags}; torch {torch}; commits {commits}.")


def page(rows: list[Row]) -> str:
    sections = "\n\n".join([*(section(rows, shown) for shown in TABLES), parts_off(rows)])
    return f"""# The methods on public benchmarks

Made by `python scripts/benchmark_results.py` from `benchmark_rows.json`, which `python scripts/score_benchmark.py
BENCHMARK --data ../shared/data` fills; each row there names its command, seed, machine and commit. Mean ± standard
deviation over seeds; `{OPEN}`: not run. On a benchmark all networks have the same encoder, batch and number of steps
(MaMOL's two stages share them, each specialist has as many), and the checkpoint is chosen on validation examples alone.
MaMOL and MARS carry their experts on top of that encoder; parameters stand below each table. Oracle lines use what
nobody knows when mapping; they show the room that is left. `worst`: of the availabilities, for each seed. The sentences
below the tables are made from the rows too.

{conditions(rows)}

{which_to_take(rows)}

{sections}
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", action="store_true", help="change nothing, exit 1 where the page is stale")
    args = parser.parse_args()
    content = page(read_rows(ROWS))
    if args.check:
        stale = not PAGE.exists() or PAGE.read_text(encoding="utf-8") != content
        sys.exit(f"stale: {PAGE}; run `python scripts/benchmark_results.py`" if stale else 0)
    PAGE.write_text(content, encoding="utf-8")


if __name__ == "__main__":
    main()
