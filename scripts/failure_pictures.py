"""Pictures of real sensor failures for docs/sensors/failures.md: the scene left, what was found right, in colour.

python scripts/failure_pictures.py ../shared/data/open docs/sensors/images
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np
import rasterio
from PIL import Image
from rasterio.windows import Window

sys.path.insert(0, str(Path(__file__).parents[1]))

from mmedge.geo_io.failure import clipped_complex, detect

COLOURS = {"slc_off": (230, 80, 0), "missing_swath": (60, 90, 220), "saturated": (220, 0, 160)}


def main() -> None:
    source, target = Path(sys.argv[1]), Path(sys.argv[2])
    target.mkdir(parents=True, exist_ok=True)
    gaps, valid = _read(source / "readers/landsat7_slcoff/LS7_ETM_095_082_20100116_B40.nc")
    _save(target / "slc_off.png", gaps, valid, "optical", Window(0, 480, 420, 520), 1)
    sar, valid = _read(source / "readers/spacenet6/sar_masked.tif")
    _save(target / "missing_swath.png", sar, valid, "sar", Window(0, 0, 200, 200), 2)
    rgb, valid = _read(source / "idtrees/plots/OSBS_29/RGB.tif")
    _save(target / "saturated.png", rgb, valid, "optical", Window(0, 0, 200, 200), 2)
    with rasterio.open(source / "readers/spacenet6/sar_hh.tif") as scene:
        pixels = scene.read(1)
    amplitude = _grey(np.log10(np.maximum(np.abs(pixels), 1))[None], np.ones(pixels.shape, bool))
    marked = amplitude.copy()
    rows, cols = np.nonzero(clipped_complex(pixels))
    for row, col in zip(rows, cols, strict=True):  # single pixels: a frame of 5 x 5 makes them visible
        marked[max(0, row - 2) : row + 3, max(0, col - 2) : col + 3] = COLOURS["saturated"]
    _pair(target / "saturated_sar.png", amplitude, marked, 2)


def _read(path: Path) -> tuple[Any, Any]:
    with rasterio.open(path) as scene:
        data = scene.read(out_dtype="float32")
        return data, (scene.dataset_mask() > 0) & np.isfinite(data).all(axis=0)


def _save(path: Path, data: Any, valid: Any, kind: Any, window: Window, zoom: int) -> None:
    report = detect(data, valid, kind=kind)
    cut = window.toslices()
    left = _grey(data[:3] if len(data) >= 3 and kind == "optical" else data[:1], valid)
    right = left.copy()
    for cause, colour in COLOURS.items():
        right[report.masks[cause]] = colour
    _pair(path, left[cut], right[cut], zoom)
    print(path.name, {c: round(s, 4) for c, s in report.share.items() if s})


def _grey(bands: Any, valid: Any) -> Any:
    low, high = np.percentile(bands[:, valid], [1, 99])
    scaled = np.clip((np.nan_to_num(bands) - low) / (high - low), 0, 1) * 255
    image = np.where(valid, scaled, 0).astype(np.uint8).transpose(1, 2, 0)
    return np.ascontiguousarray(np.broadcast_to(image, (*image.shape[:2], 3)))


def _pair(path: Path, left: Any, right: Any, zoom: int) -> None:
    both = np.concatenate([left, np.full((len(left), 4, 3), 255, np.uint8), right], axis=1)
    image = Image.fromarray(both).resize((both.shape[1] * zoom, both.shape[0] * zoom), Image.Resampling.NEAREST)
    image.quantize(128).save(path, optimize=True)


if __name__ == "__main__":
    main()
