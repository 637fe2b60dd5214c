"""Quality layers and user masks: rules on values, masks on other grids, per sensor."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import rasterio
from rasterio.transform import Affine

from mmedge.errors import UsageError
from mmedge.geo_io.quality import FLAGGED, QA60, QA_PIXEL, SCL, Rule, bits
from mmedge.geo_io.scene import SceneOptions, open_scene
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
