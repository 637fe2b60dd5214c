"""The speed pages of docs/results, made from the results of `benchmarks.measure`. What was not measured has no row."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

ORDER = ("fp32", "bf16", "int8")
Results = dict[str, dict[str, Any]]
PREPARE = "bash benchmarks/measure.sh FOLDER prepare && bash benchmarks/measure.sh FOLDER"
WORK = "6 bands uint16 in DEFLATE tiles of 512 (`benchmarks/scene.py`, seed 0); U-Net of 0.79 M parameters, stride 16,"
WORK += " trained on the scene (`benchmarks/unet.py`, seed 0)"
FLOORS = """\
Seconds of processor time (all threads) and of wall time. *Read*: every block once; *write*: the same three products,
overviews and the compressing pass included; *compute*: the bare sessions on the same windows, of the network as mmedge
runs it; each alone, through rasterio and OpenVINO. *mmedge*: a process from its start to its end. *First tile*: from
its start to the first tile in the part file. *Computed*: pixels that the network sees for each pixel of the map; the
halo is the least with which tiling changes no pixel."""
PEERS = """\
One network, as ONNX (mmedge, GeoDeep, dask, naive) and in torch (the others). Tiles of 512 with an overlap of 64 where
a peer lets one choose; mmedge has the halo of the network (64 px) and the window that fits the scene. Differs: pixels
unlike one fp32 pass over the whole scene (its outer 64 px left out), of OpenVINO for mmedge and of ONNX Runtime for the
others. Shift: pixels that change when the scene is cut 96 px off. Hole: of the pixels within 32 px of a hole of 200 px,
those that change class. Naive has no overlap."""
NOTES = """\
GeoDeep sees three bands (each fed twice; its pass is that network's) and smooths its map with a 5 x 5 median.
OmniCloudMask normalises each patch by itself. terratorch's `delta` is 16, a multiple of the network's stride: with its
default of 8 the tiles lie between the cells of the network's pooling."""


def write_tables(results: Path, out: Path) -> None:
    """floors, peers and scaling: JSON, Markdown, a plot."""
    found: Results = {path.stem: json.loads(path.read_text()) for path in sorted(results.glob("*.json"))}
    out.mkdir(parents=True, exist_ok=True)
    for name, starts, page in (
        ("floors", ("floors-",), floors_page),
        ("peers", ("peers-", "alone-", "floors-", "shipped-", "holes-"), peers_page),
        ("scaling", SCALING, scaling_page),
    ):
        some = {key: value for key, value in found.items() if key.startswith(starts)}
        if some:
            document = {"schema": f"mmedge.benchmark.{name}/2", "command": PREPARE, "results": some}
            (out / f"{name}.json").write_text(json.dumps(document, indent=1) + "\n")
            (out / f"{name}.md").write_text(page(some))
    rows = _rows(found, "peers-")
    if any("error" not in row for row in rows.values()):
        (out / "peers.svg").write_text(plot({name: row for name, row in rows.items() if "error" not in row}))


def _rows(found: Results, start: str) -> dict[str, dict[str, Any]]:
    return {name.removeprefix(start): value["row"] for name, value in found.items() if name.startswith(start)}


def _table(head: str, rows: Iterable[Sequence[Any]]) -> list[str]:
    columns = head.count("|") + 1
    lines = [f"| {head} |", "|" + "---|" * columns]
    return [*lines, *(f"| {' | '.join(str(cell) for cell in row)} |" for row in rows), ""]


def _machine(found: Results) -> str:
    """On what, from which commits, beside what else."""
    every = list(found.values())
    facts = every[0]["machine"]
    commits = sorted({value["machine"]["commit"] for value in every})
    loads = [load for value in every for load in value["load"]]
    return (
        f"Machine: {facts['cpu']}, {facts['threads']} cores [{facts['flags']}], {facts['memory_gib']} GiB; Python "
        f"{facts['python']}, OpenVINO {facts['openvino']}; commit {', '.join(commits)}; "
        f"load {min(loads)} to {max(loads)} (the run's own threads included).\n`{PREPARE}`"
    )


def floors_page(found: Results) -> str:
    """mmedge and the sum of its floors."""
    rows, every = [], _rows(found, "floors-").values()
    for row in sorted(every, key=lambda row: (row["threads"], ORDER.index(row["precision"]))):
        parts, whole = row["floors"], row["mmedge"]
        for kind in ("cpu", "wall"):
            each = [parts[name][f"{kind}_s"] for name in ("read", "compute", "write")]
            rows.append(
                [
                    row["precision"],
                    row["threads"],
                    f"{row['window_px']} - 2 x {row['halo_px']}",
                    row["computed_over_mapped"],
                    kind,
                    *each,
                    round(sum(each), 2),
                    whole[f"{kind}_s"],
                    f"**{row[f'{kind}_ratio']}**",
                    whole["peak_rss_gib"],
                    whole["first_tile_s"],
                ]
            )
    side = next(iter(every))["side_px"]
    head = "| threads | window | computed | | read | compute | write | sum | mmedge | ratio | RSS GiB | first tile s"
    return "\n".join(
        [
            "# The pipeline and its floors",
            "",
            f"{side} x {side} px, {WORK}. {_machine(found)}",
            "",
            FLOORS,
            "",
            *_table(head, rows),
        ]
    )


def peers_page(found: Results) -> str:
    """mmedge and its peers."""
    keys = ("wall_s", "cpu_s", "mpx_per_s", "peak_rss_gib", "differs_percent", "shift_percent", "hole_percent")
    rows: list[list[Any]] = []
    every = _rows(found, "peers-")
    for name, row in every.items():
        label = f"mmedge {name}" if name in ("fp32", "bf16", "int8") else name
        rows.append([label, *((row[key] for key in keys) if "error" not in row else [row["error"], *["-"] * 6])])
    rows.sort(key=lambda cells: (cells[0] == "naive", not str(cells[0]).startswith("mmedge"), str(cells[1])))
    side = next((row["side_px"] for row in every.values() if "error" not in row), "?")
    return "\n".join(
        [
            "# Peers, side by side",
            "",
            f"{side} x {side} px, {WORK}; 2 threads. {_machine(found)}",
            "",
            PEERS,
            "",
            *_table("| wall s | CPU s | Mpx/s | RSS GiB | differs % | shift % | hole %", rows),
            "![Wall time of each system](peers.svg)",
            "",
            NOTES,
            "",
            "Of the pixels within 32 px of a hole in the optics alone, those that change class in the shipped bundles,",
            "whose networks take a mask: told of the hole, and given zeros instead (the example, mirrored):",
            "",
            *_table(
                "bundle | told % | zeros %",
                [[n, row["told_percent"], row["zeros_percent"]] for n, row in _rows(found, "holes-").items()],
            ),
            *_large_scenes(found),
        ]
    )


def _large_scenes(found: Results) -> list[str]:
    """mmedge, the peers that stream and the shipped bundles; mmedge's wall times as shares of the best such peer's."""
    floors = [row for row in _rows(found, "floors-").values() if row["threads"] == 2]
    ours = {f"mmedge {row['precision']}": {**row["mmedge"], "side_px": row["side_px"]} for row in floors}
    peers = _rows(found, "alone-")
    shipped = {f"mmedge fp32, `{name}`": row for name, row in _rows(found, "shipped-").items()}
    lines = [
        "Large scenes, 2 threads; those of the shipped bundles have three sensors (15 float32 bands, the example,",
        "mirrored):",
        "",
        *_table(
            "| side px | wall s | CPU s | Mpx/s | RSS GiB",
            [[name, row["side_px"], *_speed(row)] for name, row in {**ours, **peers, **shipped}.items()],
        ),
    ]
    overlapping = {name: row["wall_s"] for name, row in peers.items() if name != "naive"}
    if overlapping:
        best = min(overlapping, key=lambda name: float(overlapping[name]))
        shares = ", ".join(f"{name} {row['wall_s'] / overlapping[best]:.2f}" for name, row in ours.items())
        lines += [f"Wall time over that of {best}, the fastest peer here that overlaps its tiles: {shares}.", ""]
    return lines


def _speed(row: dict[str, Any]) -> list[Any]:
    rate = round(row["side_px"] ** 2 / row["wall_s"] / 1e6, 3)
    return [row["wall_s"], row["cpu_s"], rate, round(row["peak_rss_gib"], 2)]


SCALING = (
    *("memory-", "pixels-", "floors-fp32", "empty-", "available-"),
    *("batch-", "tile-", "window-", "infer", "tune-", "largest-"),
)


def scaling_page(found: Results) -> str:
    """What size, sensors, threads, tiles and emptiness cost."""
    lines = ["# Scaling", "", f"{WORK[:1].upper()}{WORK[1:]}. {_machine(found)}", ""]
    head = "| wall s | CPU s | Mpx/s | RSS GiB"

    def section(title: str, text: str, head: str, rows: list[list[Any]]) -> None:
        if rows:
            lines.extend([f"## {title}", "", text, "", *_table(head, rows)])

    def numbered(start: str) -> list[tuple[int, dict[str, Any]]]:
        return sorted((int(name), row) for name, row in _rows(found, start).items())

    whole = {row["threads"]: {**row["mmedge"], "side_px": row["side_px"]} for row in _rows(found, "floors-").values()}
    pixels = [*numbered("pixels-"), *([(whole[2]["side_px"], whole[2])] if 2 in whole else []), *numbered("largest-")]
    section(
        "Pixels",
        "2 threads. Start-up (imports, headers, a picture, an item) is a constant that large scenes do not notice.",
        f"side px {head}",
        [[side, *_speed(row)] for side, row in pixels],
    )
    section("Threads", "", f"threads {head}", [[n, *_speed(row)] for n, row in sorted(whole.items())])
    names = {"probs": "2", "probs-1": "1", "probs-limited": "2, `--max-memory 0.5G`"}
    section(
        "Memory with class probabilities",
        "10,000 x 10,000 px, `--probs`: 8 more bands are written.",
        f"threads {head}",
        [[names[name], *_speed(row)] for name, row in _rows(found, "memory-").items()],
    )
    section(
        "Window",
        "4,000 x 4,000 px, 2 threads; the widest window that was allowed.",
        f"window px {head}",
        [[window, *_speed(row)] for window, row in numbered("window-")],
    )
    section(
        "Empty tiles",
        "4,000 x 4,000 px, of which so many rows are nodata: windows without a pixel to map are not computed.",
        f"empty % {head}",
        [[percent, *_speed(row)] for percent, row in numbered("empty-")],
    )
    small = "`mamol-terra` on the example, mirrored to 1,536 x 1,536 px; 2 threads."
    section(
        "Sensors", small, f"sensors {head}", [[name, *_speed(row)] for name, row in _rows(found, "available-").items()]
    )
    section("Batch", small, f"windows {head}", [[n, *_speed(row)] for n, row in numbered("batch-")])
    section("Tile", small, f"windows a side {head}", [[n, *_speed(row)] for n, row in numbered("tile-")])
    tuned = [
        [name, row["batch"], row["window_px"] or "-", row["cells"], row["first_wall_s"], row["then_wall_s"]]
        for name, row in _rows(found, "tune-").items()
    ]
    section(
        "What `--tune` finds",
        "The first run measures; the next ones read what it remembered.",
        "bundle | batch | window px | windows a side | first run s | next run s",
        tuned,
    )
    for row in _rows(found, "infer").values():
        lines += [
            "## Start, and the default bundle against its bare session",
            "",
            f"`--help` {row['help_s']} s; the example, a whole process, {row['example_s']} s. `{row['model']}` on "
            f"{row['side_px']} x {row['side_px']} px: {row['ratio']} x the bare session's wall time, "
            f"{row['processor_time_ratio']} x its processor time, {row['mpx_per_s']} Mpx/s.",
            "",
        ]
    return "\n".join(lines)


def plot(rows: dict[str, dict[str, Any]]) -> str:
    """Wall time of each system as bars, in SVG, with the share of its pixels that differ from one pass."""
    longest, parts = max(row["wall_s"] for row in rows.values()), []
    for i, (name, row) in enumerate(sorted(rows.items(), key=lambda item: item[1]["wall_s"])):
        mine = name in ("fp32", "bf16", "int8")
        y, width = 24 + 26 * i, 400 * row["wall_s"] / longest
        told = f"{row['wall_s']:.1f} s, {row['differs_percent']:g} % differ"
        parts += [
            f'<text x="130" y="{y + 13}" text-anchor="end">{"mmedge " if mine else ""}{name}</text>',
            f'<rect x="136" y="{y}" width="{width:.1f}" height="18" fill="{"#0072b2" if mine else "#999999"}"/>',
            f'<text x="{142 + width:.1f}" y="{y + 13}">{told}</text>',
        ]
    side, height = next(iter(rows.values()))["side_px"], 34 + 26 * len(rows)
    title = f'<text x="136" y="14">Wall time, {side} x {side} px, 2 threads; pixels unlike one pass</text>'
    style = "<style>text{font:12px sans-serif;fill:#222}</style><rect width='100%' height='100%' fill='#fff'/>"
    size = f'viewBox="0 0 720 {height}" width="720" height="{height}"'
    return f'<svg xmlns="http://www.w3.org/2000/svg" {size}>{style}{title}{"".join(parts)}</svg>\n'
