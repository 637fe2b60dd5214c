"""What a network's file does not say by itself: bands, units, normalisation, classes: `Description`.

It comes from a YAML or JSON file, from flags, and from the metadata that Deepness and GeoDeep models carry; what is
said later overrides what was said before.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import inf, isfinite
from pathlib import Path
from typing import Any, cast, get_args

from mmedge.bundle import LandClass
from mmedge.errors import UsageError
from mmedge.extras import need
from mmedge.geo_io.bands import band_name, sensor_name
from mmedge.geo_io.rasters.matching import UNIT_OF
from mmedge.modality import Modality, Unit

# Paul Tol's muted scheme (technical note SRON/EPS/TN/09-002): apart from one another for colour-blind eyes too.
PALETTE = ("332288", "88ccee", "44aa99", "117733", "999933", "ddcc77", "cc6677", "882255", "aa4499", "dddddd")
KEYS = {
    "name",
    "description",
    "license",
    "gsd_m",
    "inputs",
    "classes",
    "window_px",
    "step_px",
}
INPUT_KEYS = {"tensor", "bands", "unit", "mean", "std", "fill"}
SHOWN = "`mmedge bundle create --help` shows how it is said"


@dataclass(frozen=True, slots=True, kw_only=True)
class SensorInput:
    """One image input: the network sees (x - mean) / std of the bands in `modality.unit`; invalid pixels are `fill`.

    `mean`, `std` and `fill` hold a value for each band. `tensor` None: the input of the sensor's name, else the next.
    """

    modality: Modality
    tensor: str | None
    mean: tuple[float, ...]
    std: tuple[float, ...]
    fill: tuple[float, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Description:
    """`classes` in the order of the network's outputs. `window_px`, `step_px` None: as measured."""

    name: str
    text: str
    license: str
    inputs: tuple[SensorInput, ...]
    classes: tuple[LandClass, ...]
    window_px: int | None
    step_px: int | None


def read_description(path: Path) -> dict[str, Any]:
    """A description as it is written in a YAML or JSON file, not yet checked."""
    try:
        text = path.read_text(encoding="utf-8")
        found = json.loads(text) if path.suffix.lower() == ".json" else need("yaml").safe_load(text)
    except OSError as err:
        raise UsageError(f"cannot read `{path}`: {err.strerror}", hint="--describe FILE.yaml") from None
    except ValueError as err:
        raise UsageError(f"`{path}` is not JSON: {err}", hint=SHOWN) from None
    except need("yaml").YAMLError as err:
        raise UsageError(f"`{path}` is not YAML: {err}", hint=SHOWN) from None
    if not isinstance(found, dict):
        raise UsageError(f"`{path}` holds no mapping", hint=SHOWN)
    return found


def merged(*parts: Mapping[str, Any]) -> dict[str, Any]:
    """Descriptions laid over one another, sensor by sensor; None says nothing. The sensors of a later one that names
    any are all there are.
    """
    out: dict[str, Any] = {}
    for part in parts:
        for key, value in part.items():
            if key == "inputs" and value:
                earlier, told = out.get("inputs", {}), _mapping(value, "`inputs`")
                value = {s: {**earlier.get(s, {}), **_said(_mapping(f, f"`{s}`"))} for s, f in told.items()}
            if value not in (None, {}, [], ()):
                out[key] = value
    return out


def _said(fields: Mapping[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in fields.items() if value not in (None, [], ())}


def parse_description(told: Mapping[str, Any], *, name: str) -> Description:
    """Check a description. Raises UsageError with what is missing or wrong."""
    _known(told, KEYS, "a description")
    inputs = told.get("inputs") or {}
    if not inputs:
        raise UsageError("no bands were named", hint="--bands optical=B02,B03,B04,B08 for each input of the network")
    classes = _listed(told, "classes")
    if not classes:
        raise UsageError("no classes were named", hint="--classes water,trees,crops in the order of the outputs")
    legend = tuple(_class(i, c) for i, c in enumerate(classes))
    for what, of in (("value", [c.value for c in legend]), ("name", [c.name for c in legend])):
        if len(set(of)) < len(of):
            raise UsageError(f"two classes have the same {what}: {of}", hint="--classes water,trees,crops")
    return Description(
        name=str(told.get("name", name)),
        text=str(told.get("description", "")),
        license=str(told.get("license", "other")),
        inputs=tuple(_input(sensor_name(str(s)), fields, told.get("gsd_m")) for s, fields in inputs.items()),
        classes=legend,
        window_px=_whole(told.get("window_px"), "window_px"),
        step_px=_whole(told.get("step_px"), "step_px"),
    )


def _input(sensor: str, fields: Mapping[str, Any], gsd_m: Any) -> SensorInput:
    _known(fields, INPUT_KEYS, f"`{sensor}`")
    bands = tuple(band_name(str(band)) for band in _listed(fields, "bands"))
    unit = str(fields.get("unit") or UNIT_OF.get(sensor, "raw"))
    if unit not in get_args(Unit):
        raise UsageError(f"`{sensor}`: no unit `{unit}`", hint=f"--input-unit {sensor}={'|'.join(get_args(Unit))}")
    if not bands:
        raise UsageError(f"`{sensor}` has no bands", hint=f"--bands {sensor}=B1,B2,...")
    mean = _each(fields.get("mean", 0.0), bands, f"{sensor}: mean")
    std = _each(fields.get("std", 1.0), bands, f"{sensor}: std")
    if len(set(bands)) < len(bands):
        raise UsageError(f"`{sensor}` has a band twice: {', '.join(bands)}", hint=f"--bands {sensor}=B1,B2,...")
    if min(std) <= 0:
        raise UsageError(f"`{sensor}`: std must be above 0", hint=f"--std {sensor}=...")
    return SensorInput(
        modality=Modality(name=sensor, bands=bands, unit=cast(Unit, unit), gsd_m=_gsd(gsd_m)),
        tensor=fields.get("tensor"),
        mean=mean,
        std=std,
        fill=_each(fields.get("fill", list(mean)), bands, f"{sensor}: fill"),
    )


def _gsd(value: Any) -> float:
    try:
        gsd_m = float(value)
    except (TypeError, ValueError):
        raise UsageError("how large are the network's pixels?", hint="--gsd 10 [metres]") from None
    if not 0 < gsd_m < inf:
        raise UsageError(f"pixels of {gsd_m} m", hint="--gsd 10 [metres]")
    return gsd_m


def _each(value: Any, bands: tuple[str, ...], what: str) -> tuple[float, ...]:
    """A number for each band from one number or a list of them."""
    try:
        values = [float(v) for v in (value if isinstance(value, (list, tuple)) else [value])]
    except (TypeError, ValueError):
        raise UsageError(f"{what}: `{value}` is not a number a band", hint=SHOWN) from None
    if not all(map(isfinite, values)):
        raise UsageError(f"{what}: `{value}` is not finite", hint="a number, or one a band")
    values = values * len(bands) if len(values) == 1 else values
    if len(values) != len(bands):
        raise UsageError(f"{what}: {len(values)} values for {len(bands)} bands", hint="one value, or one a band")
    return tuple(values)


def _class(index: int, told: Any) -> LandClass:
    """A class from its name alone, or from {value, name, color}."""
    fields = told if isinstance(told, Mapping) else {"name": str(told)}
    _known(fields, {"value", "name", "color"}, f"class {index}")
    color = str(fields.get("color") or PALETTE[index % len(PALETTE)]).removeprefix("#")
    value = _whole(fields.get("value", index), "class value")
    try:
        red, green, blue = bytes.fromhex(color)
    except ValueError:
        raise UsageError(f"`{color}` is no colour", hint="six hexadecimal digits, such as 1f78b4") from None
    if value is None or not 0 <= value < 255 or not fields.get("name"):
        raise UsageError(f"class {index} needs a name, and a value from 0 to 254", hint=SHOWN)
    return LandClass(value, str(fields["name"]), (red, green, blue))


def _mapping(value: Any, what: str) -> Mapping[str, Any]:
    if not isinstance(value, Mapping):
        raise UsageError(f"{what} is no mapping: {value!r}", hint=SHOWN)
    return value


def _listed(fields: Mapping[str, Any], key: str) -> Sequence[Any]:
    value = fields.get(key) or ()
    if not isinstance(value, (list, tuple)):
        raise UsageError(f"`{key}` is no list: {value!r}", hint=SHOWN)
    return value


def _whole(value: Any, what: str) -> int | None:
    if value is None:
        return None
    try:
        return int(value)
    except (TypeError, ValueError):
        raise UsageError(f"{what}: `{value}` is no whole number", hint=SHOWN) from None


def _known(fields: Mapping[str, Any], keys: set[str], what: str) -> None:
    if unknown := sorted(set(map(str, _mapping(fields, what))) - keys):
        raise UsageError(f"{what} has no field `{unknown[0]}`", hint=f"known are {', '.join(sorted(keys))}")
