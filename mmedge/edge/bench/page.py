"""A benchmark report as one HTML page that needs nothing else: no script, no font, no address is fetched."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape
from math import floor, log10
from typing import Any

from mmedge.edge.bench.table import COLUMNS, ENERGY, cells, end_to_end, facts

# Okabe and Ito's palette, apart for colour-blind eyes; lines differ in their dashes too.
COLORS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#7f7f7f", "#000000")
DASHES = ("", "6 3", "2 2", "8 3 2 3")
WIDTH, HEIGHT, LEFT, BOTTOM, TOP, RIGHT = 640, 300, 64, 44, 12, 16
Points = Sequence[tuple[float, float]]
STYLE = """
body{font:15px/1.5 system-ui,sans-serif;max-width:72rem;margin:2rem auto;padding:0 1rem;color:#222;background:#fff}
table{border-collapse:collapse;font-variant-numeric:tabular-nums;display:block;overflow-x:auto}
td,th{padding:.2rem .6rem;border-bottom:1px solid #ddd;text-align:right;white-space:nowrap}
td:nth-child(-n+3),th:nth-child(-n+3){text-align:left}
svg{max-width:100%;height:auto}svg text{font:12px system-ui,sans-serif;fill:#222}
h1{font-size:1.5rem}h2{font-size:1.15rem;margin-top:2rem}
"""


def page(report: Mapping[str, Any]) -> str:
    """The page: facts, tables, latency distributions, throughput against batch, energy where it was measured."""
    rows = [row for row in report["rows"] if "error" not in row]
    parts = [f"<h1>{escape(report['model'])}</h1>", _list(facts(report))]
    for scenario in dict.fromkeys(row["scenario"] for row in report["rows"]):
        mine = [row for row in report["rows"] if row["scenario"] == scenario]
        parts += [f"<h2>{scenario}, {mine[0]['threads']} threads (latencies in ms)</h2>", _table(mine)]
    single = [row for row in rows if row["scenario"] == "single-stream"]
    if single:
        lines = {_name(row): _distribution(row["latencies_ms"]) for row in single}
        parts += ["<h2>Latency, cumulative share of batches</h2>", chart(lines, "latency [ms]", "share", top=1.0)]
    offline = [row for row in rows if row["scenario"] == "offline"]
    if offline:
        parts += [
            "<h2>Throughput against batch</h2>",
            chart(_by_batch(offline, lambda row: row["mpx_per_s"]), "batch", "Mpx/s", marks=True),
        ]
    if any(row["energy"] for row in offline):
        lines = _by_batch([row for row in offline if row["energy"]], lambda row: row["energy"]["j_per_km2"])
        parts += ["<h2>Energy against batch</h2>", chart(lines, "batch", "J/km²", marks=True)]
    if report["end_to_end"]:
        parts += ["<h2>End to end</h2>", _list(end_to_end(report["end_to_end"]))]
    title = escape(f"mmedge bench: {report['model']}")
    head = f'<meta charset="utf-8"><meta name="viewport" content="width=device-width"><title>{title}</title>'
    body = "".join(parts)
    return f'<!doctype html><html lang="en"><head>{head}<style>{STYLE}</style></head><body>{body}</body></html>\n'


def _list(lines: Sequence[str]) -> str:
    return "<ul>" + "".join(f"<li>{escape(line.removeprefix('* '))}</li>" for line in lines) + "</ul>"


def _table(rows: Sequence[Mapping[str, Any]]) -> str:
    measured = any(row.get("energy") for row in rows)
    head = "".join(f"<th>{escape(name)}</th>" for name in COLUMNS + (ENERGY if measured else ()))
    body = "".join(
        "<tr>" + "".join(f"<td>{escape(cell)}</td>" for cell in cells(row, measured=measured)) + "</tr>" for row in rows
    )
    return f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"


def _name(row: Mapping[str, Any], *, batch: bool = True) -> str:
    kind = " mixed" if row["mixed"] else ""
    size = f" b{row['batch']}" if batch else ""
    return f"{row['availability']}{kind} {row['backend']} {row['precision']}{size}"


def _distribution(values: Sequence[float]) -> Points:
    ordered = sorted(values)
    return [(value, (i + 1) / len(ordered)) for i, value in enumerate(ordered)]


def _by_batch(rows: Sequence[Mapping[str, Any]], value: Any) -> dict[str, Points]:
    lines: dict[str, list[tuple[float, float]]] = {}
    for row in sorted(rows, key=lambda row: int(row["batch"])):
        lines.setdefault(_name(row, batch=False), []).append((float(row["batch"]), float(value(row))))
    return dict(lines)


def ticks(top: float) -> list[float]:
    """Round numbers from 0 to `top`, at most six."""
    power = 10 ** floor(log10(top / 5))
    step = next(power * k for k in (1, 2, 5, 10) if top / (power * k) <= 5)
    return [float(f"{k * step:.6g}") for k in range(int(top / step + 1e-9) + 1)]


def chart(lines: Mapping[str, Points], x: str, y: str, *, top: float | None = None, marks: bool = False) -> str:
    """Some lines over common axes that begin at 0, as SVG, with a legend below."""
    right = 1.05 * max(px for points in lines.values() for px, _ in points)
    top = top or 1.05 * max(py for points in lines.values() for _, py in points)
    wide, high = WIDTH - LEFT - RIGHT, HEIGHT - TOP - BOTTOM
    legend = 18 * len(lines)

    def at(px: float, py: float) -> tuple[float, float]:
        return LEFT + wide * px / right, TOP + high * (1 - py / top)

    parts = [f'<rect x="{LEFT}" y="{TOP}" width="{wide}" height="{high}" fill="none" stroke="#999"/>']
    for value in ticks(right):
        px, _ = at(value, 0)
        parts.append(f'<text x="{px:.1f}" y="{HEIGHT - BOTTOM + 16}" text-anchor="middle">{value:g}</text>')
    for value in ticks(top):
        _, py = at(0, value)
        parts += [
            f'<text x="{LEFT - 6}" y="{py + 4:.1f}" text-anchor="end">{value:g}</text>',
            f'<line x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{py:.1f}" y2="{py:.1f}" stroke="#eee"/>',
        ]
    parts += [
        f'<text x="{LEFT + wide / 2}" y="{HEIGHT - 6}" text-anchor="middle">{escape(x)}</text>',
        f'<text transform="translate(14 {TOP + high / 2}) rotate(-90)" text-anchor="middle">{escape(y)}</text>',
    ]
    for i, (name, points) in enumerate(lines.items()):
        stroke = (
            f'stroke="{COLORS[i % len(COLORS)]}" stroke-width="2" stroke-dasharray="{DASHES[i // len(COLORS) % 4]}"'
        )
        path = " ".join(f"{px:.1f},{py:.1f}" for px, py in (at(*point) for point in points))
        parts.append(f'<polyline points="{path}" fill="none" {stroke}/>')
        if marks:
            parts += [
                f'<circle cx="{px:.1f}" cy="{py:.1f}" r="4" fill="{COLORS[i % len(COLORS)]}"/>'
                for px, py in (at(*point) for point in points)
            ]
        row = HEIGHT + 14 + 18 * i
        parts += [
            f'<line x1="{LEFT}" x2="{LEFT + 28}" y1="{row - 4}" y2="{row - 4}" {stroke}/>',
            f'<text x="{LEFT + 36}" y="{row}">{escape(name)}</text>',
        ]
    label = escape(f"{y} over {x}")
    size = f'viewBox="0 0 {WIDTH} {HEIGHT + legend + 8}" width="{WIDTH}"'
    return f'<svg {size} role="img" aria-label="{label}">{"".join(parts)}</svg>'
