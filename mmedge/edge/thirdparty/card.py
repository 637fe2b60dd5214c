"""model.json of a wrapped network: a STAC item of the MLM extension. It says what is known, and no more."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from mmedge.bundle import SCHEMA, Tiling
from mmedge.edge.thirdparty.description import Description, SensorInput
from mmedge.edge.thirdparty.graph import Head

ROLES = {".onnx": ["mlm:model"], ".safetensors": ["mlm:weights"]}
NODATA = 255
UNKNOWN = (
    "A third party's network, wrapped by mmedge. Its accuracy was not measured; a sensor that is missing is filled "
    "with its mean, which the network may never have seen in training."
)


def bands(described: Description) -> list[dict[str, str]]:
    """Every band that the network reads. STAC 1.1 wants them at an asset too."""
    return [{"name": band} for s in described.inputs for band in s.modality.bands]


def item(
    described: Description, head: Head, tiling: Tiling, field: dict[str, Any] | None, parameters: int
) -> dict[str, Any]:
    """The STAC item without its assets. Where and when the network is valid is not known: no geometry, all of time."""
    task = "scene-classification" if head.whole else "semantic-segmentation"
    return {
        "type": "Feature",
        "stac_version": "1.1.0",
        "stac_extensions": [
            "https://stac-extensions.github.io/mlm/v1.5.2/schema.json",
            "https://stac-extensions.github.io/classification/v1.1.0/schema.json",
            "https://stac-extensions.github.io/file/v2.1.0/schema.json",
        ],
        "id": described.name,
        "geometry": None,
        "links": [],
        "properties": {
            "description": described.text or UNKNOWN,
            "datetime": None,
            "start_datetime": "1900-01-01T00:00:00Z",
            "end_datetime": "9999-12-31T23:59:59Z",
            "license": described.license,
            "bands": bands(described),
            "mlm:name": described.name,
            "mlm:architecture": "unknown",
            "mlm:tasks": [task],
            "mlm:framework": "ONNX",
            "mlm:total_parameters": parameters,
            "mlm:pretrained": True,
            "mlm:accelerator": None,
            "mlm:input": [entry for s in described.inputs for entry in _inputs(s, tiling.window_px)],
            "mlm:output": [_output(described, head, tiling.window_px, task)],
            "mmedge:schema": SCHEMA,
            "mmedge:modalities": [{**asdict(s.modality), "bands": list(s.modality.bands)} for s in described.inputs],
            "mmedge:tiling": asdict(tiling),
            "mmedge:field": field,
            "mmedge:nodata": NODATA,
            "mmedge:accuracy": {},
        },
    }


def _inputs(sensor: SensorInput, side: int) -> list[dict[str, Any]]:
    modality = sensor.modality
    return [
        {
            "name": modality.name,
            "description": f"In {modality.unit}. The graph applies value_scaling itself.",
            "bands": list(modality.bands),
            "input": _structure([-1, modality.channels, side, side], ["batch", "bands", "height", "width"], "float32"),
            "value_scaling": [
                {"type": "z-score", "mean": m, "stddev": s} for m, s in zip(sensor.mean, sensor.std, strict=True)
            ],
            "resize_type": None,
        },
        {
            "name": f"{modality.name}_valid",
            "description": f"Boolean, true where the pixel may be used; elsewhere bands become {list(sensor.fill)}.",
            "bands": [],
            "input": _structure([-1, 1, side, side], ["batch", "channel", "height", "width"], "other"),
        },
    ]


def _output(described: Description, head: Head, side: int, task: str) -> dict[str, Any]:
    return {
        "name": "logits",
        "tasks": [task],
        "bands": [],
        "result": _structure([-1, head.classes, side, side], ["batch", "class", "height", "width"], "float32"),
        "classification:classes": [
            {
                "value": c.value,
                "name": c.name,
                "description": c.name.capitalize(),
                "color_hint": bytes(c.color).hex().upper(),
            }
            for c in described.classes
        ],
    }


def _structure(shape: list[int], order: list[str], dtype: str) -> dict[str, Any]:
    return {"shape": shape, "dim_order": order, "data_type": dtype}
