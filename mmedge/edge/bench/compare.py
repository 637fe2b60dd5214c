"""Two benchmark reports side by side, with confidence intervals of what changed."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from mmedge.errors import UsageError

KEY = ("backend", "precision", "scenario", "availability", "mixed", "batch")
DRAWS, LEVEL = 2000, 95


def read_report(path: Path) -> dict[str, Any]:
    """A report of schema `mmedge.bench/1`; raises UsageError where it is none."""
    try:
        report = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as err:
        raise UsageError(f"`{path}` is no report: {err}", hint="mmedge bench MODEL -o bench.json") from None
    if not isinstance(report, dict) or report.get("schema") != "mmedge.bench/1":
        raise UsageError(f"`{path}` is no report of schema `mmedge.bench/1`", hint="mmedge bench MODEL -o bench.json")
    return report


def compare(a: dict[str, Any], b: dict[str, Any], *, seed: int = 0) -> dict[str, Any]:
    """How much longer batches take in `b` than in `a`, for each row that both have.

    `ratio` is that of the median latencies; its interval of `LEVEL` percent comes from a moving-block bootstrap, for
    neighbouring batches are slow together (H. R. Künsch, Annals of Statistics 17(3), 1989). Where it holds 1, nothing
    is known to have changed.
    """
    mine, theirs = _by_key(a), _by_key(b)
    rows = []
    for key in (key for key in mine if key in theirs):
        low, ratio, high = ratio_interval(mine[key]["latencies_ms"], theirs[key]["latencies_ms"], seed=seed)
        rows.append(
            {
                **dict(zip(KEY, key, strict=True)),
                "a_p50_ms": mine[key]["latency_ms"]["p50"],
                "b_p50_ms": theirs[key]["latency_ms"]["p50"],
                "ratio": round(ratio, 4),
                "low": round(low, 4),
                "high": round(high, 4),
                "verdict": "slower" if low > 1 else "faster" if high < 1 else "no difference seen",
            }
        )
    return {
        "schema": "mmedge.bench.compare/1",
        "level_percent": LEVEL,
        "same_machine": a["machine"] == b["machine"],
        "same_model": a["model_sha256"] == b["model_sha256"],
        "rows": rows,
        "only_a": [dict(zip(KEY, key, strict=True)) for key in mine if key not in theirs],
        "only_b": [dict(zip(KEY, key, strict=True)) for key in theirs if key not in mine],
    }


def _by_key(report: dict[str, Any]) -> dict[tuple[Any, ...], dict[str, Any]]:
    return {tuple(row[name] for name in KEY): row for row in report["rows"] if "error" not in row}


def ratio_interval(a: list[float], b: list[float], *, seed: int = 0) -> tuple[float, float, float]:
    """(low, ratio, high) of median(b) / median(a)."""
    rng = np.random.default_rng(seed)
    ratios = _medians(np.asarray(b), rng) / _medians(np.asarray(a), rng)
    low, high = np.percentile(ratios, [(100 - LEVEL) / 2, (100 + LEVEL) / 2])
    return float(low), float(np.median(b) / np.median(a)), float(high)


def _medians(values: npt.NDArray[np.float64], rng: np.random.Generator) -> npt.NDArray[np.float64]:
    """Medians of `DRAWS` resamples, each made of blocks of the series."""
    n = len(values)
    length = max(1, round(n**0.5))
    starts = rng.integers(0, n - length + 1, (DRAWS, -(-n // length)))
    index = (starts[:, :, None] + np.arange(length)).reshape(DRAWS, -1)[:, :n]
    medians: npt.NDArray[np.float64] = np.median(values[index], axis=1)
    return medians
