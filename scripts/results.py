"""Write the tables of the default model from what was measured: `python scripts/results.py`.

Reads docs/results/default_model_rows.json (scripts/score_default.py) and the shipped bundle's own scores, writes
docs/results/default_model.md, the block between the markers in README.md, and the comparison with other methods in the
bundle's model.json. `--check` fails where any of them is stale.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

import numpy as np
from page import cell, table
from rows import Row, read_rows

ROWS, PAGE, README = (
    Path("docs/results/default_model_rows.json"),
    Path("docs/results/default_model.md"),
    Path("README.md"),
)
BUNDLES = Path("mmedge/bundles")
BUNDLE, CONV = (BUNDLES / name / "model.json" for name in ("mamol-terra", "mamol-conv"))
BEGIN, END = "<!-- scores: scripts/results.py -->", "<!-- end of scores -->"
SHORT = {
    "optical": "O",
    "sar": "S",
    "elevation": "D",
    "optical+sar": "O+S",
    "optical+elevation": "O+D",
    "sar+elevation": "S+D",
    "optical+sar+elevation": "all",
}
KINDS = {
    "majority": "largest class",
    "trees": "gradient-boosted trees",
    "dropout": "modality dropout, same size",
    "conv": "MaMOL on a U-Net (`mamol-conv`)",
    "mamol": "MaMOL",
}
SCENES = {"282D_485L_3_3": "Brazil", "38D_378R_2_3": "Tanzania", "433D_629L_3_1": "Chile"}
CHILE = "433D_629L_3_1"


def find(rows: list[Row], kind: str, left_out: str | None) -> list[Row]:
    return [r for r in rows if (r["kind"], r["left_out"]) == (kind, left_out)]


def by_availability(rows: list[Row], score: str, scene: str | None = None) -> str:
    """One line a method, one column an availability, and their mean."""
    body = []
    for kind, name in KINDS.items():
        found = [r["test"] if scene is None else r["test_by_scene"][scene] for r in find(rows, kind, None)]
        cells = [cell([f[a][score] for f in found]) for a in SHORT]
        mean = cell([float(np.mean([f[a][score] for a in SHORT])) for f in found])
        body.append([f"{name} ({len(found)} seed{'s' if len(found) != 1 else ''})", *cells, mean])
    return table(["method", *SHORT.values(), "mean"], body)


def out_of_scene(rows: list[Row]) -> str:
    body = []
    for kind, name in KINDS.items():
        cells = []
        for scene in SCENES:
            found = [r["test"] for r in find(rows, kind, scene)]
            every = cell([float(np.mean([f[a]["oa"] for a in SHORT])) for f in found])
            whole = cell([f["optical+sar+elevation"]["oa"] for f in found])
            cells += [whole, every]
        body.append([name, *cells])
    head = [f"{name}, {what}" for name in SCENES.values() for what in ("all", "mean of 7")]
    return table(["method", *head], body)


def world(rows: list[Row]) -> str:
    body = []
    for kind in ("dropout", "conv", "mamol"):
        found = [r["world"] for r in find(rows, kind, None)]
        cells = [cell([f[a][s] for f in found]) for a in ("optical", "sar", "optical+sar") for s in ("oa", "macro_f1")]
        body.append([KINDS[kind], *cells])
    head = [f"{a} {s}" for a in ("O", "S", "O+S") for s in ("OA", "macro-F1")]
    return table(["method", *head], body)


def seeds(rows: list[Row]) -> str:
    """How many seeds each method was run with, in scene."""
    runs = {kind: len(find(rows, kind, None)) for kind in ("trees", "dropout", "mamol")}
    if len(set(runs.values())) == 1:
        return f"{runs['trees']} seeds each"
    return ", ".join(f"{number} ({KINDS[kind]})" for kind, number in runs.items()) + " seeds"


def spread(values: list[float]) -> Row:
    """Mean, standard deviation and number of seeds."""
    std = round(float(np.std(values, ddof=1)), 4) if len(values) > 1 else None
    return {"mean": round(float(np.mean(values)), 4), "std": std, "seeds": len(values)}


def compared(rows: list[Row]) -> Row:
    """Overall accuracy of every method that was run, for model.json: in scene, out of scene, on single pixels."""
    result: Row = {"in_scene": {}, "leave_one_scene_out": {}, "world": {}}
    for kind in KINDS:
        here = find(rows, kind, None)
        if here:
            result["in_scene"][kind] = {a: spread([r["test"][a]["oa"] for r in here]) for a in SHORT}
        out = {s: find(rows, kind, s) for s in SCENES}
        result["leave_one_scene_out"][kind] = {
            s: {a: spread([r["test"][a]["oa"] for r in found]) for a in SHORT} for s, found in out.items() if found
        }
        worlds = [r["world"] for r in here if "world" in r]
        if worlds:
            result["world"][kind] = {a: spread([w[a]["oa"] for w in worlds]) for a in worlds[0]}
    return result


def chile(rows: list[Row]) -> str:
    kinds = {kind: name for kind, name in KINDS.items() if kind != "conv"}
    wanted = {"all sensors": "optical+sar+elevation", "`sar,optical`": "optical+sar", "`sar`": "sar"}
    body = []
    for name, availability in wanted.items():
        cells = [
            cell([r["test_by_scene"][CHILE][availability]["oa"] for r in find(rows, kind, None)]) for kind in kinds
        ]
        body.append([name, *cells])
    return table(["overall accuracy", *kinds.values()], body)


def shipped(accuracy: Row) -> str:
    test, there, world = accuracy["test"], accuracy["test_by_scene"][CHILE], accuracy["world"]
    body = [
        ["test blocks of three scenes, OA", *(f"{test[a]['oa']:.3f}" for a in SHORT)],
        ["test blocks of three scenes, mIoU", *(f"{test[a]['miou']:.3f}" for a in SHORT)],
        ["Chile's test blocks, OA", *(f"{there[a]['oa']:.3f}" for a in SHORT)],
        ["single pixels of held-out cells, OA", *(f"{world[a]['oa']:.3f}" if a in world else "" for a in SHORT)],
    ]
    return table(["the shipped weights", *SHORT.values()], body)


def holes(accuracy: Row) -> str:
    return table(
        ["sensors, and the one with the hole", "share that changes class"],
        [[k, f"{v:.2%}"] for k, v in accuracy["holes"].items()],
    )


def shift(accuracy: Row) -> str:
    body = [[name, *(f"{accuracy['shift'][scene][a]:.1%}" for a in SHORT)] for scene, name in SCENES.items()]
    return table(["scene", *SHORT.values()], body)


def page(rows: list[Row], accuracy: Row, conv: Row) -> str:
    steps = sorted({r["steps"] for r in rows if "steps" in r})
    return f"""# The default model `mamol-terra`: what it is worth

This is a small demonstration model. It was trained on three scenes of 2.24 km and single pixels of 677 places; its
labels are themselves a model product (and about a third of Brazil's "water" is a sandbar). Nobody can get a good global
land-cover model from these data.

Made by `python scripts/results.py` from `default_model_rows.json`, which `python scripts/score_default.py --data
../shared/data` fills (seeds as far as they were run; networks {" or ".join(map(str, steps)) or "-"} steps on one CPU
thread, checkpoint chosen on validation blocks), and from the bundle's own scores (`scripts/train_default.py`, seed 0).
Training, validation and test blocks are disjoint squares of 56 px; the snow scene is left out. O optical, S radar, D
elevation.

## In scene: test blocks of the three scenes, overall accuracy

{by_availability(rows, "oa")}

Mean IoU:

{by_availability(rows, "miou")}

## The example scene alone: Chile's test blocks, overall accuracy

{by_availability(rows, "oa", CHILE)}

## Leave one scene out: trained on two scenes, scored on all of the third, overall accuracy

{out_of_scene(rows)}

## Single pixels of held-out ten-degree cells

{world(rows)}

## The shipped weights

{shipped(accuracy)}

Pixels outside a hole and within 32 px of it that change class when the hole is cut (goal: at most 1 %):

{holes(accuracy)}

Pixels that change class when the lattice of windows is moved by 24 px, half its stride (goal: at most 2 %; missed; see
[decision 4](../decisions/0004-windows-are-not-blended.md)):

{shift(accuracy)}

## The fast model `mamol-conv`

MaMOL on a U-Net of .73 M parameters that was trained from scratch on complete data and then frozen (seed 0,
`python scripts/train_default.py mamol-conv`; {len(find(rows, "conv", None))} of 3 seeds of the recipe stand in the
tables above; [decision 6](../decisions/0006-the-fast-model-is-convolutions-and-relus.md)). It sees 56 px around each
pixel and no farther, so its maps have no seams: moving its windows changes no pixel (a test). It is worse than
`mamol-terra` on single pixels of the world, where pre-training helps, and so it is not the default.

{shipped(conv)}

Pixels beside a hole that change class:

{holes(conv)}
"""


def readme_block(rows: list[Row], accuracy: Row) -> str:
    return f"""{BEGIN}
A small demonstration model, trained on three scenes and 677 single pixels: not a global land-cover model, and nobody
could get one from these data. On the test blocks of the example scene, which no training window touches:

{chile(rows)}

Mean ± standard deviation over {seeds(rows)}. On this scene boosted trees are better than the networks, and radar
alone is worse than naming the largest class everywhere: what is shown here is the path, not a land-cover product. All
availabilities, mIoU, leave-one-scene-out and world-wide pixels are in
[docs/results/default_model.md](docs/results/default_model.md); `mmedge info mamol-terra` prints the shipped weights'
own.
{END}"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", action="store_true", help="change nothing, exit 1 where a table is stale")
    args = parser.parse_args()
    rows = read_rows(ROWS)
    item = json.loads(BUNDLE.read_text(encoding="utf-8"))
    accuracy = item["properties"]["mmedge:accuracy"]
    accuracy["compared"] = compared(rows)
    text = README.read_text(encoding="utf-8")
    before, _, rest = text.partition(BEGIN)
    after = rest.partition(END)[2]
    conv = json.loads(CONV.read_text(encoding="utf-8"))["properties"]["mmedge:accuracy"]
    made = {
        PAGE: page(rows, accuracy, conv),
        README: before + readme_block(rows, accuracy) + after,
        BUNDLE: json.dumps(item, indent=1, ensure_ascii=False) + "\n",
    }
    stale = [path for path, content in made.items() if not path.exists() or path.read_text(encoding="utf-8") != content]
    if args.check:
        sys.exit(f"stale: {', '.join(map(str, stale))}; run `python scripts/results.py`" if stale else 0)
    for path, content in made.items():
        path.write_text(content, encoding="utf-8")


if __name__ == "__main__":
    main()
