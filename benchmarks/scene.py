"""The scene of the benchmarks: synthetic, seeded, 6 bands uint16, tiles of 512, DEFLATE with predictor 2.

    python -m benchmarks.scene scene.tif --side 10000

Fractal land cover in 8 classes, each with a spectrum, under fractal illumination and noise.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import rasterio
from rasterio.transform import from_origin
from rasterio.windows import Window

BANDS = ("B02", "B03", "B04", "B08", "B11", "B12")
CLASSES, OCTAVES, STRIP = 8, (1024, 256, 64, 16), 512
Field = npt.NDArray[np.float32]


def fractal(seed: int, row: int, rows: int, cols: int) -> Field:
    """Rows of a field of value noise: bilinear between random lattices, halving in strength with their step."""
    total: Field = np.zeros((rows, cols), np.float32)
    for k, step in enumerate(OCTAVES):
        y, x = np.arange(row, row + rows) / step, np.arange(cols) / step
        i, j = y.astype(int), x.astype(int)
        lattice = np.stack(
            [np.random.default_rng((seed, k, n)).standard_normal(cols // step + 2) for n in range(i[0], i[-1] + 2)]
        ).astype(np.float32)
        u, v = (y - i)[:, None].astype(np.float32), (x - j).astype(np.float32)
        top, bottom = lattice[i - i[0]], lattice[i - i[0] + 1]
        strips = top * (1 - u) + bottom * u
        total += (strips[:, j] * (1 - v) + strips[:, j + 1] * v) / 2**k
    return total


def strip(seed: int, row: int, rows: int, cols: int) -> tuple[npt.NDArray[np.uint16], npt.NDArray[np.uint8]]:
    """Digital numbers (6, rows, cols) = 10000 x reflectance, and the class (rows, cols) they were made from."""
    rng = np.random.default_rng((seed, 99))
    spectra = rng.uniform(300, 4500, (CLASSES, len(BANDS))).astype(np.float32)
    cover = fractal(seed, row, rows, cols)
    label = np.clip((cover + 2.0) / 4.0 * CLASSES, 0, CLASSES - 1).astype(np.uint8)
    light = 1 + 0.1 * fractal(seed + 1, row, rows, cols)
    noise = np.random.default_rng((seed, 98, row)).normal(0, 120, (len(BANDS), rows, cols)).astype(np.float32)
    values = spectra.T[:, label] * light + noise
    return np.clip(values, 1, 10000).astype(np.uint16), label


def write_scene(path: Path, side: int, *, seed: int = 0) -> Path:
    """The scene at 10 m in UTM; the same bytes for the same side and seed."""
    profile: dict[str, Any] = {
        "driver": "GTiff",
        "width": side,
        "height": side,
        "count": len(BANDS),
        "dtype": "uint16",
        "crs": "EPSG:32632",
        "transform": from_origin(500000, 5300000, 10, 10),
        "tiled": True,
        "blockxsize": 512,
        "blockysize": 512,
        "compress": "deflate",
        "predictor": 2,
        "zlevel": 1,
        "BIGTIFF": "IF_SAFER",
    }
    with rasterio.open(path, "w", **profile) as out:
        out.descriptions = [f"optical:{band}" for band in BANDS]
        for row in range(0, side, STRIP):
            rows = min(STRIP, side - row)
            out.write(strip(seed, row, rows, side)[0], window=Window(0, row, side, rows))
    return path


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("path", type=Path)
    parser.add_argument("--side", type=int, default=10000)
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    write_scene(args.path, args.side, seed=args.seed)


if __name__ == "__main__":
    main()
