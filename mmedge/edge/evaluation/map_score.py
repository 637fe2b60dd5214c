"""A finished map against reference points, polygons or a raster."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import rasterio

from mmedge.bundle import LandClass
from mmedge.edge.evaluation.area import Z95, AreaEstimate, estimate_area
from mmedge.edge.evaluation.metrics import Confusion
from mmedge.errors import SceneError, UsageError
from mmedge.geo_io.ground import pixel_area_m2
from mmedge.geo_io.labels import (
    LabelFile,
    index_of,
    legend_of,
    read_labels,
    read_units,
    unit_pixels,
    values_of,
)
from mmedge.geo_io.rasters.header import inspect_raster
from mmedge.grid import Grid

Ints = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]


def score_map(path: Path, labels: LabelFile, *, warn: Callable[[str], None]) -> dict[str, Any]:
    """Figures of a map, as JSON of schema `mmedge.map_score/1`.

    A point or a polygon is one unit of the sample, mapped as most of its pixels are; from them come class areas and
    confidence intervals. A raster is no sample: it gives the figures of its pixels alone.
    """
    grid = inspect_raster(path).grid
    with rasterio.open(path) as src:
        if np.dtype(src.dtypes[0]).kind not in "iu":
            raise UsageError(f"`{path}` is no map of classes", hint="mmedge evaluate MODEL --scene SCENE ...")
        codes, there = src.read(1), src.read_masks(1) > 0
    classes = _classes(path, labels)
    mapped = np.full(codes.shape, -1, np.int16)
    for i, c in enumerate(classes):
        mapped[there & (codes == c.value)] = i
    number = len(classes)
    if labels.vector:
        reference, found = _units(labels, grid, mapped, classes)
    else:
        known = read_labels(labels, grid, classes)
        some = (known >= 0) & (mapped >= 0)
        reference, found = known[some].astype(np.int64), mapped[some].astype(np.int64)
    if not len(reference):
        raise SceneError(f"no label of `{labels.path}` lies on the map", hint=f"mmedge info {path}")
    confusion = Confusion.of(reference, found, number)
    document = {
        "schema": "mmedge.map_score/1",
        "map": path.name,
        "labels": labels.path.name,
        "unit": "polygon or point" if labels.vector else "pixel",
        "units": confusion.pixels,
        "classes": [c.name for c in classes],
        "confusion": confusion.counts.tolist(),
        "oa": round(confusion.overall_accuracy, 4),
        "aa": round(confusion.average_accuracy, 4),
        "kappa": round(confusion.kappa, 4),
        "macro_f1": round(confusion.macro_f1, 4),
        "miou": round(confusion.mean_iou, 4),
    }
    if labels.vector:
        area = np.broadcast_to(pixel_area_m2(grid)[:, None] / 1e4, mapped.shape)
        hectares = np.bincount(mapped[mapped >= 0], area[mapped >= 0], number).astype(np.float64)
        document["area_adjusted"] = _areas(confusion, hectares, classes, warn)
    return document


def _units(
    labels: LabelFile, grid: Grid, mapped: npt.NDArray[np.int16], classes: Sequence[LandClass]
) -> tuple[Ints, Ints]:
    """Reference and map class (N,) of each unit that has a mapped pixel."""
    units = read_units(labels, grid)
    where = unit_pixels(units, grid)
    some = (where >= 0) & (mapped >= 0)
    counts = np.zeros((len(units), len(classes)), np.int64)
    np.add.at(counts, (where[some], mapped[some]), 1)
    truth = np.array([index_of(unit.value, classes) for unit in units], np.int64)
    there = counts.sum(1) > 0
    return truth[there], counts[there].argmax(1)


def _classes(path: Path, labels: LabelFile) -> list[LandClass]:
    """The map's classes, and those that only the reference knows."""
    classes = list(legend_of([LabelFile(path=path)]))
    with rasterio.open(path) as src:
        names = src.tags()
    for value in values_of(labels):
        if index_of(value, classes) < 0:
            free = value if isinstance(value, int) else max(c.value for c in classes) + 1
            classes.append(LandClass(free, names.get(f"CLASS_{value}", str(value)), (128, 128, 128)))
    return classes


def _areas(
    confusion: Confusion, hectares: Floats, classes: Sequence[LandClass], warn: Callable[[str], None]
) -> dict[str, Any]:
    """Olofsson's estimates with 95 % intervals. Classes of the map with fewer than two units are left out, and said."""
    counts = confusion.counts.T.copy()  # rows are the map's strata there
    poor = (hectares > 0) & (counts.sum(1) < 2)
    for i in np.flatnonzero(poor).tolist():
        warn(
            f"class `{classes[i].name}` covers {hectares[i] / hectares.sum():.1%} of the map and has "
            f"{counts[i].sum()} reference units, two are needed: areas and accuracies are those of the rest"
        )
    counts[poor], strata = 0, np.where(poor, 0, hectares)
    if not strata.any():
        raise UsageError("no class of the map has two reference units", hint="add reference points or polygons")
    found = estimate_area(counts, strata)
    total = float(strata.sum())
    return {
        "method": "Olofsson et al. 2014, stratified by the map's classes",
        "overall": _figure(found.overall, found.overall_se),
        "classes": {c.name: _by_class(found, i, total, hectares[i]) for i, c in enumerate(classes)},
    }


def _by_class(found: AreaEstimate, i: int, total_ha: float, mapped_ha: float) -> dict[str, Any]:
    return {
        "mapped_ha": round(mapped_ha, 4),
        "area_ha": _figure(found.area[i] * total_ha, found.area_se[i] * total_ha),
        "user": _figure(found.user[i], found.user_se[i]),
        "producer": _figure(found.producer[i], found.producer_se[i]),
    }


def _figure(value: float, error: float) -> list[float | None]:
    """[estimate, half width of its 95 % interval]; null where it cannot be judged."""
    return [None if np.isnan(v) else round(float(v), 4) for v in (value, Z95 * error)]
