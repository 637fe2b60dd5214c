"""False alarms and detections of the out-of-domain warning: `python scripts/domain_check.py --data ../shared/data`.

Points are fitted to the training blocks of the three TerraMesh scenes. False alarms: blocks of 56 px of the same scenes
that neither trained nor validated. Detections: all blocks of the snow scene, of the three scenes with a fault in their
units or bands, and of each scene for points fitted to the two others. A block is flagged as a scene would be, where
more than `LIMIT` of its squares are strange. Writes docs/results/domain.md.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path

import numpy as np
import numpy.typing as npt

from mmedge.edge.domain import LIMIT, Domain, fit_domain, squares_of
from mmedge.edge.training.samples import LabelledScene, read_scene, with_relief
from mmedge.edge.training.split import BLOCK_PX, BLOCKS, TEST, TRAIN, part_of_pixels

Array = npt.NDArray[np.float32]
Squares = npt.NDArray[np.float64]
SNOW = "609U_541L_3_0"
SIDE = 4  # blocks along a scene
FAULTS: dict[str, dict[str, Callable[[Array], Array]]] = {
    "optical": {
        "the +1000 offset left in": lambda x: x + np.float32(0.1),
        "digital numbers": lambda x: x * np.float32(1e4),
        "ten times too bright": lambda x: x * 10,
        "bands in reverse order": lambda x: x[::-1],
        "red and blue swapped": lambda x: x[[2, 1, 0, *range(3, 9)]],
        "30 % too bright": lambda x: x * np.float32(1.3),
    },
    "sar": {
        "linear instead of dB": lambda x: np.float32(10) ** (x / 10),
        "VV and VH swapped": lambda x: x[::-1],
        "10 dB too low": lambda x: x - 10,
        "5 dB too high": lambda x: x + 5,
        "3 dB too high": lambda x: x + 3,
    },
    "elevation": {"feet instead of metres": lambda x: x * np.float32(3.28)},
}


def blocks(scene: LabelledScene, sensor: str, fault: Callable[[Array], Array] = lambda x: x) -> list[Squares]:
    """Squares (49, C) of each block of a scene, row by row."""
    found = []
    for row in range(0, SIDE * BLOCK_PX, BLOCK_PX):
        for col in range(0, SIDE * BLOCK_PX, BLOCK_PX):
            rows, cols = slice(row, row + BLOCK_PX), slice(col, col + BLOCK_PX)
            valid = {sensor: scene.valid[sensor][None, None, rows, cols]}
            data = {sensor: np.ascontiguousarray(fault(scene.data[sensor])[None, :, rows, cols])}
            found.append(squares_of(with_relief(data, valid)[sensor], valid[sensor]))
    return found


def of_part(scene: str, part: int) -> list[int]:
    """Numbers of the blocks of a part."""
    return [int(i) for i in np.flatnonzero(part_of_pixels(scene)[::BLOCK_PX, ::BLOCK_PX] == part)]


def row(name: str, domain: Domain, some: list[Squares]) -> str:
    shares = [float(domain.strange(squares).mean()) for squares in some]
    flagged = sum(share > LIMIT for share in shares)
    return f"| {name} | {np.mean(shares):.2f} | {flagged} of {len(shares)} |"


def table(scenes: dict[str, LabelledScene], sensor: str) -> list[str]:
    mine = {name: blocks(scene, sensor) for name, scene in scenes.items()}
    train = {name: [mine[name][i] for i in of_part(name, TRAIN)] for name in BLOCKS}
    domain = fit_domain(np.concatenate([b for found in train.values() for b in found]))
    lines = [f"## {sensor}", "", "| what | strange squares | blocks flagged |", "| --- | --- | --- |"]
    lines.append(row("held-out blocks (false alarms)", domain, [mine[n][i] for n in BLOCKS for i in of_part(n, TEST)]))
    lines.append(row("snow scene", domain, mine[SNOW]))
    for name, fault in FAULTS[sensor].items():
        lines.append(row(name, domain, [b for n in BLOCKS for b in blocks(scenes[n], sensor, fault)]))
    for left_out in BLOCKS:
        rest = fit_domain(np.concatenate([b for name, found in train.items() if name != left_out for b in found]))
        lines.append(row(f"{left_out}, points from the two others", rest, mine[left_out]))
    return [*lines, ""]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=Path("../shared/data"))
    parser.add_argument("--out", type=Path, default=Path("docs/results/domain.md"))
    args = parser.parse_args()
    scenes = {name: read_scene(args.data / "open/terramesh" / name) for name in (*BLOCKS, SNOW)}
    head = (
        "# Out of domain: false alarms and detections\n\n"
        "Made by `python scripts/domain_check.py --data ../shared/data` (no seed but that of the clustering, 0; the\n"
        "figures do not depend on the machine's speed). What is counted is said there. A scene is out of domain where\n"
        f"more than {LIMIT:.0%} of its squares of 8 px lie farther from the 64 points of training than 99 % of the\n"
        "training squares do.\n\n"
    )
    lines = [line for sensor in FAULTS for line in table(scenes, sensor)]
    args.out.write_text(head + "\n".join(lines) + TAIL, encoding="utf-8")
    print("\n".join(lines))


TAIL = """
Read it so: gross faults of units are always seen, and so is the +1000 offset; small gains and swapped similar bands are
seen in part; relief, in which the snow scene looks like any other, says nothing of it. Four scenes are few: the
false-alarm rate is that of blocks beside the training blocks, and a scene from elsewhere is usually flagged, as the
three left-out scenes show. The models score badly there too ([default model](default_model.md), leave one scene out).

A normal distribution (Mahalanobis distance, Ledoit-Wolf or minimum covariance determinant) was tried first: with the
same rule it flagged 10 to 12 % of the blocks with the +1000 offset left in. Deviations within squares as further
features did not change that. 256 points instead of 64 flagged 40 % of the held-out optical blocks.
"""


if __name__ == "__main__":
    main()
