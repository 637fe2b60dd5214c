"""Pictures of real failures for docs/sensors/optical.md and sar.md.

python scripts/sensor_pictures.py ../shared/data/open docs/sensors/images
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np
import rasterio
from PIL import Image

sys.path.insert(0, str(Path(__file__).parents[1]))

from mmedge import SceneOptions, open_scene
from mmedge.modality import Modality

ROOT = Path(__file__).parents[1]

INVALID = (230, 80, 0)


def main() -> None:
    source, target = Path(sys.argv[1]), Path(sys.argv[2])
    _offset(ROOT / "examples/chile/optical.tif", target / "offset.png")
    _slc(source / "readers/rio_cogeo/slc.tif", target / "slc.png")


def _offset(path: Path, target: Path) -> None:
    """NDVI of a Sentinel-2 scene of baseline 04.00: left with the +1000 still in it, right without."""
    wanted = Modality(name="optical", bands=("B04", "B08"), unit="reflectance", gsd_m=10)
    panels = []
    for scale in ((1e-4, 0.0), (1e-4, -0.1)):
        with open_scene(path, [wanted], SceneOptions(scale={"optical": scale})) as scene:
            red, nir = scene.read(scene.grid.window).data["optical"]
            ndvi = (nir - red) / (nir + red)
            print(scale, "NDVI", np.percentile(ndvi, [5, 50, 95]).round(2), "warnings", len(scene.warnings))
        panels.append(_greens(ndvi))
    _pair(target, *panels)


def _slc(path: Path, target: Path) -> None:
    """A Sentinel-1 SLC: left as it is stored, right on the ground; samples that are exactly 0 in colour."""
    with rasterio.open(path) as src:
        amplitude = np.abs(src.read(1))
    with open_scene(
        None, None, SceneOptions(sources={"sar": [path]}, bands={"sar": ["VV"]}, scale={"sar": (0.003, 0.0)})
    ) as scene:
        tile = scene.read(scene.grid.window)
        print("0:", (amplitude == 0).mean().round(3), "of the samples; grid", scene.grid.shape)
    stored = _grey(20 * np.log10(np.where(amplitude > 0, amplitude * 0.003, 1)))
    stored[amplitude == 0] = INVALID
    ground = _grey(tile.data["sar"][0])
    ground[~tile.valid["sar"]] = INVALID
    _pair(
        target,
        *(np.asarray(Image.fromarray(a).resize(_fit(a, 300), Image.Resampling.BILINEAR)) for a in (stored, ground)),
    )


def _fit(picture: Any, height: int) -> tuple[int, int]:
    return round(picture.shape[1] * height / picture.shape[0]), height


def _greens(ndvi: Any) -> Any:
    """0 brown, 0.9 green."""
    share = np.clip(ndvi / 0.9, 0, 1)[..., None]
    return ((1 - share) * (200, 170, 120) + share * (0, 90, 20)).astype(np.uint8)


def _grey(db: Any) -> Any:
    """-30 dB black, 0 dB white."""
    return np.repeat((np.clip((db + 30) / 30, 0, 1) * 255).astype(np.uint8)[..., None], 3, axis=-1)


def _pair(path: Path, left: Any, right: Any) -> None:
    gap = np.full((left.shape[0], 8, 3), 255, np.uint8)
    Image.fromarray(np.concatenate([left, gap, right], axis=1)).quantize(48).save(path, optimize=True)


if __name__ == "__main__":
    main()
