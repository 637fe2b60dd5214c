"""Houston 2013: urban land cover of single pixels, trained with spectra and LiDAR, tested without spectra (restricted).

Debes et al., IEEE JSTARS 7(6), 2014. The spectra of the 12,197 official test samples are not at hand, so only the
LiDAR column can be scored. Training pixels have no coordinates: validation pixels are drawn at random and optimistic.

`read_random` is MaMOL's own protocol, for comparison with published figures alone: pixels drawn at random for each
class train, others of the same fields are tested. Neighbours are all but copies of each other, so it leaks.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np

from benchmark_sets.examples import Benchmark, Budget, Split

VALIDATE_EVERY = 6
PIXELS = 100  # of each class that train, or choose the checkpoint, in MaMOL's protocol


def read(root: Path, cache: Path) -> Benchmark:
    """`root`: the data bundle. Test samples have zeros for spectra that nobody may read."""
    with np.load(root / "restricted" / "houston2013" / "houston2013.npz") as z:
        hsi, lidar, lidar_test = (z[k].astype(np.float32) for k in ("hsi_train", "lidar_train", "lidar_test"))
        labels = np.concatenate([z["label_train"], z["label_test"]]).astype(np.int64) - 1
        classes = tuple(str(name) for name in z["class_names"])
    known, total = len(hsi), len(labels)
    hsi = np.concatenate([hsi, np.zeros((total - known, hsi.shape[1]), np.float32)])
    order = np.random.default_rng(2013).permutation(known)
    validates = np.arange(known) % VALIDATE_EVERY == 0
    return Benchmark(
        name="houston2013",
        task="window",
        classes=classes,
        data={"hsi": hsi[..., None, None], "lidar": np.concatenate([lidar, lidar_test])[..., None, None]},
        labels=labels,
        protocols={
            "official": (
                Split(
                    name="official",
                    train=order[~validates],
                    validate=order[validates],
                    test=np.arange(known, total),
                ),
            )
        },
        tested=(("lidar",),),
        score="oa",
        encoder={"encoder": "vit", "encoder_options": {"patch": 1}},
        budget=Budget(steps=600, batch=128),
    )


def read_random(root: Path, cache: Path) -> Benchmark:
    """MaMOL's protocol on the official training pixels, which have both sensors."""
    official = read(root, cache)
    split = official.protocols["official"][0]
    shuffled = np.random.default_rng(2511).permutation(np.concatenate([split.train, split.validate]))
    labels = official.labels[shuffled]
    rank = np.zeros(len(shuffled), np.int64)  # of a pixel among those of its class
    for c in range(len(official.classes)):
        rank[labels == c] = np.arange(np.count_nonzero(labels == c))
    known, validates = rank < PIXELS, rank % VALIDATE_EVERY == 0
    random = Split(
        name="random",
        train=shuffled[known & ~validates],
        validate=shuffled[known & validates],
        test=shuffled[~known],
    )
    return replace(
        official,
        name="houston2013-random",
        protocols={"random": (random,)},
        tested=(("hsi",), ("lidar",), ("hsi", "lidar")),
    )
