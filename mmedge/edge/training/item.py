"""model.json of a network that was trained here: what it is, and where it was trained."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

from mmedge.bundle import SCHEMA, LandClass, Tiling
from mmedge.edge.item import NODATA, bands_of, feature, inputs_of, modality_facts, output_of
from mmedge.modality import Modality

Box = Sequence[float]  # west, south, east, north
Scaling = Mapping[str, Sequence[Mapping[str, Any]]]


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
    place = {
        "bbox": [min(west), min(south), max(east), max(north)],
        "geometry": {"type": "MultiPolygon", "coordinates": [[_ring(*box)] for box in boxes]},
    }
    facts = {
        **properties,
        "bands": bands_of(modalities),
        "mlm:name": name,
        "mlm:tasks": ["semantic-segmentation"],
        "mlm:framework": "ONNX",
        "mlm:batch_size_suggestion": 8,
        "mlm:accelerator": None,
        "mlm:input": [entry for m in modalities for entry in inputs_of(m, tiling.window_px, scaling[m.name])],
        "mlm:output": [output_of(classes, tiling.window_px)],
        "mmedge:schema": SCHEMA,
        "mmedge:modalities": modality_facts(modalities),
        "mmedge:tiling": asdict(tiling),
        "mmedge:nodata": NODATA,
    }
    return feature(name, place, facts)


def _ring(west: float, south: float, east: float, north: float) -> list[list[float]]:
    return [[west, south], [east, south], [east, north], [west, north], [west, south]]
