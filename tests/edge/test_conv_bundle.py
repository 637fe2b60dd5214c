"""The fast bundle `mamol-conv` on the example scene: where its windows lie changes no pixel of the map."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import rasterio
from rasterio.transform import Affine

from mmedge import infer

SCENE = Path(__file__).parents[2] / "examples/chile/scene.tif"
AVAILABLE = [("optical", "sar", "elevation"), ("sar",)]


def classes(path: Path) -> np.ndarray:
    with rasterio.open(path) as src:
        return src.read(1)


@pytest.mark.parametrize("available", AVAILABLE)
def test_a_shifted_lattice_changes_no_pixel(tmp_path: Path, available: tuple[str, ...]) -> None:
    infer(SCENE, tmp_path / "map.tif", model="mamol-conv", available=available)
    with rasterio.open(SCENE) as src:
        data, profile, names = src.read(), src.profile, src.descriptions
    t = profile["transform"]  # windows are counted from the origin of the CRS
    profile["transform"] = Affine(t.a, t.b, t.c + 24 * t.a, t.d, t.e, t.f + 40 * t.e)
    with rasterio.open(tmp_path / "moved.tif", "w", **profile) as out:
        out.write(data)
        out.descriptions = names
    infer(tmp_path / "moved.tif", tmp_path / "moved_map.tif", model="mamol-conv", available=available)
    np.testing.assert_array_equal(classes(tmp_path / "moved_map.tif"), classes(tmp_path / "map.tif"))


def test_tile_size_batch_and_threads_change_no_byte(tmp_path: Path) -> None:
    for name, options in (("a", {}), ("b", {"cells": 1, "batch": 3, "threads": 1})):
        infer(SCENE, tmp_path / f"{name}.tif", model="mamol-conv", **options)
    assert (tmp_path / "a.tif").read_bytes() == (tmp_path / "b.tif").read_bytes()
