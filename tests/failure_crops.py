"""Real crops for the tests of failures, and the shared data where it is there."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import rasterio

from mmedge.geo_io.failure import Kind
from mmedge.tile import Data, Valid

ROOT = Path(__file__).parents[1]
CROPS = ROOT / "tests" / "data" / "failure"
OPEN = ROOT / ".." / "shared" / "data" / "open"
KINDS: dict[str, Kind] = {"s2": "optical", "s1": "sar", "dem": "elevation"}


def crop(name: str) -> tuple[Data, Valid]:
    """A crop of tests/data/failure in its own numbers, (bands, rows, cols) float32, and its validity."""
    return read(CROPS / f"{name}.tif")


def read(path: Path) -> tuple[Data, Valid]:
    with rasterio.open(path) as scene:
        return scene.read(out_dtype="float32"), scene.dataset_mask() > 0


def shared(path: str) -> Path:
    found = OPEN / path
    if not found.exists():
        pytest.skip(f"no shared data at {OPEN}")
    return found


def recall(found: Valid, truth: Valid) -> float:
    return float(found[truth].mean())


def precision(found: Valid, truth: Valid) -> float:
    return float(truth[found].mean()) if found.any() else float(np.nan)
