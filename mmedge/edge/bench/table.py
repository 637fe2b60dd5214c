"""A benchmark report as Markdown: one table a scenario, every availability in it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

COLUMNS = ("sensors", "backend", "precision", "batch", "p50", "p90", "p95", "p99", "tiles/s", "Mpx/s", "RSS MiB")
ENERGY = ("J/tile", "J/km²", "mean W")


def markdown(report: Mapping[str, Any]) -> str:
    """The report as text: what it was measured on, then its tables."""
    lines = [f"# {report['model']}", "", *facts(report), ""]
    for scenario in dict.fromkeys(row["scenario"] for row in report["rows"]):
        rows = [row for row in report["rows"] if row["scenario"] == scenario]
        lines += [f"## {scenario}, {rows[0]['threads']} threads, latencies in ms", "", *table(rows), ""]
    if report["end_to_end"]:
        lines += ["## end to end", "", *end_to_end(report["end_to_end"]), ""]
    return "\n".join(lines)


def facts(report: Mapping[str, Any]) -> list[str]:
    """What has to be known to read the figures, a line each."""
    machine, energy, health = report["machine"], report["energy"], report["health"]["before"]
    clocks = ", ".join(f"{name} {mhz:.0f} MHz" for name, mhz in health["clocks_mhz"].items())
    meters = (
        f"{' + '.join(energy['meters'])}, {energy['rate_hz']:g} Hz, idle {energy['idle_w']} W"
        if energy["idle_w"] is not None
        else f"not measured ({'; '.join(energy['missing'])})"
    )
    return [
        f"* machine: {machine['cpu']} [{machine['cpu_flags']}], {machine['threads']} threads; "
        f"{machine['gpu'] or 'no GPU'}",
        f"* power mode: {health['power_mode'] or 'unknown'}; clocks: {clocks or 'unknown'}",
        f"* energy: {meters}",
        f"* mmedge {report['version']}, model sha256 {report['model_sha256'][:12]}",
    ]


def table(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    """A Markdown table of rows; the columns of energy are there where any row has some."""
    measured = any(row.get("energy") for row in rows)
    columns = COLUMNS + (ENERGY if measured else ())
    lines = [f"| {' | '.join(columns)} |", "|" + "---|" * len(columns)]
    return lines + [f"| {' | '.join(cells(row, measured=measured))} |" for row in rows]


def cells(row: Mapping[str, Any], *, measured: bool) -> list[str]:
    """The cells of a row, as text."""
    head = [row.get("availability", "-"), row["backend"], row["precision"], str(row["batch"] or "-")]
    width = len(COLUMNS) + (len(ENERGY) if measured else 0)
    if "error" in row:
        return [*head, row["error"], *["-"] * (width - 5)]
    head[0] += " (mixed)" if row["mixed"] else ""
    body = [f"{row['latency_ms'][p]:.2f}" for p in ("p50", "p90", "p95", "p99")]
    body += [f"{row['tiles_per_s']:.2f}", f"{row['mpx_per_s']:.3f}"]
    body.append("-" if row["peak_rss_mib"] is None else f"{row['peak_rss_mib']:.0f}")
    if measured:
        used = row["energy"]
        body += [f"{used[k]:.3g}" for k in ("j_per_tile", "j_per_km2", "mean_w")] if used else ["-"] * len(ENERGY)
    return head + body


def end_to_end(run: Mapping[str, Any]) -> list[str]:
    """A whole run, a line each."""
    busy = ", ".join(f"{stage} {share:.0%}" for stage, share in run["utilisation"].items())
    lines = [
        f"* {run['scene']}: {run['pixels']} px in {run['seconds']['total']:.2f} s, {run['mpx_per_s']:.3f} Mpx/s "
        f"({run['backend']} {run['precision']}, {run['threads']} threads)",
        f"* busy: {busy}",
    ]
    return lines + ([] if run["joules"] is None else [f"* energy: {run['joules']:.1f} J"])


def compared(document: Mapping[str, Any]) -> str:
    """A comparison as a Markdown table, with a warning where unlike things are compared."""
    lines = [
        f"B against A, median latencies, intervals of {document['level_percent']} %",
        "",
        "| sensors | backend | precision | scenario | batch | A ms | B ms | B / A | interval | |",
        "|" + "---|" * 10,
    ]
    for row in document["rows"]:
        name = row["availability"] + (" (mixed)" if row["mixed"] else "")
        told = [name, *(str(row[key]) for key in ("backend", "precision", "scenario", "batch"))]
        told += [f"{row['a_p50_ms']:.2f}", f"{row['b_p50_ms']:.2f}", f"{row['ratio']:.3f}"]
        told += [f"{row['low']:.3f} - {row['high']:.3f}", row["verdict"]]
        lines.append(f"| {' | '.join(told)} |")
    return "\n".join(lines)
