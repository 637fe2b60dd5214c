"""model.json of any network: a STAC item of the MLM extension, from what the network is and was trained on."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

from mmedge.bundle import SCHEMA, LandClass, Tiling
from mmedge.modality import DERIVED_CHANNELS, Modality

NODATA = 255
ROLES = {".onnx": ["mlm:model"], ".safetensors": ["mlm:weights"], "": ["license"]}
EXTENSIONS = [
    "https://stac-extensions.github.io/mlm/v1.5.2/schema.json",
    "https://stac-extensions.github.io/classification/v1.1.0/schema.json",
    "https://stac-extensions.github.io/file/v2.1.0/schema.json",
]
Box = Sequence[float]  # west, south, east, north
Scaling = Mapping[str, Sequence[Mapping[str, Any]]]


def bands_of(modalities: Sequence[Modality]) -> list[dict[str, str]]:
    return [{"name": band} for modality in modalities for band in modality.bands]


def model_item(
    name: str,
    modalities: Sequence[Modality],
    classes: Sequence[LandClass],
    tiling: Tiling,
    *,
    boxes: Sequence[Box],
    scaling: Scaling,
    properties: Mapping[str, Any],
) -> dict[str, Any]:
    """The STAC item without its assets. `boxes`: where the training scenes lie; `scaling`: MLM's, by sensor."""
    west, south, east, north = zip(*boxes, strict=True)
    return {
        "type": "Feature",
        "stac_version": "1.1.0",
        "stac_extensions": EXTENSIONS,
        "id": name,
        "bbox": [min(west), min(south), max(east), max(north)],
        "geometry": {"type": "MultiPolygon", "coordinates": [[_ring(*box)] for box in boxes]},
        "links": [],
        "properties": {
            **properties,
            "bands": bands_of(modalities),
            "mlm:name": name,
            "mlm:tasks": ["semantic-segmentation"],
            "mlm:framework": "ONNX",
            "mlm:batch_size_suggestion": 8,
            "mlm:accelerator": None,
            "mlm:input": [entry for m in modalities for entry in _inputs(m, tiling.window_px, scaling[m.name])],
            "mlm:output": [_output(classes, tiling.window_px)],
            "mmedge:schema": SCHEMA,
            "mmedge:modalities": [{**asdict(m), "bands": list(m.bands)} for m in modalities],
            "mmedge:tiling": asdict(tiling),
            "mmedge:nodata": NODATA,
        },
    }


def _inputs(modality: Modality, window_px: int, scaling: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    size = [window_px, window_px]
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
            "value_scaling": list(scaling),
            "resize_type": None,
        },
        {
            "name": f"{modality.name}_valid",
            "description": "Boolean, true where the pixel may be used.",
            "bands": [],
            "input": _structure([-1, 1, *size], ["batch", "channel", "height", "width"], "other"),
        },
    ]


def _output(classes: Sequence[LandClass], window_px: int) -> dict[str, Any]:
    return {
        "name": "logits",
        "tasks": ["semantic-segmentation"],
        "bands": [],
        "result": _structure(
            [-1, len(classes), window_px, window_px], ["batch", "class", "height", "width"], "float32"
        ),
        "classification:classes": [
            {
                "value": c.value,
                "name": c.name,
                "description": c.name.capitalize(),
                "color_hint": bytes(c.color).hex().upper(),
            }
            for c in classes
        ],
    }


def _structure(shape: list[int], order: list[str], dtype: str) -> dict[str, Any]:
    return {"shape": shape, "dim_order": order, "data_type": dtype}


def _ring(west: float, south: float, east: float, north: float) -> list[list[float]]:
    return [[west, south], [east, south], [east, north], [west, north], [west, south]]
