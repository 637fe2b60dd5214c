"""Page and plot of the robustness curves, from docs/results/robustness.json."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from page import OPEN, cell, table, wrapped

Row = dict[str, Any]
ROWS, PAGE, PLOT = (Path("docs/results") / f"robustness.{kind}" for kind in ("json", "md", "svg"))
FRACTIONS = (0.0, 0.05, 0.1, 0.2, 0.4, 0.6, 0.8, 1.0)
BUNDLES = ("mamol-terra", "mamol-conv")
SENSORS = {"optical": "optical", "sar": "radar", "elevation": "elevation"}
CAUSES = {
    "cloud": "clouds",
    "missing_swath": "missing swath",
    "dead_line": "dead lines",
    "lidar_void": "voids",
}
WAYS = {"masked": "marked invalid", "zero": "zeros as data"}
COLORS = {"mamol-terra": "#0072b2", "mamol-conv": "#d55e00"}
WIDTH, HEIGHT, GAP = 200, 180, 50  # of a panel, and between panels


def matching(rows: list[Row], bundle: str, sensor: str, fraction: float, cause: str | None = None) -> list[Row]:
    """One row a seed and cause. The ends of a curve belong to every cause."""
    ends = fraction in (0.0, 1.0)
    return [
        row
        for row in rows
        if row["bundle"] == bundle
        and row["fraction"] == fraction
        and row["sensor"] == (sensor if fraction else None)
        and (ends or cause in (None, row["cause"]))
    ]


def found(
    rows: list[Row], bundle: str, sensor: str, fraction: float, way: str, score: str, cause: str | None = None
) -> list[float]:
    return [row[way][score] for row in matching(rows, bundle, sensor, fraction, cause)]


def causes_of(rows: list[Row], sensor: str) -> list[str]:
    return [c for c in CAUSES if any((r["sensor"], r["cause"]) == (sensor, c) for r in rows)]


def curves(rows: list[Row], bundle: str, score: str) -> str:
    body = []
    for sensor, name in SENSORS.items():
        for cause in causes_of(rows, sensor):
            for way, said in WAYS.items():
                cells = [cell(found(rows, bundle, sensor, f, way, score, cause)) for f in FRACTIONS]
                body.append([f"{name}, {CAUSES[cause]}", said, *cells])
    return table(["failing", "failed pixels are", *(f"{f:.0%}" for f in FRACTIONS)], body)


def really(rows: list[Row]) -> str:
    """What failed of the test blocks, against what was asked for."""
    body = []
    for sensor, name in SENSORS.items():
        for cause in causes_of(rows, sensor):
            every = [[r["failed"] for r in matching(rows, BUNDLES[0], sensor, f, cause)] for f in FRACTIONS[1:-1]]
            body.append([f"{name}, {CAUSES[cause]}", *map(cell, every)])
    return table(["failing", *(f"{f:.0%}" for f in FRACTIONS[1:-1])], body)


def verdict(rows: list[Row], bundle: str) -> Iterator[str]:
    """What failing costs, per sensor, over all causes and seeds."""
    start = found(rows, bundle, "optical", 0.0, "masked", "oa")
    for sensor, name in SENSORS.items():
        means = {
            (way, f): np.mean(v) for way in WAYS for f in FRACTIONS if (v := found(rows, bundle, sensor, f, way, "oa"))
        }
        if not start or ("masked", 1.0) not in means or ("masked", 0.4) not in means:
            yield f"{name}: {OPEN}."
            continue
        lost = {key: mean - start[0] for key, mean in means.items()}
        low = min(FRACTIONS, key=lambda f: means.get(("zero", f), np.inf))
        yield (
            f"{name}, 40 % failed: {lost['masked', 0.4]:+.3f} marked, {lost['zero', 0.4]:+.3f} zeros; all of it: "
            f"{lost['masked', 1.0]:+.3f} and {lost['zero', 1.0]:+.3f}; zeros are worst at {low:.0%}, "
            f"{lost['zero', low]:+.3f}."
        )


def page(document: dict[str, Any]) -> str:
    rows = document["rows"]
    seeds = 1 + max((r["seed"] for r in rows), default=-1)
    where = "; ".join(
        f"{c['cpu']} ({c['flags']}), {c['threads']} thread, torch {c['torch']}, commit {c['commit']}"
        for c in document["conditions"]
    )
    parts = [
        "# Robustness: accuracy against the share of failed pixels",
        wrapped(
            "Made by `python scripts/robustness.py --data ../shared/data` from `robustness.json`. The shipped bundles "
            "map the test blocks of the three TerraMesh scenes from optics, radar and elevation, and one of the three "
            "fails at a share of its pixels, drawn as `mmedge simulate-failure` does (real cloud shapes, missing "
            "swaths, dead lines, voids; the same pixels for both bundles and both ways). The failed pixels are either "
            "marked invalid, as mmedge reads them, or zeros (of reflectance, dB, metres) that pass for data, as where "
            f"a scene is filled and stacked. Mean ± standard deviation over {seeds} seeds of where the failure lies; "
            "the weights are one seed's. Networks run eagerly in float32, which the graphs match to 1e-4."
        ),
        "![Accuracy against the share of failed pixels](robustness.svg)",
        wrapped(
            "In the plot and in these sentences the mean over causes and seeds, overall accuracy; plotted where it "
            "failed on the test blocks, in tables and sentences under what was asked for of the whole scene:"
        ),
        *("\n".join([f"* `{b}`", *(f"  * {said}" for said in verdict(rows, b))]) for b in BUNDLES),
    ]
    for bundle in BUNDLES:
        parts += [f"## `{bundle}`: overall accuracy", curves(rows, bundle, "oa")]
        parts += [f"## `{bundle}`: mean IoU", curves(rows, bundle, "miou")]
    asked = (
        "What was asked for of the whole scene (columns), and the share of the test blocks that failed (voids overlap):"
    )
    parts += ["## Asked for and failed", wrapped(asked), really(rows)]
    return "\n\n".join([*parts, wrapped(f"Measured on {where}.")]) + "\n"


def plot(rows: list[Row]) -> str:
    """A panel a sensor, a line a bundle and way, in SVG."""
    every = [row[way]["oa"] for row in rows for way in WAYS]
    low, high = np.floor(min(every, default=0) * 10) / 10, np.ceil(max(every, default=1) * 10) / 10
    parts = []
    for i, (sensor, name) in enumerate(SENSORS.items()):
        left = 44 + i * (WIDTH + GAP)
        parts.append(f'<text x="{left + WIDTH / 2}" y="16" text-anchor="middle">{name} fails</text>')
        for level in np.arange(low, high + 0.01, 0.1):
            y = _y(level, low, high)
            parts.append(f'<line x1="{left}" x2="{left + WIDTH}" y1="{y:.1f}" y2="{y:.1f}" stroke="#ddd"/>')
            parts.append(f'<text x="{left - 4}" y="{y + 4:.1f}" text-anchor="end">{level:.1f}</text>')
        for f in (0, 0.2, 0.4, 0.6, 0.8, 1):
            x = left + WIDTH * f
            parts.append(f'<text x="{x}" y="{HEIGHT + 40}" text-anchor="middle">{round(100 * f)}</text>')
        for bundle in BUNDLES:
            for way in WAYS:
                parts.append(_line(rows, bundle, sensor, way, left, low, high))
    for i, bundle in enumerate(BUNDLES):
        for j, (way, said) in enumerate(WAYS.items()):
            x, y = 44 + 260 * j, HEIGHT + 66 + 18 * i
            parts.append(f'<line x1="{x}" x2="{x + 24}" y1="{y - 4}" y2="{y - 4}" {_pen(bundle, way)}/>')
            parts.append(f'<text x="{x + 30}" y="{y}">{bundle}, {said}</text>')
    text = "overall accuracy against the percentage of failed pixels"
    parts.append(f'<text x="44" y="{HEIGHT + 108}">{text}</text>')
    size = f'viewBox="0 0 780 {HEIGHT + 120}" width="780" height="{HEIGHT + 120}"'
    style = "<style>text{font:12px sans-serif;fill:#222}</style><rect width='100%' height='100%' fill='#fff'/>"
    return f'<svg xmlns="http://www.w3.org/2000/svg" {size}>{style}{"".join(parts)}</svg>\n'


def _line(rows: list[Row], bundle: str, sensor: str, way: str, left: float, low: float, high: float) -> str:
    points = []
    for fraction in FRACTIONS:
        some = matching(rows, bundle, sensor, fraction)
        if some:
            share = float(np.mean([r.get("failed", 0.0) for r in some]))
            points.append(
                f"{left + WIDTH * share:.1f},{_y(float(np.mean([r[way]['oa'] for r in some])), low, high):.1f}"
            )
    return f'<polyline points="{" ".join(points)}" fill="none" {_pen(bundle, way)}/>'


def _pen(bundle: str, way: str) -> str:
    dashes = ' stroke-dasharray="5 4"' if way == "zero" else ""
    return f'stroke="{COLORS[bundle]}" stroke-width="2"{dashes}'


def _y(value: float, low: float, high: float) -> float:
    return 24 + HEIGHT * (high - value) / (high - low)
