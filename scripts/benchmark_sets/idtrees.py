"""IDTReeS 2020: the species of a tree crown from hyperspectral, colour and canopy height images (open, CC-BY-4.0).

Graves, Marconi, DOI 10.5281/zenodo.3934932. A crown is the part of its box inside the plot, brought to 8 x 8 cells: of
the spectra means of 9 neighbouring bands, of colour 2 x 2 means a cell. Plots that touch or share a tree are one group
and stay together in five folds. The eight most frequent species.
"""

from __future__ import annotations

import csv
import re
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import rasterio
from PIL import Image
from rasterio.windows import from_bounds

from benchmark_sets.examples import Benchmark, Budget, cached, folds_of, grouped

SPECIES, FOLDS, CELLS = 8, 5, 8
BANDS_TOGETHER = 9
Box = tuple[float, float, float, float]


def read(root: Path, cache: Path) -> Benchmark:
    """`root`: the data bundle."""
    arrays = cached(cache / "idtrees.npz", lambda: _decode(root / "open" / "idtrees"))
    groups, sites = arrays["group"].tolist(), arrays["site"].tolist()
    return Benchmark(
        name="idtrees",
        task="window",
        classes=tuple(arrays["species"].tolist()),
        data={m: arrays[m] for m in ("hsi", "chm", "rgb")},
        labels=arrays["label"],
        protocols={"plots": folds_of(grouped(groups, sites, 2 * FOLDS), FOLDS)},
        tested=(("hsi",), ("chm",), ("rgb",), ("hsi", "chm"), ("hsi", "rgb"), ("chm", "rgb"), ("hsi", "chm", "rgb")),
        score="oa",
        encoder={"encoder": "unet", "encoder_options": {"widths": (8, 24, 48), "width": 16, "kernel": 3}},
        budget=Budget(steps=300, batch=32, check_every=60),
    )


def _decode(folder: Path) -> dict[str, npt.NDArray[Any]]:
    with (folder / "crowns.csv").open(newline="") as file:
        crowns = [row for row in csv.DictReader(file) if row["taxonID"]]
    with (folder / "plots.csv").open(newline="") as file:
        group = {row["plot"]: row["group"] for row in csv.DictReader(file)}
    species = sorted(name for name, _ in Counter(row["taxonID"] for row in crowns).most_common(SPECIES))
    crowns = [row for row in crowns if row["taxonID"] in species]
    found: dict[str, list[npt.NDArray[np.float32]]] = {"hsi": [], "chm": [], "rgb": []}
    for row in crowns:
        plot, box = folder / "plots" / row["plot"], _box(row["wkt_epsg32617"])
        found["hsi"].append(_cut(plot / "HSI.tif", box, CELLS, together=BANDS_TOGETHER))
        found["chm"].append(_cut(plot / "CHM.tif", box, CELLS))
        fine = _cut(plot / "RGB.tif", box, 2 * CELLS).reshape(3, CELLS, 2, CELLS, 2)
        found["rgb"].append(fine.transpose(0, 2, 4, 1, 3).reshape(12, CELLS, CELLS))
    arrays: dict[str, npt.NDArray[Any]] = {m: np.stack(parts) for m, parts in found.items()}
    arrays["label"] = np.array([species.index(row["taxonID"]) for row in crowns])
    arrays["species"] = np.array(species)
    arrays["group"] = np.array([group[row["plot"]] for row in crowns])
    arrays["site"] = np.array([row["site"] for row in crowns])
    return arrays


def _box(wkt: str) -> Box:
    """West, south, east, north of an axis-aligned polygon."""
    xy = np.array(re.findall(r"[-\d.]+", wkt), np.float64).reshape(-1, 2)
    return (*xy.min(0).tolist(), *xy.max(0).tolist())


def _cut(path: Path, box: Box, cells: int, together: int = 1) -> npt.NDArray[np.float32]:
    """The part of a box inside an image as (C, cells, cells): means over each cell, after means of `together` bands."""
    with rasterio.open(path) as image:
        bands = image.read().astype(np.float32)
        inside = from_bounds(*box, image.transform)
    rows, cols = bands.shape[1:]
    left, right = np.clip((inside.col_off, inside.col_off + inside.width), 0, cols)
    top, bottom = np.clip((inside.row_off, inside.row_off + inside.height), 0, rows)
    bands = bands.reshape(-1, together, rows, cols).mean(1)
    part = (float(left), float(top), float(right), float(bottom))
    resized = [Image.fromarray(b).resize((cells, cells), Image.Resampling.BOX, box=part) for b in bands]
    return np.stack([np.asarray(r, np.float32) for r in resized])
