"""A model as a folder that can be trusted: `model.json` (a STAC MLM item), ONNX graphs, weights. No pickle anywhere.

Layout::

    model.json                          inputs, classes, tiling, accuracy per availability, sha256 of every other file
    LICENSE                             of the weights
    graphs/optical+sar.fp32.onnx        serves windows whose tokens all see exactly these modalities
    graphs/optical+sar.mixed.fp32.onnx  the same towers, with an availability for each token
    graphs/weights.safetensors          float weights, stored once: the graphs' ONNX external data

Inputs of a graph, for each modality `m` of its availability, in the model's order: `m` (B, C, H, W) float32 in model
units and `m_valid` (B, 1, H, W) bool, True = usable. Output: `logits` (B, classes, H, W) float32; where the property
`mmedge:recovered` is set, also `recovered` (B, modalities, H, W) uint8, 1 = recovered and believed.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from importlib.resources import files
from math import inf
from pathlib import Path, PurePosixPath
from typing import Any, Literal, get_args

from mmedge.errors import BundleError
from mmedge.modality import Availability, Modality

SCHEMA = "mmedge.bundle/1"
DEFAULT = "mamol-terra"
MAX_VALUE = 255  # maps are bytes
TilingKind = Literal["attention", "convolutional"]
TRACE_BITS = 8  # of the product `sensors`


@dataclass(frozen=True, slots=True)
class LandClass:
    """One class of a map: the value that is written, its name, its colour."""

    value: int
    name: str
    color: tuple[int, int, int]


@dataclass(frozen=True, slots=True, kw_only=True)
class Tiling:
    """Where the network's windows lie; lengths in pixels.

    `attention`: the window is fixed, its lattice is anchored at the CRS origin with step `stride_px`.
    `convolutional`: any window will do whose halo is at least `halo_px` (half the receptive field, measured at export)
    and whose origin lies on multiples of `align_px` (the network's stride).
    A token is `token_px` pixels wide (1 for convolutional networks): availability is decided for each token.
    `resizable`: any other window will do too that is a multiple of `align_px`, unless a modality is seen as `relief`.
    """

    kind: TilingKind
    window_px: int
    halo_px: int
    align_px: int
    token_px: int
    resizable: bool = False

    @property
    def stride_px(self) -> int:
        """Distance of neighbouring windows: each one answers for its central `stride_px` pixels."""
        return self.window_px - 2 * self.halo_px

    def __post_init__(self) -> None:
        if self.kind not in get_args(TilingKind):
            raise ValueError(f"kind must be one of {', '.join(get_args(TilingKind))}, got {self.kind!r}")
        lengths = (self.window_px, self.halo_px, self.align_px, self.token_px)
        if not all(isinstance(n, int) for n in lengths) or self.halo_px < 0 or min(self.align_px, self.token_px) < 1:
            raise ValueError(f"lengths are whole numbers of pixels, and only the halo may be 0, got {lengths}")
        if self.stride_px < 1:
            raise ValueError(f"a window of {self.window_px} px has no core within a halo of {self.halo_px} px")
        if self.stride_px % self.align_px or self.window_px % self.token_px:
            raise ValueError("stride_px must be a multiple of align_px, window_px one of token_px")


@dataclass(frozen=True, slots=True, kw_only=True)
class Bundle:
    """A verified model folder. `sha256` is that of model.json, which holds the checksum of every other file."""

    folder: Path
    name: str
    sha256: str
    modalities: tuple[Modality, ...]
    classes: tuple[LandClass, ...]
    tiling: Tiling
    nodata: int
    item: dict[str, Any]

    def __post_init__(self) -> None:
        values = [c.value for c in self.classes]
        if not self.order or len(set(self.order)) < len(self.order):
            raise ValueError(f"modalities have names of their own, got {self.order}")
        if not values or len({*values, self.nodata}) <= len(values):
            raise ValueError(f"classes and nodata have values of their own, got {values} and {self.nodata}")
        if not all(isinstance(v, int) and 0 <= v <= MAX_VALUE for v in (*values, self.nodata)):
            raise ValueError(f"values of a map are 0 to {MAX_VALUE}, got {values} and {self.nodata}")
        temperatures = self.item["properties"].get("mmedge:temperature", {}).values()
        if not all(0 < t < inf for t in temperatures):
            raise ValueError(f"temperatures are above 0, got {list(temperatures)}")
        if self.tiling.resizable and any(m.derive == "relief" for m in self.modalities):
            raise ValueError("`relief` depends on the whole window: a network that sees it takes windows of one size")

    @property
    def order(self) -> tuple[str, ...]:
        """Names of the modalities, in the order of availability bits."""
        return tuple(m.name for m in self.modalities)

    @property
    def recovers(self) -> bool:
        """Whether graphs say which sensors they recovered and believed, as a second output (DyMo)."""
        return bool(self.item["properties"].get("mmedge:recovered", False)) and 2 * len(self.order) <= TRACE_BITS

    @property
    def traces(self) -> tuple[str, ...]:
        """What a pixel of a map can be made from: the names of the bits of the product `sensors`."""
        return (*self.order, *(f"{name}-recovered" for name in self.order)) if self.recovers else self.order

    def modality(self, name: str) -> Modality:
        return self.modalities[self.order.index(name)]

    @property
    def mixed(self) -> bool:
        """Whether windows whose tokens see different sensors have graphs of their own; else the plain ones serve."""
        return any(".mixed." in href for href in self._hrefs())

    def precisions(self) -> tuple[str, ...]:
        """Precisions for which graphs are stored."""
        found = {href.split(".")[-2] for href in self._hrefs() if href.endswith(".onnx")}
        return tuple(sorted(found))

    def graph(self, availability: Availability, *, precision: str, mixed: bool) -> Path:
        """Path of the ONNX graph for an availability; `mixed`: the one that takes an availability for each token."""
        href = graph_href(availability, precision=precision, mixed=mixed)
        if href not in self._hrefs():
            raise BundleError(
                f"bundle `{self.name}` has no {precision} graph for `{availability}`",
                hint=f"mmedge info {self.folder}",
            )
        return self.folder / href

    def temperature(self, availability: Availability) -> float:
        """What logits are divided by, so that confidence is the share of pixels that are right; 1 where none is stored.

        Guo et al., "On Calibration of Modern Neural Networks", arXiv:1706.04599. Classes do not depend on it.
        """
        return float(self.item["properties"].get("mmedge:temperature", {}).get(str(availability), 1.0))

    def _hrefs(self) -> set[str]:
        return {asset["href"].removeprefix("./") for asset in self.item["assets"].values()}


def graph_href(availability: Availability, *, precision: str, mixed: bool) -> str:
    """Where in a bundle a graph lies."""
    return f"graphs/{availability}{'.mixed' if mixed else ''}.{precision}.onnx"


def open_bundle(model: str | Path = DEFAULT) -> Bundle:
    """Open and verify a bundle: the name of a built-in one, or the path of a folder.

    Raises BundleError where it is missing, damaged, of an unknown schema, or names a file outside its folder.
    """
    folder = _locate(model)
    path = folder / "model.json"
    try:
        raw = path.read_bytes()
        item = json.loads(raw)
    except OSError as err:
        raise BundleError(f"cannot read `{path}`: {err.strerror}", hint="mmedge info mamol-terra") from None
    except (ValueError, RecursionError) as err:
        raise BundleError(f"`{path}` is not JSON: {err}", hint="copy the bundle again") from None
    try:
        bundle = _parse(folder, item, hashlib.sha256(raw).hexdigest())
        _verify(bundle)
    except (LookupError, TypeError, ValueError, AttributeError, ArithmeticError) as err:
        raise BundleError(
            f"`{path}` is not a model of schema `{SCHEMA}`: {err!r}", hint="mmedge info mamol-terra"
        ) from None
    return bundle


def builtin_bundles() -> list[str]:
    """Names of the bundles that ship with the package."""
    return sorted(p.parent.name for p in _builtin_root().glob("*/model.json"))


def _builtin_root() -> Path:
    return Path(str(files("mmedge"))) / "bundles"


def _locate(model: str | Path) -> Path:
    folder = Path(model)
    if folder.is_dir():
        return folder
    builtin = _builtin_root() / str(model)
    if str(model) in builtin_bundles():
        return builtin
    raise BundleError(
        f"no model `{model}`: neither a folder nor one of {', '.join(builtin_bundles())}",
        hint="mmedge train and mmedge bundle create make such folders",
    )


def _parse(folder: Path, item: dict[str, Any], sha256: str) -> Bundle:
    p = item["properties"]
    if p["mmedge:schema"] != SCHEMA:
        raise ValueError(f"schema {p['mmedge:schema']!r}")
    return Bundle(
        folder=folder,
        name=str(p["mlm:name"]),
        sha256=sha256,
        modalities=tuple(Modality(**{**m, "bands": tuple(m["bands"])}) for m in p["mmedge:modalities"]),
        classes=tuple(
            LandClass(c["value"], c["name"], _rgb(c["color_hint"]))
            for c in p["mlm:output"][0]["classification:classes"]
        ),
        tiling=Tiling(**p["mmedge:tiling"]),
        nodata=p["mmedge:nodata"],
        item=item,
    )


def _rgb(color_hint: str) -> tuple[int, int, int]:
    red, green, blue = bytes.fromhex(color_hint)
    return red, green, blue


def _verify(bundle: Bundle) -> None:
    for asset in bundle.item["assets"].values():
        href = PurePosixPath(asset["href"])
        if href.is_absolute() or ".." in href.parts or ":" in href.parts[0]:
            raise BundleError(f"bundle `{bundle.name}` names a file outside its folder: `{href}`")
        path = bundle.folder / href
        if not path.is_file():
            raise BundleError(f"bundle `{bundle.name}` lacks `{href}`", hint="copy the bundle again")
        if asset["file:checksum"] != checksum(path):
            raise BundleError(f"`{path}` differs from its checksum in model.json", hint="copy the bundle again")


def checksum(path: Path) -> str:
    """sha256 of a file as the multihash of STAC's file extension."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return "1220" + digest.hexdigest()


def write_model_json(
    folder: Path, item: dict[str, Any], roles: dict[str, list[str]], fields: dict[str, dict[str, Any]] | None = None
) -> None:
    """Write `folder/model.json`: `item` with one asset for every file of the folder, checksum and size included.

    `roles` maps a file's suffix (`.onnx`) to its STAC roles, `fields` to more fields of its asset.
    """
    assets: dict[str, Any] = {}
    for path in sorted(p for p in folder.rglob("*") if p.is_file() and p.name != "model.json"):
        href = path.relative_to(folder).as_posix()
        assets[href] = {
            "href": f"./{href}",
            "roles": roles.get(path.suffix, ["metadata"]),
            "file:checksum": checksum(path),
            "file:size": path.stat().st_size,
            **(fields or {}).get(path.suffix, {}),
        }
        if path.suffix == ".onnx":
            assets[href] |= {"type": "application/octet-stream; framework=onnx", "mlm:artifact_type": "onnx"}
    text = json.dumps({**item, "assets": assets}, indent=1, ensure_ascii=False)
    (folder / "model.json").write_text(text + "\n", encoding="utf-8")
