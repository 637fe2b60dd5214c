"""Gradient-boosted trees on pixels and their surroundings: what a practitioner would train in a minute."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from mmedge.edge.evaluation.metrics import Confusion
from mmedge.edge.relief import relief
from mmedge.edge.training.samples import CLASS_VALUES, GSD_M, LabelledScene
from mmedge.extras import need

Floats = npt.NDArray[np.float32]
MEANS_PX = (5, 11)
FIT_PIXELS = 20_000


def features(scene: LabelledScene, sensors: Sequence[str]) -> Floats:
    """(H, W, features): each band, and its means over 5 and 11 pixels; elevation as relief of the whole scene."""
    uniform_filter = need("scipy.ndimage").uniform_filter
    planes = []
    for sensor in sensors:
        data = scene.data[sensor]
        if sensor == "elevation":
            data = relief(data[None], scene.valid[sensor][None, None], GSD_M)[0]
        for band in data:
            planes += [band, *(uniform_filter(band, size) for size in MEANS_PX)]
    return np.stack(planes, axis=-1).astype(np.float32)


def score_trees(
    train: Sequence[tuple[LabelledScene, npt.NDArray[np.bool_]]],
    test: Sequence[tuple[LabelledScene, npt.NDArray[np.bool_]]],
    sensors: Sequence[str],
    seed: int,
) -> list[Confusion]:
    """Fit on the pixels (H, W) of `train`, score on those of `test`: one confusion a scene."""
    trees = need("sklearn.ensemble").HistGradientBoostingClassifier(
        max_iter=100, learning_rate=0.1, l2_regularization=1.0, early_stopping=False, random_state=seed
    )
    rng = np.random.default_rng(seed)
    x = np.concatenate([features(s, sensors)[m] for s, m in train])
    y = np.concatenate([s.labels[m] for s, m in train])
    known = np.flatnonzero(y >= 0)
    some = rng.choice(known, min(FIT_PIXELS, len(known)), replace=False)
    trees.fit(x[some], y[some])
    found = []
    for scene, pixels in test:
        predicted = trees.predict(features(scene, sensors)[pixels])
        found.append(Confusion.of(scene.labels[pixels], predicted, len(CLASS_VALUES)))
    return found
