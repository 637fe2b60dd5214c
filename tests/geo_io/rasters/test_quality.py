"""Quality layers and user masks: rules on values, masks on other grids, per sensor."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import rasterio
from hypothesis import given, settings
from hypothesis import strategies as st
from rasterio.transform import Affine

from mmedge.errors import UsageError
from mmedge.geo_io.gather import SceneOptions
from mmedge.geo_io.rasters.quality import FLAGGED, QA60, QA_PIXEL, SCL, Rule, bits
from mmedge.geo_io.scene import open_scene
from mmedge.grid import Window

WHOLE = Window(0, 0, 224, 224)


def test_rules_by_hand() -> None:
    assert SCL.usable(np.arange(12)).tolist() == [False, False, True, False, *[True] * 4, False, False, False, True]
    assert QA60.usable(np.array([0, 1024, 2048, 3072, 512])).tolist() == [True, False, False, False, True]
    # Values of the Landsat 8-9 guide: clear, water, fill, high-confidence cloud, cloud shadow, snow
    values = np.array([21824, 21952, 1, 22280, 23888, 30048])
    assert QA_PIXEL.usable(values).tolist() == [True, True, False, False, False, True]
    assert FLAGGED.usable(np.array([0, 1, 255, -1])).tolist() == [True, False, False, False]
    assert Rule(bits=bits(0, 3)).bits == 9


@given(
    values=st.lists(st.integers(0, 65535), min_size=1, max_size=50),
    flags=st.sets(st.integers(0, 15), max_size=4),
    classes=st.sets(st.integers(0, 20), max_size=5),
)
def test_a_value_is_usable_where_no_flag_is_set_and_its_class_is_not_named(
    values: list[int], flags: set[int], classes: set[int]
) -> None:
    rule = Rule(bits=bits(*flags), classes=tuple(classes))
    expected = [v not in classes and not any(f"{v:016b}"[15 - flag] == "1" for flag in flags) for v in values]
    assert rule.usable(np.array(values)).tolist() == expected


def mask(path: Path, chile: Path, *, factor: int, dtype: str = "uint8", count: int = 1) -> Path:
    """A mask of the example scene's place whose first rows, 40 m of them, are flagged."""
    with rasterio.open(chile / "scene.tif") as src:
        place, crs = src.transform @ Affine.scale(factor), src.crs
    values = np.zeros((count, 224 // factor, 224 // factor), dtype)
    values[:, : 4 // factor] = 3
    profile = {"driver": "GTiff", "count": count, "height": values.shape[1], "width": values.shape[2], "dtype": dtype}
    with rasterio.open(path, "w", **profile, crs=crs, transform=place, nodata=0) as out:
        out.write(values)
    return path


@pytest.mark.parametrize(("factor", "dtype"), [(1, "uint8"), (2, "uint8"), (4, "int16"), (1, "float32")])
def test_a_user_mask_narrows_its_own_sensor(chile: Path, tmp_path: Path, factor: int, dtype: str) -> None:
    layover = mask(tmp_path / "layover.tif", chile, factor=factor, dtype=dtype)
    with open_scene(chile / "scene.tif", None, SceneOptions(masks={"radar": [layover]})) as scene:
        tile = scene.read(WHOLE)
        assert layover in scene.files
    assert not tile.valid["sar"][:4].any()
    assert tile.valid["sar"][4:].all()  # nodata 0 of the mask means nothing
    assert tile.valid["optical"].all()
    np.testing.assert_array_equal(tile.lost["sar"]["mask"], ~tile.valid["sar"])
    assert not tile.lost["sar"]["nodata"].any()


@settings(max_examples=25, deadline=None)
@given(
    seed=st.integers(0, 2**32 - 1),
    factor=st.integers(1, 5),
    row=st.integers(-30, 60),
    col=st.integers(-30, 60),
    window=st.tuples(st.integers(-20, 200), st.integers(-20, 200), st.integers(1, 60), st.integers(1, 60)),
)
def test_a_mask_takes_exactly_the_pixels_that_it_covers(
    chile: Path,
    tmp_path_factory: pytest.TempPathFactory,
    seed: int,
    factor: int,
    row: int,
    col: int,
    window: tuple[int, int, int, int],
) -> None:
    """A mask of any flags, pixel size and place; in any window, which may leave the scene, a pixel is lost to a cause
    or valid, never both.
    """
    flags = (np.random.default_rng(seed).random((40, 40)) < 0.3).astype(np.uint8)
    path = tmp_path_factory.mktemp("masks") / "mask.tif"
    with rasterio.open(chile / "scene.tif") as src:
        place = src.transform @ Affine.translation(col, row) @ Affine.scale(factor)
        profile = {"driver": "GTiff", "count": 1, "height": 40, "width": 40, "dtype": "uint8", "crs": src.crs}
    with rasterio.open(path, "w", **profile, transform=place) as out:
        out.write(flags, 1)
    where = Window(*window)
    rows, cols = (np.arange(start, start + size) for start, size in zip(window[:2], window[2:], strict=True))
    r, c = (np.floor((at + 0.5 - first) / factor).astype(int) for at, first in ((rows, row), (cols, col)))
    on = ((r >= 0) & (r < 40))[:, None] & ((c >= 0) & (c < 40))
    usable = on & (flags[np.clip(r, 0, 39)[:, None], np.clip(c, 0, 39)] == 0)
    inside = ((rows >= 0) & (rows < 224))[:, None] & ((cols >= 0) & (cols < 224))
    with open_scene(chile / "scene.tif", None, SceneOptions(masks={"sar": [path]})) as scene:
        tile = scene.read(where)
    np.testing.assert_array_equal(tile.valid["sar"], usable & inside)
    taken = np.logical_or.reduce([np.zeros(where.shape, bool), *tile.lost["sar"].values()])
    np.testing.assert_array_equal(taken, inside & ~tile.valid["sar"])


def test_unknown_places_of_a_mask_are_unusable(chile: Path, tmp_path: Path) -> None:
    layover = mask(tmp_path / "layover.tif", chile, factor=1, dtype="float32")
    with rasterio.open(layover, "r+") as out:
        values = out.read()
        values[0, 10:12] = np.nan
        out.write(values)
    with open_scene(chile / "scene.tif", None, SceneOptions(masks={"sar": [layover]})) as scene:
        assert (~scene.read(WHOLE).valid["sar"]).any(axis=1).nonzero()[0].tolist() == [0, 1, 2, 3, 10, 11]


def test_senseless_masks_are_refused(chile: Path, tmp_path: Path) -> None:
    one, three = (mask(tmp_path / f"{n}.tif", chile, factor=1, count=n) for n in (1, 3))
    with pytest.raises(UsageError, match="a mask for `thermal`"):
        open_scene(chile / "scene.tif", None, SceneOptions(masks={"thermal": [one]}))
    with pytest.raises(UsageError, match="a mask has one"):
        open_scene(chile / "scene.tif", None, SceneOptions(masks={"sar": [three]}))
