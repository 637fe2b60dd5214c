"""An evaluation as files: JSON, Markdown tables for people, confusion matrices as a picture."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np

from mmedge.extras import need
from mmedge.files import written_together

COLUMNS = ("pixels", "oa", "aa", "kappa", "miou", "macro_f1", "ece")
PANEL_IN = 3.2


def markdown(document: Mapping[str, Any]) -> str:
    """Tables of an evaluation (`mmedge.evaluate/1`) or of a map's score (`mmedge.map_score/1`)."""
    return _map_tables(document) if document["schema"] == "mmedge.map_score/1" else _bundle_tables(document)


def report_files(target: Path) -> dict[str, Path]:
    """The files of a report by kind, named after `target`; the JSON comes last."""
    return {kind: target.with_suffix(f".{kind}") for kind in ("md", "png", "json")}


def write_report(files: Mapping[str, Path], document: Mapping[str, Any], *, note: Callable[[str], None]) -> None:
    """Write the files of `report_files`, all or none; no picture where matplotlib is missing."""
    confusions = document["confusion"]
    if document["schema"] == "mmedge.map_score/1":
        confusions = {"all": confusions}
    if not find_spec("matplotlib"):
        note("note: no pictures without matplotlib: pip install 'mmedge[report]'")
        files = {kind: path for kind, path in files.items() if kind != "png"}
    with written_together(list(files.values())) as found:
        parts = dict(zip(files, found, strict=True))
        parts["md"].write_text(markdown(document), encoding="utf-8")
        if "png" in parts:
            draw_confusions(parts["png"], confusions, document["classes"])
        parts["json"].write_text(json.dumps(document, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


def _bundle_tables(document: Mapping[str, Any]) -> str:
    rows = document["availability"]
    lines = [f"# {document['model']} on {document['scene']}", "", *_said(document), ""]
    lines += _table(
        ["sensors", *COLUMNS],
        [[name, *(row[c] for c in COLUMNS)] for name, row in rows.items()]
        + [[kind, "", *(document[kind][c] for c in COLUMNS[1:])] for kind in ("mean", "worst")],
    )
    names = list(dict.fromkeys(n for row in rows.values() for n in row["f1"]))
    lines += ["", "F1 of each class:", ""]
    lines += _table(["sensors", *names], [[a, *(row["f1"].get(n, "") for n in names)] for a, row in rows.items()])
    if document["mixture"]:
        lines += ["", "Mixtures: a share eta of the data lacks something, each incomplete set as often as another.", ""]
        lines += _table(["eta", "oa", "aa", "miou"], [[e, *m.values()] for e, m in document["mixture"].items()])
    lines += ["", "Oracle: for each pixel the best subset of the sensors (overall accuracy, an upper bound).", ""]
    lines += _table(["sensors", "oa"], [[a, v] for a, v in document["oracle_best_subset"].items()])
    if document["oracle_method"]:
        lines += ["", "Oracle of the method, with what nobody knows when mapping (overall accuracy).", ""]
        lines += _table(["sensors", "oa"], [[a, v] for a, v in document["oracle_method"].items()])
    lines += ["", f"Cost, on {document['device']}, in {document['precision']}, {document['threads']} threads:", ""]
    keys = list(dict.fromkeys(k for c in document["cost"].values() for k in c))
    lines += _table(["sensors", *keys], [[a, *(c.get(k, "") for k in keys)] for a, c in document["cost"].items()])
    return "\n".join([*lines, ""])


def _said(document: Mapping[str, Any]) -> list[str]:
    return [
        f"{document['pixels']} labelled pixels ({document['part']}); {document['parameters'] or 'unknown'} parameters."
    ]


def _map_tables(document: Mapping[str, Any]) -> str:
    lines = [f"# {document['map']} against {document['labels']}", ""]
    keys = ("units", "oa", "aa", "kappa", "macro_f1", "miou")
    lines += _table([document["unit"] + "s", *keys[1:]], [[document[k] for k in keys]])
    adjusted = document.get("area_adjusted")
    if adjusted:
        lines += ["", f"Area-adjusted ({adjusted['method']}), 95 % intervals:", ""]
        lines += [f"overall accuracy {_interval(adjusted['overall'])}", ""]
        lines += _table(
            ["class", "mapped [ha]", "area [ha]", "user's accuracy", "producer's accuracy"],
            [
                [name, c["mapped_ha"], _interval(c["area_ha"]), _interval(c["user"]), _interval(c["producer"])]
                for name, c in adjusted["classes"].items()
            ],
        )
    return "\n".join([*lines, ""])


def _interval(figure: Sequence[float | None]) -> str:
    value, half = figure
    return "-" if value is None else f"{value:.4g} ± {half:.2g}"


def _table(head: Sequence[str], rows: Sequence[Sequence[Any]]) -> list[str]:
    lines = [head, ["---"] * len(head), *rows]
    return ["| " + " | ".join(str(v) for v in line) + " |" for line in lines]


def draw_confusions(path: Path, confusions: Mapping[str, Sequence[Sequence[int]]], classes: Sequence[str]) -> None:
    """One panel for each matrix: share of each reference class (row) in each map class. Needs the extra `report`."""
    figures = need("matplotlib.figure")
    cols = min(3, len(confusions))
    rows = -(-len(confusions) // cols)
    size = PANEL_IN + 0.12 * max(map(len, classes)), PANEL_IN
    figure = figures.Figure(figsize=(cols * size[0], rows * size[1]), layout="constrained")
    axes = np.atleast_1d(figure.subplots(rows, cols)).ravel()
    for ax, (name, counts) in zip(axes, confusions.items(), strict=False):
        _panel(ax, name, np.array(counts, np.float64), classes)
    for ax in axes[len(confusions) :]:
        ax.set_axis_off()
    figure.savefig(path, format="png", dpi=120, metadata={"Software": None})


def _panel(ax: Any, name: str, counts: np.ndarray[Any, np.dtype[np.float64]], classes: Sequence[str]) -> None:
    total = counts.sum(1, keepdims=True)
    share = np.divide(counts, total, out=np.zeros_like(counts), where=total > 0)
    ax.imshow(share, cmap="Blues", vmin=0, vmax=1)
    for i, j in np.argwhere(counts > 0):
        ax.text(
            j, i, f"{share[i, j]:.2f}", ha="center", va="center", fontsize=6, color="w" if share[i, j] > 0.5 else "k"
        )
    ax.set_xticks(range(len(classes)), classes, rotation=90, fontsize=7)
    ax.set_yticks(range(len(classes)), classes, fontsize=7)
    ax.set_xlabel("map", fontsize=7)
    ax.set_ylabel("reference", fontsize=7)
    ax.set_title(name, fontsize=8)
