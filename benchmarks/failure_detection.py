"""Precision and recall of sensor-failure detection, on real failures and on injected ones of known position.

    python benchmarks/failure_detection.py --data ../shared/data
    python -m benchmarks.failure_page    # the page, from the stored figures

Writes docs/results/failure_detection.json. Scenes under restricted/ are only evaluated here, never copied.
"""

from __future__ import annotations

import argparse
import json
import platform
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import rasterio

sys.path.insert(0, str(Path(__file__).parents[1]))

from mmedge.geo_io.failure import Kind, clipped_complex, detect, survey
from mmedge.geo_io.failures.causes import DETECTED
from mmedge.geo_io.failures.clouds import cloud_shapes
from mmedge.geo_io.failures.simulate import inject

ROOT = Path(__file__).parents[1]
SEEDS = (0, 1, 2)
INJECTED: dict[Kind, tuple[str, ...]] = {
    "optical": (
        "dead_line", "dead_column", "striping", "slc_off", "dropped_band", "stuck", "saturated", "bit_flip",
        "missing_swath",
    ),
    "sar": (
        "dead_line", "dead_column", "striping", "dropped_band", "stuck", "bit_flip", "border_noise", "missing_swath",
    ),
    "elevation": ("dead_line", "dead_column", "lidar_void", "missing_swath"),
}  # fmt: skip
FRACTIONS = (0.05, 0.1, 0.3)


class Score:
    """Pixels counted over scenes and seeds."""

    def __init__(self) -> None:
        self.hit = self.false = self.missed = self.clean = 0

    def add(self, found: np.ndarray, truth: np.ndarray, where: np.ndarray | None = None) -> Score:
        where = np.ones_like(truth) if where is None else where
        self.hit += int((found & truth & where).sum())
        self.false += int((found & ~truth & where).sum())
        self.missed += int((~found & truth & where).sum())
        self.clean += int((~truth & where).sum())
        return self

    def row(self) -> dict[str, Any]:
        found, truth = self.hit + self.false, self.hit + self.missed
        return {
            "pixels": truth,
            "precision": round(self.hit / found, 4) if found else None,
            "recall": round(self.hit / truth, 4) if truth else None,
            "false_alarm_rate": float(f"{self.false / self.clean:.2g}") if self.clean else 0.0,
        }


def load(path: Path, bands: list[int] | None = None, band_valid: bool = True) -> tuple[np.ndarray, np.ndarray]:
    with rasterio.open(path) as scene:
        data = scene.read(bands)
        valid = scene.dataset_mask() > 0 if band_valid else np.ones(data.shape[1:], bool)
    return data, valid & np.isfinite(data.astype(np.float32)).all(axis=0)


def injected(data: Path) -> list[dict[str, Any]]:
    rows = []
    names = {"optical": "S2L2A.tif", "sar": "S1RTC.tif", "elevation": "DEM.tif"}
    for kind, causes in INJECTED.items():
        scenes = [load(p / names[kind]) for p in sorted((data / "open/terramesh").iterdir()) if p.is_dir()]
        for cause in causes:
            for fraction in FRACTIONS if cause != "dropped_band" else (0.1,):
                rows.append({"kind": kind, "cause": cause, "fraction": fraction} | _one(scenes, kind, cause, fraction))
    return rows


def _one(scenes: list[tuple[np.ndarray, np.ndarray]], kind: Kind, cause: str, fraction: float) -> dict[str, Any]:
    score, side = Score(), Score()
    for pixels, valid in scenes:
        for seed in SEEDS:
            made = inject(pixels, valid, cause, np.random.default_rng(seed), fraction=fraction)  # type: ignore[arg-type]
            report = detect(made.data.astype(np.float32), made.valid, kind=kind)
            judged = made.valid if cause == "border_noise" else np.ones_like(valid)  # its outer strip is nodata
            score.add(report.masks[cause], made.mask, judged)
            side.add(made.valid & ~report.valid, made.mask)
    return score.row() | {"good_pixels_lost": float(f"{side.false / max(side.clean, 1):.2g}")}


def shear_gaps(empty: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Reference for SLC-off gaps that shares nothing with the detector: along the gaps' own slope, nodata that fills
    half of 129 columns (the gaps' edges are stepped). Second: where that can be said, that is, 140 rows and 150 columns
    off the border and where less than half of the surroundings (257 x 129 px) is nodata."""
    gaps, sure = np.zeros_like(empty), np.zeros_like(empty)
    dense = _smooth(_smooth(empty.astype(float), 257, 0), 129, 1)
    for start in range(0, empty.shape[1] - 600, 300):  # the slope changes a little across the scene
        part = empty[:, start : start + 600]
        best = max(np.arange(0.1, 0.3, 0.002), key=lambda s: float(_sheared(part, s).mean(axis=1).std()))
        along = _smooth(_sheared(part.astype(float), best), 129, 1)
        middle = slice(150, 450)
        gaps[:, start + 150 : start + 450] = (_sheared(along > 0.5, -best) & part)[:, middle]
        sure[140:-140, start + 150 : start + 450] = True
    return gaps, sure & (dense < 0.5)


def _sheared(mask: np.ndarray, slope: float) -> np.ndarray:
    rows, cols = mask.shape
    index = (np.arange(rows)[:, None] + np.rint(slope * (np.arange(cols) - cols // 2)).astype(int)) % rows
    return np.take_along_axis(mask, index, axis=0)


def _smooth(values: np.ndarray, size: int, axis: int) -> np.ndarray:
    kernel = np.ones(size) / size
    return np.apply_along_axis(lambda v: np.convolve(v, kernel, mode="same"), axis, values)


def real(data: Path) -> list[dict[str, Any]]:
    """Failures as they came. `truth` says where the reference is from."""
    readers, rows = data / "open/readers", []
    for path in sorted((readers / "landsat7_slcoff").glob("*.nc")):
        pixels, valid = load(path)
        gaps, sure = shear_gaps(~valid)
        found = detect(pixels.astype(np.float32), valid, kind="optical").masks["slc_off"]
        rows.append(_real("slc_off", path.name, "shear projection, where it is sure", Score().add(found, gaps, sure)))
        hidden = np.where(valid, pixels, 0).astype(np.float32)
        found = ~detect(hidden, np.ones_like(valid), kind="optical").valid
        rows.append(_real("slc_off", f"{path.name}, fill 0, undeclared", "the same", Score().add(found, gaps, sure)))
    pixels, valid = load(readers / "spacenet6/sar_masked.tif", band_valid=False)
    report = detect(pixels, valid, kind="sar")
    rows.append(
        _real("missing_swath", "spacenet6/sar_masked.tif", "NaN", Score().add(report.masks["missing_swath"], ~valid))
    )
    pixels, _ = load(readers / "rio_tiler/cog_dateline.tif")
    found = ~detect(pixels.astype(np.float32), np.ones(pixels.shape[1:], bool), kind="optical").valid
    rows.append(
        _real("missing_swath", "rio_tiler/cog_dateline.tif, undeclared", "DN 1", Score().add(found, pixels[0] == 1))
    )
    chip = data / "restricted/sen1floods11/Bolivia_312675/S1.tif"
    if chip.exists():
        pixels, valid = load(chip, band_valid=False)
        found = detect(pixels, valid, kind="sar").masks["missing_swath"]
        rows.append(_real("missing_swath", "sen1floods11/Bolivia_312675", "NaN", Score().add(found, ~valid)))
    for path in sorted((readers / "spacenet6").glob("sar_[hv][hv].tif")):
        pixels = load(path, band_valid=False)[0][0]
        full = (np.abs(pixels.real) == 32767) | (np.abs(pixels.imag) == 32767)
        rows.append(
            _real("saturated", f"spacenet6/{path.name}", "a part at 32767", Score().add(clipped_complex(pixels), full))
        )
    score = Score()
    for path in sorted((data / "open/idtrees/plots").glob("*/RGB.tif")):
        pixels, valid = load(path)
        score.add(
            detect(pixels.astype(np.float32), valid, kind="optical").masks["saturated"], (pixels == 255).any(axis=0)
        )
    rows.append(_real("saturated", "idtrees RGB, 60 plots", "a band at 255", score))
    return rows + _voids(data)


def _real(cause: str, scene: str, truth: str, score: Score) -> dict[str, Any]:
    return {"cause": cause, "scene": scene, "truth": truth} | score.row()


def _voids(data: Path) -> list[dict[str, Any]]:
    """Cells of 0.25 m without a return; the rest holds the highest return. Once declared, once as -9999."""
    import laspy

    declared, hidden = Score(), Score()
    for path in sorted((data / "open/idtrees/plots").glob("*/points.laz")):
        cloud = laspy.read(path)
        x, y, z = (np.asarray(v) for v in (cloud.x, cloud.y, cloud.z))
        col, row = ((v - v.min()) // 0.25 for v in (x, -y))
        shape = int(row.max()) + 1, int(col.max()) + 1
        heights = np.full(shape, -9999.0, np.float32)
        np.maximum.at(heights, (row.astype(int), col.astype(int)), z.astype(np.float32))
        truth = heights == -9999
        report = detect(heights[None], ~truth, kind="elevation")
        declared.add(report.masks["lidar_void"] | report.masks["missing_swath"], truth)
        hidden.add(~detect(heights[None], np.ones(shape, bool), kind="elevation").valid, truth)
    return [
        _real("lidar_void", "idtrees points on 0.25 m, 60 plots", "cells without a return", declared),
        _real("lidar_void", "the same as -9999, undeclared", "cells without a return", hidden),
    ]


def clean_scenes(data: Path) -> Iterator[tuple[str, Kind, np.ndarray, np.ndarray]]:
    """Scenes without a known failure."""
    opened, readers = data / "open", data / "open/readers"
    kinds: dict[str, Kind] = {"S2L2A": "optical", "S1RTC": "sar", "DEM": "elevation"}
    for name, kind in kinds.items():
        for path in sorted(opened.glob(f"terramesh/*/{name}.tif")):
            yield f"terramesh {name}", kind, *load(path)
    for path in sorted(opened.glob("idtrees/plots/*/RGB.tif")):
        yield "idtrees RGB", "optical", *load(path)
    for path in sorted(readers.glob("ssl4eo/s2c/*/B*.tif")):
        yield "ssl4eo S2 L1C bands", "optical", *load(path)
    for path in [*readers.glob("ssl4eo/s1/*/VV.tif"), *readers.glob("pyrosar/*.tif")]:
        yield "ssl4eo, pyrosar S1", "sar", *load(path)
    for path in [readers / "sarsen/Rome-30m-DEM.tif", readers / "stars/olinda_dem_utm25s.tif"]:
        yield "DEM of Rome, Olinda", "elevation", *load(path)
    for path in sorted((data / "restricted/sen1floods11").glob("*/S1.tif")):
        if path.parent.name not in ("Paraguay_34417", "Bolivia_312675"):
            yield "sen1floods11 S1", "sar", *load(path)
    for path in sorted((data / "restricted/sen1floods11").glob("*/S2.tif")):
        yield "sen1floods11 S2", "optical", *load(path, band_valid=False)
    for path in sorted((data / "restricted/ombria/test").glob("s2_*/*.webp")):
        pixels = load(path, [1, 2, 3], band_valid=False)[0]
        yield "ombria S2, 8 bit (held out)", "optical", pixels, (pixels > 0).any(axis=0)  # black is nodata there


def false_alarms(data: Path) -> list[dict[str, Any]]:
    """Share of usable pixels taken from clean scenes; saturation, which is real there, apart."""
    rows: dict[str, dict[str, Any]] = {}
    for name, kind, pixels, valid in clean_scenes(data):
        report = detect(pixels.astype(np.float32), valid, kind=kind)
        saturated = report.masks["saturated"]
        row = rows.setdefault(name, {"scenes": name, "kind": kind, "number": 0, "pixels": 0, "lost": 0, "saturated": 0})
        row["number"] += 1
        row["pixels"] += int(valid.sum())
        row["lost"] += int((valid & ~report.valid & ~saturated).sum())
        row["saturated"] += int((valid & saturated).sum())
    return list(rows.values())


def cut_borders(data: Path) -> list[dict[str, Any]]:
    """Good SAR scenes of which 40 px are cut off at one side: what is taken for border noise there."""
    rows = {name: {"bands": name, "scenes": 0, "pixels": 0, "lost": 0} for name in ("all", "the last alone")}
    for _, kind, pixels, valid in clean_scenes(data):
        for side in range(4) if kind == "sar" else ():
            left = np.rot90(valid, side).copy()
            left[:, :40] = False
            seen = np.rot90(left, -side).copy()
            for name, bands in (("all", pixels), ("the last alone", pixels[-1:])):
                rows[name]["scenes"] += 1
                rows[name]["pixels"] += int(seen.sum())
                rows[name]["lost"] += int((seen & ~detect(bands, seen, kind="sar").valid).sum())
    return list(rows.values())


def clouds_taken_for(data: Path) -> dict[str, float]:
    """Share of real cloud pixels, declared invalid, that each cause claims; the reason given would be wrong."""
    claimed, total = dict.fromkeys(DETECTED, 0), 0
    path = next(iter(sorted((data / "open/terramesh").glob("*/S2L2A.tif"))))
    pixels = load(path)[0][:, :101, :100].astype(np.float32)
    for shape in cloud_shapes():
        report = detect(pixels, ~shape, kind="optical")
        total += int(shape.sum())
        for cause, mask in report.masks.items():
            claimed[cause] += int((mask & shape).sum())
    return {cause: round(number / total, 4) for cause, number in claimed.items() if number}


def speed(data: Path) -> dict[str, Any]:
    """A Sentinel-2 tile's share: 2048 x 2048 px of 4 bands, mirrored from a scene, in windows of 1024 px."""
    pixels = load(next(iter(sorted((data / "open/terramesh").glob("*/S2L2A.tif")))))[0][[1, 2, 3, 7]]
    big = np.pad(pixels, ((0, 0), (0, 1824), (0, 1824)), mode="symmetric").astype(np.float32)
    valid = np.ones(big.shape[1:], bool)

    def read(window: Any) -> tuple[np.ndarray, np.ndarray]:
        rows, cols = slice(window.row, window.row + window.height), slice(window.col, window.col + window.width)
        return big[:, rows, cols], valid[rows, cols]

    start = time.perf_counter()
    survey(read, valid.shape, kind="optical")
    seconds = time.perf_counter() - start
    return {"mpx": round(valid.size / 1e6, 2), "bands": 4, "seconds": round(seconds, 2), "cpu": platform.machine()}


def _git(*words: str) -> str:
    return subprocess.run(["git", *words], cwd=ROOT, capture_output=True, text=True, check=True).stdout.strip()


def commit() -> str:
    dirty = _git("status", "--porcelain", "--", "mmedge", "benchmarks")
    return _git("rev-parse", "HEAD") + (" and uncommitted changes" if dirty else "")


def measured(data: Path) -> dict[str, Any]:
    np.seterr(all="ignore")
    return {
        "schema": "mmedge.failure-detection/1",
        "command": "python benchmarks/failure_detection.py --data ../shared/data",
        "commit": commit(),
        "seeds": SEEDS,
        "injected": injected(data),
        "real": real(data),
        "clean": false_alarms(data),
        "cut_borders": cut_borders(data),
        "clouds_taken_for": clouds_taken_for(data),
        "speed": speed(data),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=Path("../shared/data"))
    parser.add_argument("--out", type=Path, default=ROOT / "docs/results/failure_detection.json")
    options = parser.parse_args()
    options.out.parent.mkdir(parents=True, exist_ok=True)
    options.out.write_text(json.dumps(measured(options.data), indent=1) + "\n")


if __name__ == "__main__":
    main()
