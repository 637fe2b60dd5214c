"""Training data: labelled scenes as windows, and labelled single pixels of the whole world.

Units are the model's: reflectance 0..1, dB, metres. Windows are (B, C, H, W) float32 with valid (B, 1, H, W) bool.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import rasterio

from mmedge.edge.relief import derive
from mmedge.modality import Derive

OPTICAL = ("B02", "B03", "B04", "B05", "B06", "B07", "B08", "B11", "B12")
SAR = ("VV", "VH")
GSD_M = 10.0
# ESRI / Impact Observatory codes of the classes, in the order of the logits.
CLASS_VALUES = (1, 2, 3, 4, 5, 6, 9)
# Scene 433D is not harmonised: its digital numbers still carry +1000.
REFLECTANCE_OFFSET = {"433D_629L_3_1": -0.1}
WORLDCOVER_TO_ESRI = {80: 1, 10: 2, 90: 3, 40: 4, 50: 5, 60: 6, 20: 9, 30: 9}
CLOUDY_BLUE = 0.2  # world pixels brighter than this in B02 are mostly cloud left in the composite
# Water absorbs the short-wave infrared. A third of the Brazilian scene's "water" is a bright sandbar (B11 up to .4):
# such labels do not train. They stay in the test, for the labels are what they are.
DRY_B11 = 0.15

Float = npt.NDArray[np.float32]
Bool = npt.NDArray[np.bool_]
Arrays = dict[str, Float]
Masks = dict[str, Bool]


@dataclass(frozen=True, slots=True)
class LabelledScene:
    """Rasters of one scene. `data[m]` (C, H, W), `valid[m]` (H, W), `labels` (H, W) class index or -1.

    `anchor`: where the scene's corner lies in the lattice of windows that is anchored at the CRS origin, in pixels.
    """

    name: str
    data: Arrays
    valid: Masks
    labels: npt.NDArray[np.signedinteger[Any]]
    anchor: tuple[int, int]


def read_scene(folder: Path) -> LabelledScene:
    """A TerraMesh scene: S2L2A.tif, S1RTC.tif, DEM.tif and LULC.tif on one grid."""
    optical, seen = _bands(folder / "S2L2A.tif", OPTICAL)
    offset = REFLECTANCE_OFFSET.get(folder.name, 0.0)
    sar, sar_seen = _bands(folder / "S1RTC.tif", SAR)
    dem, dem_seen = _bands(folder / "DEM.tif", ("DEM",))
    with rasterio.open(folder / "LULC.tif") as src:
        codes = src.read(1)
        corner = round(-src.transform.f / GSD_M), round(src.transform.c / GSD_M)
    table = np.full(256, -1, np.int64)
    table[list(CLASS_VALUES)] = np.arange(len(CLASS_VALUES))
    return LabelledScene(
        folder.name,
        {"optical": optical * np.float32(1e-4) + np.float32(offset), "sar": sar, "elevation": dem},
        {"optical": seen, "sar": sar_seen & np.isfinite(sar).all(0), "elevation": dem_seen},
        table[codes],
        corner,
    )


def believable(scene: LabelledScene) -> npt.NDArray[np.int64]:
    """Labels (H, W) to train on: -1 where the label says water and the short-wave infrared says dry."""
    dry = scene.data["optical"][OPTICAL.index("B11")] > DRY_B11
    return np.where((scene.labels == CLASS_VALUES.index(1)) & dry & scene.valid["optical"], -1, scene.labels)


def _bands(path: Path, names: Sequence[str]) -> tuple[Float, Bool]:
    with rasterio.open(path) as src:
        indexes = [src.descriptions.index(name) + 1 for name in names]
        return src.read(indexes).astype(np.float32), (src.read_masks(indexes) > 0).all(0)


def cut(scene: LabelledScene, origins: npt.NDArray[np.int64], size: int) -> tuple[Arrays, Masks]:
    """Windows at `origins` (B, 2), raw elevation. What lies outside the scene is invalid."""
    height, width = scene.labels.shape
    rows = origins[:, :1, None] + np.arange(size)[:, None]
    cols = origins[:, 1:, None] + np.arange(size)[None, :]
    inside = (rows >= 0) & (rows < height) & (cols >= 0) & (cols < width)
    rows, cols = rows.clip(0, height - 1), cols.clip(0, width - 1)
    data = {m: np.moveaxis(x[:, rows, cols], 0, 1) for m, x in scene.data.items()}
    valid = {m: (v[rows, cols] & inside)[:, None] for m, v in scene.valid.items()}
    return data, valid


def with_relief(data: Mapping[str, Float], valid: Mapping[str, Bool], kind: Derive = "relief") -> Arrays:
    """What the network sees: elevation replaced by height above the surroundings and slope, as `kind` says."""
    out = dict(data)
    if "elevation" in out:
        out["elevation"] = derive(kind, out["elevation"], valid["elevation"], GSD_M)
    return out


@dataclass(frozen=True, slots=True)
class WorldPixels:
    """Single labelled pixels: `optical` (N, T, 9) and `sar` (N, T, 2), a date each, `usable[m]` (N, T)."""

    data: Arrays
    usable: Masks
    labels: npt.NDArray[np.int64]
    cells: npt.NDArray[np.str_]

    def subset(self, rows: npt.NDArray[np.bool_]) -> WorldPixels:
        return WorldPixels(
            {m: x[rows] for m, x in self.data.items()},
            {m: u[rows] for m, u in self.usable.items()},
            self.labels[rows],
            self.cells[rows],
        )


def read_world_pixels(path: Path) -> WorldPixels:
    """`world_pixels.npz`. Mangroves are left out (no such class), cloudy dates are unusable."""
    with np.load(path) as z:
        bands = [str(b) for b in z["optical_bands"]]
        dn = z["optical_dn"][..., [bands.index(b) for b in OPTICAL]]
        sar_dn, cover, cells = z["sar_dn"], z["worldcover"], z["cell"].astype(str)
    optical = dn.astype(np.float32) * np.float32(1e-4)
    seen = (dn != 65535).all(-1) & (optical[..., 0] < CLOUDY_BLUE)
    sar_seen = ((sar_dn != 0) & (sar_dn != 65535)).all(-1)
    sar = 20 * np.log10(np.maximum(sar_dn, 1).astype(np.float32)) - np.float32(83)
    index = {code: CLASS_VALUES.index(esri) for code, esri in WORLDCOVER_TO_ESRI.items()}
    labels = np.array([index.get(int(c), -1) for c in cover], np.int64)
    every = WorldPixels({"optical": optical, "sar": sar}, {"optical": seen, "sar": sar_seen}, labels, cells)
    return every.subset(labels >= 0)


def cell_part(cells: npt.NDArray[np.str_]) -> npt.NDArray[np.int64]:
    """0 train, 1 validate, 2 test for each pixel, by its ten-degree cell: of eight cells, one validates, two test."""
    order = np.array(sorted(set(cells.tolist())))
    part = np.array([0, 2, 0, 0, 1, 0, 2, 0])[np.arange(len(order)) % 8]
    found: npt.NDArray[np.int64] = part[np.searchsorted(order, cells)]
    return found
