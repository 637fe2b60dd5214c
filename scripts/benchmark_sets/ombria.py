"""OMBRIA: where water stands after a flood, from Sentinel-1 and Sentinel-2 before and after (restricted).

Drakonakis et al., "OmbriaNet", IEEE JSTARS 15, 2022. Before and after are channels of one sensor. Networks see means of
2 x 2 pixels, at 20 m, which also quiets the radar's speckle; maps are scored at 10 m against the published masks.

The events of the chips are not recorded, but the chips are numbered event by event: the nearer two numbers, the more
alike their chips, up to some 30 numbers apart; beyond that they are no more alike than any two. The folds by event are
therefore runs of numbers, and the chips within `GUARD` of a run do not train the network that is tested on it.
"""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

from benchmark_sets.examples import Benchmark, Budget, Ints, Split, cached

FOLDS, GUARD = 4, 30
RUN = 12  # chips of consecutive numbers that train or validate together
EVERY = 20  # one run of so many validates
CELL = 2  # pixels of a side of what the network sees as one


def read(root: Path, cache: Path) -> Benchmark:
    """`root`: the data bundle."""
    arrays = cached(cache / "ombria.npz", lambda: _decode(root / "restricted" / "ombria"))
    truth, is_test = arrays["mask"].astype(np.int8), arrays["is_test"]
    share = _cells(truth[:, None].astype(np.float32))[:, 0]
    training = np.flatnonzero(~is_test)
    return Benchmark(
        name="ombria",
        task="map",
        classes=("dry", "flood"),
        data={m: arrays[m] for m in ("s1", "s2")},
        labels=(share >= 0.5).astype(np.int64),
        truth=truth,
        protocols={
            "published": (Split(name="published", test=np.flatnonzero(is_test), **_parts(training)),),
            "events": event_folds(training, arrays["number"][training]),
        },
        tested=(("s1",), ("s2",), ("s1", "s2")),
        score="flood_iou",
        encoder={"encoder": "unet", "encoder_options": {"widths": (8, 24, 48), "width": 16}},
        budget=Budget(steps=1200, batch=8, window_px=64, check_every=150),
    )


def event_folds(rows: Ints, numbers: Ints, folds: int = FOLDS, guard: int = GUARD) -> tuple[Split, ...]:
    """Splits of `rows` by the chips' numbers: runs that are tested, and what lies further than `guard` from them."""
    rows = rows[np.argsort(numbers, kind="stable")]
    edges = np.linspace(0, len(rows), folds + 1).round().astype(int)
    splits = []
    for k, (first, last) in enumerate(pairwise(edges)):
        others = np.concatenate([rows[: max(0, first - guard)], rows[last + guard :]])
        splits.append(Split(name=f"events-{k}", test=rows[first:last], **_parts(others)))
    return tuple(splits)


def _parts(rows: Ints) -> dict[str, Ints]:
    """Training and validation chips among `rows`, which are in order of their numbers."""
    validates = np.arange(len(rows)) // RUN % EVERY == EVERY // 2
    return {"train": rows[~validates], "validate": rows[validates]}


def _decode(folder: Path) -> dict[str, npt.NDArray[Any]]:
    """Training chips in order of their numbers, then test chips: s1 (N, 2, 128, 128), s2 (N, 6, 128, 128), mask."""
    paths = [p for part in ("train", "test") for p in sorted((folder / part / "mask").glob("*.png"))]
    if not paths:
        raise FileNotFoundError(f"no OMBRIA chips in {folder}")
    found: dict[str, list[npt.NDArray[Any]]] = {"s1": [], "s2": [], "mask": []}
    for path in paths:
        for sensor, bands in (("s1", 1), ("s2", 3)):
            dates = [
                np.asarray(Image.open(path.parents[1] / f"{sensor}_{date}" / f"{path.stem}.webp"))[..., :bands]
                for date in ("before", "after")
            ]
            chip = np.moveaxis(np.concatenate(dates, axis=-1), -1, 0)[None].astype(np.float32)
            found[sensor].append(_cells(chip).astype(np.float16))  # quarters up to 255.75: exact
        found["mask"].append((np.asarray(Image.open(path)) > 0)[None])
    arrays = {name: np.concatenate(parts) for name, parts in found.items()}
    arrays["is_test"] = np.array([p.parents[1].name == "test" for p in paths])
    arrays["number"] = np.array([int(p.stem) for p in paths])
    return arrays


def _cells(x: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    """Means over squares of `CELL` pixels: (N, C, H, W) -> (N, C, H / 2, W / 2)."""
    n, c, h, w = x.shape
    means: npt.NDArray[np.float32] = x.reshape(n, c, h // CELL, CELL, w // CELL, CELL).mean((3, 5))
    return means
