"""Quantize a model that ships: `python scripts/quantize_default.py mamol-conv --data ../shared/data`.

The scenes are TerraMesh's. Ranges come from windows that lie in training blocks, the float layers and the temperature
from validation blocks, the gate from test blocks (edge/training/split.py). Run it again whenever the weights change;
what passes, runs/MODEL-int8, takes the place of mmedge/bundles/MODEL.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

import numpy as np
import rasterio

from mmedge.calibration.quantize import QuantizeRequest, quantize
from mmedge.calibration.windows import SceneFiles
from mmedge.cli.quantize import text
from mmedge.edge.training.samples import CLASS_VALUES, OPTICAL, SAR, read_scene
from mmedge.edge.training.split import BLOCKS, TEST, TRAIN, VALIDATE, part_of_pixels

MODELS = ("mamol-terra", "mamol-conv")
NAMES = [*(f"optical:{b}" for b in OPTICAL), *(f"sar:{b}" for b in SAR), "elevation:DEM"]


def scenes(data: Path, folder: Path, part: int, *, hidden: bool) -> tuple[SceneFiles, ...]:
    """Each scene with the labels of one part. `hidden`: the other parts' pixels are gone too."""
    folder.mkdir(parents=True, exist_ok=True)
    found = []
    for name in BLOCKS:
        source = data / "open/terramesh" / name
        scene, inside = read_scene(source), part_of_pixels(name) == part
        layers = [np.where(scene.valid[m] & (inside | (not hidden)), x, np.nan) for m, x in scene.data.items()]
        values = np.array([*CLASS_VALUES, 0])
        labels = values[np.where(inside, scene.labels, -1)].astype(np.uint8)
        with rasterio.open(source / "LULC.tif") as src:
            profile = {"driver": "GTiff", "height": src.height, "width": src.width, "crs": src.crs}
            profile["transform"] = src.transform
        for path, bands, dtype in (
            (folder / f"{name}_{part}.tif", np.concatenate(layers).astype(np.float32), "float32"),
            (folder / f"{name}_{part}_labels.tif", labels[None], "uint8"),
        ):
            with rasterio.open(path, "w", **profile, count=len(bands), dtype=dtype) as out:
                out.write(bands)
                if dtype == "float32":
                    out.nodata = np.nan
                    out.descriptions = NAMES
        found.append(SceneFiles(folder / f"{name}_{part}.tif", folder / f"{name}_{part}_labels.tif"))
    return tuple(found)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", nargs="?", choices=MODELS, default="mamol-terra")
    parser.add_argument("--data", type=Path, default=Path("../shared/data"))
    parser.add_argument("--work", type=Path, default=Path("runs/quantize"))
    parser.add_argument("--out", type=Path, help="the bundle; runs/MODEL-int8")
    parser.add_argument("--method", default="mse", help="scales")
    parser.add_argument("--max-drop", type=float, default=0.5)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--report", type=Path, help="JSON of the table")
    args = parser.parse_args()
    parts = {p: scenes(args.data, args.work, p, hidden=p == TRAIN) for p in (TRAIN, VALIDATE, TEST)}
    request = QuantizeRequest(
        model=args.model,
        output=args.out or Path(f"runs/{args.model}-int8"),
        calibrate=parts[TRAIN],
        validate=parts[VALIDATE],
        test=parts[TEST],
        method=args.method,
        max_drop=args.max_drop,
        seed=args.seed,
        overwrite=True,
    )
    report = quantize(request, say=lambda line: print(line, flush=True))
    print(text(report))
    if args.report:
        args.report.write_text(json.dumps(report.document(), indent=1) + "\n", encoding="utf-8")
    sys.exit(0 if report.passed else 1)


if __name__ == "__main__":
    main()
