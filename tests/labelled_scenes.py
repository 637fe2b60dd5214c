"""Two made scenes under a real split, whose optical and radar values say the part of their pixel."""

from __future__ import annotations

from typing import Any

import numpy as np
from rasterio.crs import CRS

from mmedge.bundle import LandClass
from mmedge.edge.evaluation.blocks import deal_scenes
from mmedge.edge.training.config import RunConfig
from mmedge.edge.training.samples import LabelledScene
from mmedge.edge.training.scenes import SceneSet
from mmedge.grid import Grid
from mmedge.modality import Modality

SIZE = 32
GRID = Grid(200, 170, (10.0, 0.0, 700_000.0, 0.0, -10.0, 5_700_000.0), CRS.from_epsg(32718).to_wkt())
MODALITIES = (
    Modality(name="optical", bands=("B02", "B03"), unit="reflectance", gsd_m=10),
    Modality(name="elevation", bands=("DEM",), unit="m", gsd_m=10, derive="relief"),
    Modality(name="sar", bands=("VV",), unit="dB", gsd_m=10),
)
CLASSES = (LandClass(1, "water", (0, 0, 255)), LandClass(2, "trees", (0, 255, 0)))


def config(**changes: Any) -> RunConfig:
    return RunConfig.model_validate(
        {"scenes": [{"scene": "a.tif", "labels": "a.tif"}], "window_px": SIZE, "split": {"block_px": 40}} | changes
    )


def scenes(*, points: bool = False) -> SceneSet:
    """Two scenes whose optical and radar values are the part of their pixel; the second one has no radar."""
    rng = np.random.default_rng(0)
    labels = [(rng.random(GRID.shape) < 0.1).astype(np.int16) for _ in range(2)]
    if points:
        labels = [np.where(rng.random(GRID.shape) < 0.002, x, np.int16(-1)) for x in labels]
    blocks, labels = deal_scenes(labels, [GRID, GRID], [None, None], 40, (0.6, 0.2, 0.2), 2, 0)
    found = []
    for i, (label, b) in enumerate(zip(labels, blocks, strict=True)):
        part = b.pixels().astype(np.float32)
        data = {"optical": np.stack([part, part]), "elevation": 500 + 0 * part[None], "sar": part[None]}
        if i == 1:
            del data["sar"]
        valid = {m: np.ones(GRID.shape, bool) for m in data}
        found.append(LabelledScene(f"s{i}", data, valid, label, GRID.origin_px))
    return SceneSet(
        scenes=tuple(found),
        blocks=tuple(blocks),
        modalities=MODALITIES,
        classes=CLASSES,
        files=(("a",), ("b",)),
        acquired=None,
    )
