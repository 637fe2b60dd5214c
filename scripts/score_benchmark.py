"""Fill the tables of a public benchmark, row by row: `python scripts/score_benchmark.py ombria --data ../shared/data`.

A row is a method with a seed under a protocol (a split, or all folds of one). Each is appended to --out as soon as it
is done, and a row that is there is not run again; a training run that was stopped goes on where it was. Networks train
on one thread, all with the same encoder and number of steps, and keep the checkpoint that is best on validation
examples; the test examples are read once, afterwards. `--ablations` runs the methods with a part switched off instead,
rows named as in benchmark_sets/variants.py. `python scripts/benchmark_results.py` writes the tables.
"""

from __future__ import annotations

import argparse
import platform
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import torch
from benchmark_sets import algae, fuel, houston2013, idtrees, ombria
from benchmark_sets.examples import Benchmark
from benchmark_sets.learn import Scored, figures, train_and_score
from benchmark_sets.trees import score_trees
from benchmark_sets.variants import ABLATIONS, EXTENSIONS, variant_of
from rows import Row, append_row, read_rows

from mmedge.edge.device import cpu_flags, cpu_name

READERS = {
    "ombria": ombria.read,
    "idtrees": idtrees.read,
    "houston2013": houston2013.read,
    "houston2013-random": houston2013.read_random,
    "algae": algae.read,
    "fuel": fuel.read,
}
# What matters most first; impute-all is in DyMo's row.
NETWORKS = ("dropout", "mars", "dymo", "mamol", *EXTENSIONS, "specialists", "mean-fill", "zero-fill")
METHODS = ("trees", *NETWORKS)


def wanted(benchmark: Benchmark, methods: list[str], seeds: list[int], protocols: list[str]) -> Iterator[Row]:
    """What names each row, what matters most first."""
    for protocol in protocols or benchmark.protocols:
        for seed in seeds:
            for method in methods:
                yield {"benchmark": benchmark.name, "protocol": protocol, "method": method, "seed": seed}


def run(benchmark: Benchmark, key: Row, folder: Path) -> Row:
    """The figures of a row."""
    if key["method"] == "trees":
        scored = Scored()
        for split in benchmark.protocols[key["protocol"]]:
            found = {"+".join(p): score_trees(benchmark, split, p, key["seed"]) for p in benchmark.tested}
            scored.add("test", found)
        return {"scores": _figures(benchmark, scored)}
    scored = train_and_score(
        benchmark, key["protocol"], key["method"], key["seed"], folder, lambda line: print(" ", line, flush=True)
    )
    return {
        "steps": benchmark.budget.steps,
        "batch": benchmark.budget.batch,
        "parameters": scored.parameters,
        "validation": scored.validation,
        "scores": _figures(benchmark, scored),
    }


def _figures(benchmark: Benchmark, scored: Scored) -> Row:
    return {
        name: {availability: figures(benchmark, c) for availability, c in found.items()}
        for name, found in scored.confusions.items()
    }


def conditions() -> Row:
    """What the rows of this process are measured with; taken at its start, when its code was read."""
    dirty = "+changes" if _git("status", "--porcelain", "-uno", "--", "mmedge", "scripts") else ""
    return {
        "cpu": cpu_name(),
        "flags": " ".join(cpu_flags()),
        "threads": torch.get_num_threads(),
        "python": platform.python_version(),
        "torch": torch.__version__,
        "commit": _git("rev-parse", "--short", "HEAD") + dirty,
    }


def command(key: Row) -> str:
    """Runs one row again."""
    options = f"--protocols {key['protocol']} --methods {key['method']} --seeds {key['seed']}"
    return f"python scripts/score_benchmark.py {key['benchmark']} {options}"


def _git(*arguments: str) -> str:
    return subprocess.run(["git", *arguments], capture_output=True, text=True, check=True).stdout.strip()


def folder_of(key: Row) -> str:
    """Where the training run of a row lies; variants that train as their method does share it."""
    variant = variant_of(key["method"])
    trained = variant.method if variant.after else key["method"]
    return "-".join((key["benchmark"], key["protocol"], trained.replace(":", "-"), str(key["seed"])))


def done(path: Path) -> list[Row]:
    return [{k: row[k] for k in ("benchmark", "protocol", "method", "seed")} for row in read_rows(path)]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("benchmark", choices=READERS)
    parser.add_argument("--data", type=Path, default=Path("../shared/data"))
    parser.add_argument("--methods", nargs="+", choices=(*METHODS, *ABLATIONS), default=list(METHODS))
    parser.add_argument("--ablations", action="store_const", dest="methods", const=list(ABLATIONS))
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    parser.add_argument("--protocols", nargs="+", default=[], help="only these; all by default")
    parser.add_argument("--minutes", type=float, default=1e9, help="begin no row after this time")
    parser.add_argument("--out", type=Path, default=Path("docs/results/benchmark_rows.json"))
    parser.add_argument("--runs", type=Path, default=Path("runs/benchmarks"), help="state of the training runs")
    parser.add_argument(
        "--cache", type=Path, default=Path(tempfile.gettempdir()) / "mmedge-benchmarks", help="decoded data"
    )
    args = parser.parse_args()
    torch.set_num_threads(1)
    start, measured_with = time.monotonic(), conditions()
    benchmark = READERS[args.benchmark](args.data, args.cache)
    unknown = set(args.protocols) - set(benchmark.protocols)
    if unknown:
        sys.exit(f"{args.benchmark} has the protocols {', '.join(benchmark.protocols)}, not {', '.join(unknown)}")
    for key in wanted(benchmark, args.methods, args.seeds, args.protocols):
        if key in done(args.out):
            continue
        if time.monotonic() - start > 60 * args.minutes:
            break
        began = time.process_time()
        found = run(benchmark, key, args.runs / folder_of(key))
        seconds = round(time.process_time() - began)
        row = {**key, "command": command(key), **measured_with, "cpu_seconds": seconds, **found}
        append_row(args.out, row)
        test = {name: value[benchmark.score] for name, value in row["scores"]["test"].items()}
        print(*key.values(), f"{row['cpu_seconds']} s", test, flush=True)


if __name__ == "__main__":
    main()
