"""The speed table of README.md, from the results beside it: `python -m benchmarks.readme`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from benchmarks.pages import Part

RESULTS = Path("docs/results")
PART = Part(
    Path("README.md"), "<!-- speed: benchmarks/readme.py -->", "<!-- end of speed -->", "python -m benchmarks.readme"
)
OURS = ("int8", "bf16", "fp32")
PEERS = {
    "dask": "dask + ONNX Runtime",
    "geodeep": "GeoDeep",
    "omnicloudmask": "OmniCloudMask",
    "monai": "MONAI",
    "terratorch": "terratorch",
    "torchgeo": "torchgeo",
}
Row = dict[str, Any]


def block(results: Path = RESULTS) -> str:
    measured = {name: json.loads((results / f"{name}.json").read_text())["results"] for name in ("peers", "scaling")}
    rows: dict[str, Row] = {name: value["row"] for found in measured.values() for name, value in found.items()}
    machine = next(iter(measured["peers"].values()))["machine"]
    commits = sorted({value["machine"]["commit"] for value in measured["peers"].values()})
    small, large = rows["peers-fp32"]["side_px"], rows["floors-fp32-2"]["side_px"]
    whole = {name: rows[f"floors-{name}-2"]["mmedge"]["wall_s"] for name in OURS} | {
        name.removeprefix("alone-"): row["wall_s"] for name, row in rows.items() if name.startswith("alone-")
    }
    systems = [*OURS, *PEERS]
    names = [*(f"mmedge {name}" for name in OURS), *PEERS.values()]
    lines = [
        ("", names),
        ("---", ["---"] * len(names)),
        (f"{large:,} x {large:,} px, wall s", [_seconds(whole.get(name)) for name in systems]),
        (f"{small:,} x {small:,} px, wall s", [_seconds(rows[f"peers-{name}"]["wall_s"]) for name in systems]),
        ("shift %", [_percent(rows[f"peers-{name}"]["shift_percent"]) for name in systems]),
        ("hole %", [_percent(rows[f"peers-{name}"]["hole_percent"]) for name in systems]),
    ]
    fp32, probs, bounded = (rows[name] for name in ("floors-fp32-2", "memory-probs", "memory-probs-limited"))
    return "\n".join(
        [
            f"Six bands, one U-Net of .79 M parameters, {machine['threads']} cores of {machine['cpu']} "
            f"[{machine['flags']}],",
            f"commits {', '.join(commits)}; [all figures, and how they were made](docs/results/peers.md).",
            '"Hole": of the pixels within 32 px of a hole, those that change class. "Shift": pixels that change when',
            "the scene is cut 96 px off. mmedge writes three COGs, a STAC item and a picture, the others an array.",
            "",
            *(f"| {' | '.join([head, *cells])} |" for head, cells in lines),
            "",
            f"fp32 takes {fp32['wall_ratio']:.2f} times the wall time of reading, computing and writing alone",
            f"([floors](docs/results/floors.md)) and {fp32['mmedge']['peak_rss_gib']} GiB; with class probabilities "
            f"{probs['wall_s']:.1f} s and",
            f"{probs['peak_rss_gib']} GiB, with them and `--max-memory 0.5G` {bounded['wall_s']:.1f} s and "
            f"{bounded['peak_rss_gib']} GiB",
            "([scaling](docs/results/scaling.md)).",
        ]
    )


def _seconds(value: float | None) -> str:
    return "" if value is None else f"{value:.1f}"


def _percent(value: float) -> str:
    """Two digits that count."""
    return "0" if not value else f"{value:.2g}".removeprefix("0")


if __name__ == "__main__":
    PART.main(__doc__, block)
