"""What ONNX files say of themselves: the `metadata_props` of Deepness and GeoDeep models.

https://qgis-plugin-deepness.readthedocs.io: values are JSON; inputs are RGB pictures of 8 bits, divided by 255 and
then, where `standardization_mean` and `standardization_std` are given, standardised.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from mmedge.errors import UsageError

RGB = ["B04", "B03", "B02"]
FULL = 255.0


def metadata_description(props: Mapping[str, str], channels: int) -> dict[str, Any]:
    """The part of a description that a model's metadata give; {} where they are not in Deepness' manner.

    Raises UsageError for a model that draws boxes or numbers, not classes.
    """
    told = {key: _json(value) for key, value in props.items()}
    kind = told.get("model_type")
    if kind is None and "class_names" not in told:
        return {}
    if kind is not None and str(kind).lower() not in ("segmentor", "recognition"):
        raise UsageError(f"a `{kind}` gives no class for each pixel", hint="only segmentation networks become bundles")
    out: dict[str, Any] = {"classes": _classes(told.get("class_names"))}
    if "resolution" in told:
        out["gsd_m"] = float(told["resolution"]) / 100
    if channels == len(RGB):
        mean, std = told.get("standardization_mean", 0.0), told.get("standardization_std", 1.0)
        out["inputs"] = {"optical": {"bands": RGB, "unit": "raw", "mean": _times(mean), "std": _times(std)}}
    return out


def _json(value: str) -> Any:
    try:
        return json.loads(value)
    except ValueError:
        return value


def _classes(names: Any) -> list[dict[str, Any]]:
    """Deepness writes {id: name}, or [{id: name}] with one entry a head."""
    heads = names if isinstance(names, list) else [names]
    if len(heads) != 1 or not isinstance(heads[0], dict):
        return []
    return [{"value": int(i), "name": name} for i, name in sorted(heads[0].items(), key=lambda entry: int(entry[0]))]


def _times(value: Any) -> list[float]:
    return [FULL * float(v) for v in (value if isinstance(value, list) else [value])]
