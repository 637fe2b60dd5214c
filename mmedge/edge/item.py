"""The parts of a bundle's model.json that every network shares: a STAC item of the MLM extension."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

from mmedge.bundle import LandClass
from mmedge.modality import DERIVED_CHANNELS, Modality

NODATA = 255
ROLES = {".onnx": ["mlm:model"], ".safetensors": ["mlm:weights"], "": ["license"]}
EXTENSIONS = [
    "https://stac-extensions.github.io/mlm/v1.5.2/schema.json",
    "https://stac-extensions.github.io/classification/v1.1.0/schema.json",
    "https://stac-extensions.github.io/file/v2.1.0/schema.json",
]


def feature(name: str, place: Mapping[str, Any], properties: Mapping[str, Any]) -> dict[str, Any]:
    """The STAC item without its assets. `place`: its geometry, and its bbox if it has a geometry."""
    return {
        "type": "Feature",
        "stac_version": "1.1.0",
        "stac_extensions": EXTENSIONS,
        "id": name,
        **place,
        "links": [],
        "properties": dict(properties),
    }


def bands_of(modalities: Sequence[Modality]) -> list[dict[str, str]]:
    """Every band that the network reads. STAC 1.1 wants them at an asset too."""
    return [{"name": band} for modality in modalities for band in modality.bands]


def modality_facts(modalities: Sequence[Modality]) -> list[dict[str, Any]]:
    """What `open_bundle` makes the modalities from again."""
    return [{**asdict(m), "bands": list(m.bands)} for m in modalities]


def inputs_of(
    modality: Modality, window_px: int, scaling: Sequence[Mapping[str, Any]], *, masked: str = ""
) -> list[dict[str, Any]]:
    """The input of a sensor and that of its mask. `scaling`: MLM's; `masked`: more about what the mask does."""
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
            "input": _images(modality.channels, "bands", window_px, "float32"),
            "value_scaling": list(scaling),
            "resize_type": None,
        },
        {
            "name": f"{modality.name}_valid",
            "description": f"Boolean, true where the pixel may be used{masked}.",
            "bands": [],
            "input": _images(1, "channel", window_px, "other"),
        },
    ]


def output_of(classes: Sequence[LandClass], window_px: int, *, task: str = "semantic-segmentation") -> dict[str, Any]:
    """The logits of every pixel, with what their classes are called and how they are drawn."""
    return {
        "name": "logits",
        "tasks": [task],
        "bands": [],
        "result": _images(len(classes), "class", window_px, "float32"),
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


def _images(channels: int, axis: str, side: int, dtype: str) -> dict[str, Any]:
    return {
        "shape": [-1, channels, side, side],
        "dim_order": ["batch", axis, "height", "width"],
        "data_type": dtype,
    }
