"""model.json of the default bundle: a STAC item of the MLM extension, and the licence notices beside it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import rasterio
from rasterio.warp import transform_bounds

from mmedge.bundle import SCHEMA, Tiling
from mmedge.edge.models.mamol import SCALE, SQUASH, MaMOL
from mmedge.edge.training.samples import CLASS_VALUES, OPTICAL, SAR
from mmedge.edge.training.score import HALO_PX, WINDOW_PX
from mmedge.modality import DERIVED_CHANNELS, Modality

NAME = "mamol-terra"
NODATA = 255
ROLES = {".onnx": ["mlm:model"], ".safetensors": ["mlm:weights"], "": ["license"]}
MODALITIES = (
    Modality(name="optical", bands=OPTICAL, unit="reflectance", gsd_m=10.0),
    Modality(name="sar", bands=SAR, unit="dB", gsd_m=10.0),
    Modality(name="elevation", bands=("DEM",), unit="m", gsd_m=10.0, derive="relief"),
)
TILING = Tiling(kind="attention", window_px=WINDOW_PX, halo_px=HALO_PX, align_px=WINDOW_PX - 2 * HALO_PX, token_px=8)
BANDS = [{"name": band} for modality in MODALITIES for band in modality.bands]
FIELDS = {".safetensors": {"bands": BANDS}}  # STAC 1.1 allows bands in an item's properties where an asset has some
CLASSES = {
    1: ("water", "419bdf"),
    2: ("trees", "397d49"),
    3: ("flooded vegetation", "7a87c6"),
    4: ("crops", "e49635"),
    5: ("built area", "c4281b"),
    6: ("bare ground", "a59b8f"),
    9: ("rangeland", "e3e2c3"),
}
DESCRIPTION = (
    "Small demonstration model: land cover in 7 classes at 10 m from whatever of Sentinel-2, Sentinel-1 and a digital "
    "elevation model is there. It was trained on three scenes of 2.24 km and 677 single pixels: it is no global "
    "land-cover model, and no model that is could be made from these data. Its labels are themselves a model product."
)
LICENSE = """\
Weights of mamol-terra: Creative Commons Attribution-ShareAlike 4.0 International (CC-BY-SA-4.0)
https://creativecommons.org/licenses/by-sa/4.0/legalcode

Trained by the mmedge maintainers on:
- TerraMesh example scenes (B. Blumenstiel et al., "TerraMesh: A Planetary Mosaic of Multimodal Earth Observation Data",
  arXiv:2504.11172), CC-BY-SA-4.0, from the public repository IBM/terramind. Contains modified Copernicus Sentinel data;
  elevation: Copernicus DEM; labels: ESRI / Impact Observatory annual land cover (CC-BY-4.0).
- Labelled pixels of the public repository WorldCereal/presto-worldcereal. Contains modified Copernicus Sentinel data
  2016-2021; labels: ESA WorldCover (CC-BY-4.0).
- Shapes of holes: cloud masks of the public repository sentinel-hub/eo-learn (MIT). Contains modified Copernicus
  Sentinel data 2015-2017.

The frozen transformer inside is Galileo-nano (G. Tseng et al., arXiv:2502.09356), under the MIT licence:

"""


def item(model: MaMOL, scenes: Sequence[Path], accuracy: Mapping[str, Any]) -> dict[str, Any]:
    """The STAC item without its assets. `scenes`: folders of the training scenes; `accuracy`: what was measured."""
    boxes = [_box(folder / "LULC.tif") for folder in scenes]
    west, south, east, north = zip(*boxes, strict=True)
    return {
        "type": "Feature",
        "stac_version": "1.1.0",
        "stac_extensions": [
            "https://stac-extensions.github.io/mlm/v1.5.2/schema.json",
            "https://stac-extensions.github.io/classification/v1.1.0/schema.json",
            "https://stac-extensions.github.io/file/v2.1.0/schema.json",
        ],
        "id": NAME,
        "bbox": [min(west), min(south), max(east), max(north)],
        "geometry": {"type": "MultiPolygon", "coordinates": [[_ring(*box)] for box in boxes]},
        "links": [],
        "properties": {
            "title": "MaMOL on Galileo-nano, TerraMesh",
            "description": DESCRIPTION,
            "datetime": None,
            "start_datetime": "2016-01-01T00:00:00Z",
            "end_datetime": "2023-06-10T23:59:59Z",
            "license": "CC-BY-SA-4.0",
            "providers": [{"name": "The mmedge maintainers", "roles": ["producer", "processor"]}],
            "bands": BANDS,
            "mlm:name": NAME,
            "mlm:architecture": "MaMOL",
            "mlm:tasks": ["semantic-segmentation"],
            "mlm:framework": "ONNX",
            "mlm:total_parameters": sum(p.numel() for p in model.parameters()),
            "mlm:pretrained": True,
            "mlm:pretrained_source": "Galileo-nano (nasaharvest/galileo, MIT), frozen",
            "mlm:batch_size_suggestion": 8,
            "mlm:accelerator": None,
            "mlm:hyperparameters": asdict(model.config),
            "mlm:input": [entry for modality in MODALITIES for entry in _inputs(modality)],
            "mlm:output": [_output()],
            "mmedge:schema": SCHEMA,
            "mmedge:modalities": [_modality(m) for m in MODALITIES],
            "mmedge:tiling": asdict(TILING),
            "mmedge:nodata": NODATA,
            "mmedge:accuracy": dict(accuracy),
        },
    }


def _modality(modality: Modality) -> dict[str, Any]:
    fields = asdict(modality)
    return {**fields, "bands": list(fields["bands"])}


def _inputs(modality: Modality) -> list[dict[str, Any]]:
    size = [WINDOW_PX, WINDOW_PX]
    derived = DERIVED_CHANNELS[modality.derive] if modality.derive else ()
    bands: list[Any] = [
        {"name": channel, "format": "mmedge", "expression": f"{modality.derive}({', '.join(modality.bands)})[{i}]"}
        for i, channel in enumerate(derived)
    ]
    return [
        {
            "name": modality.name,
            "description": f"In {modality.unit}. The graph applies value_scaling itself.",
            "bands": bands or list(modality.bands),
            "input": _structure([-1, modality.channels, *size], ["batch", "bands", "height", "width"], "float32"),
            "value_scaling": _scaling(modality.name),
            "resize_type": None,
        },
        {
            "name": f"{modality.name}_valid",
            "description": "Boolean, true where the pixel may be used.",
            "bands": [],
            "input": _structure([-1, 1, *size], ["batch", "channel", "height", "width"], "other"),
        },
    ]


def _scaling(sensor: str) -> list[dict[str, Any]]:
    squash = SQUASH.get(sensor)
    entries: list[dict[str, Any]] = []
    for i, (shift, div) in enumerate(zip(*SCALE[sensor], strict=True)):
        if squash and squash[i]:
            formula = f"(x / (1 + abs(x) * {squash[i]}) - {shift}) / {div}"
            entries.append({"type": "processing", "format": "python", "expression": formula})
        else:
            entries.append({"type": "z-score", "mean": shift, "stddev": div})
    return entries


def _output() -> dict[str, Any]:
    classes = [CLASSES[value] for value in CLASS_VALUES]
    return {
        "name": "logits",
        "tasks": ["semantic-segmentation"],
        "bands": [],
        "result": _structure(
            [-1, len(classes), WINDOW_PX, WINDOW_PX], ["batch", "class", "height", "width"], "float32"
        ),
        "classification:classes": [
            {"value": value, "name": name, "description": name.capitalize(), "color_hint": color.upper()}
            for value, (name, color) in zip(CLASS_VALUES, classes, strict=True)
        ],
    }


def _structure(shape: list[int], order: list[str], dtype: str) -> dict[str, Any]:
    return {"shape": shape, "dim_order": order, "data_type": dtype}


def _box(path: Path) -> tuple[float, float, float, float]:
    with rasterio.open(path) as src:
        west, south, east, north = transform_bounds(src.crs, "EPSG:4326", *src.bounds)
    return round(west, 6), round(south, 6), round(east, 6), round(north, 6)


def _ring(west: float, south: float, east: float, north: float) -> list[list[float]]:
    return [[west, south], [east, south], [east, north], [west, north], [west, south]]
