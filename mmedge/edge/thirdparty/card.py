"""model.json of a wrapped network. It says what is known, and no more."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from mmedge.bundle import SCHEMA, Tiling
from mmedge.edge.item import NODATA, bands_of, feature, inputs_of, modality_facts, output_of
from mmedge.edge.thirdparty.description import Description, SensorInput
from mmedge.edge.thirdparty.graph import Head

UNKNOWN = (
    "A third party's network, wrapped by mmedge. Its accuracy was not measured; a sensor that is missing is filled "
    "with its mean, which the network may never have seen in training."
)


def item(
    described: Description, head: Head, tiling: Tiling, field: dict[str, Any] | None, parameters: int
) -> dict[str, Any]:
    """The STAC item without its assets. Where and when the network is valid is not known: no geometry, all of time."""
    task = "scene-classification" if head.whole else "semantic-segmentation"
    modalities = [s.modality for s in described.inputs]
    facts = {
        "description": described.text or UNKNOWN,
        "datetime": None,
        "start_datetime": "1900-01-01T00:00:00Z",
        "end_datetime": "9999-12-31T23:59:59Z",
        "license": described.license,
        "bands": bands_of(modalities),
        "mlm:name": described.name,
        "mlm:architecture": "unknown",
        "mlm:tasks": [task],
        "mlm:framework": "ONNX",
        "mlm:total_parameters": parameters,
        "mlm:pretrained": True,
        "mlm:accelerator": None,
        "mlm:input": [entry for s in described.inputs for entry in _inputs(s, tiling.window_px)],
        "mlm:output": [output_of(described.classes, tiling.window_px, task=task)],
        "mmedge:schema": SCHEMA,
        "mmedge:modalities": modality_facts(modalities),
        "mmedge:tiling": asdict(tiling),
        "mmedge:field": field,
        "mmedge:nodata": NODATA,
        "mmedge:accuracy": {},
    }
    return feature(described.name, {"geometry": None}, facts)


def _inputs(sensor: SensorInput, window_px: int) -> list[dict[str, Any]]:
    scaling = [{"type": "z-score", "mean": m, "stddev": s} for m, s in zip(sensor.mean, sensor.std, strict=True)]
    return inputs_of(sensor.modality, window_px, scaling, masked=f"; elsewhere bands become {list(sensor.fill)}")
