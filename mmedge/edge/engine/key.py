"""What a compiled engine belongs to: a key on everything that makes it invalid, a sidecar, refusal where it differs.

An engine is a disposable cache of one graph for one GPU and one TensorRT. It is never committed, and never loaded where
its key differs from that of this machine.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

from mmedge.bundle import Bundle
from mmedge.edge.runtime.session import GraphKey, stored_graph
from mmedge.errors import MachineError
from mmedge.files import written_together

SCHEMA = "mmedge.engine/1"
PORTABLE = "portable"
# torch-TensorRT saves programs, and PyTorch wants to see what they are from their names.
SUFFIXES = {"torch-tensorrt": ".pt2"}


class EngineMismatchError(MachineError):
    """An engine was built for another GPU, another TensorRT, another model or with other options."""

    def __init__(self, engine: Path, differences: Mapping[str, tuple[object, object]]) -> None:
        said = "; ".join(f"{name} {built}, here {here}" for name, (built, here) in differences.items())
        super().__init__(f"`{engine.name}` was built for {said}", hint="run `mmedge compile BUNDLE` on this device")


@dataclass(frozen=True, slots=True, kw_only=True)
class BuildOptions:
    """What a person chooses. `batch`: least, usual and largest; the window's size is the bundle's.

    `optimization` 0 to 5: longer searches for faster kernels. `version_compatible`: the plan runs on later TensorRTs;
    `same_family`: on other GPUs of the family (hardware compatibility); both cost speed.
    """

    batch: tuple[int, int, int] = (1, 8, 8)
    workspace_mib: int = 1024
    optimization: int = 3
    version_compatible: bool = False
    same_family: bool = False

    def __post_init__(self) -> None:
        least, usual, largest = self.batch
        if not 1 <= least <= usual <= largest:
            raise ValueError(f"batch {self.batch}: least <= usual <= largest is wanted")


@dataclass(frozen=True, slots=True, kw_only=True)
class EngineKey:
    """What makes an engine invalid when it changes. No enum integers: their values shift between versions."""

    schema: str
    backend: str
    version: str
    device: str
    graph: str
    graph_sha256: str
    weights_sha256: str
    precision: str
    window_px: int
    batch: tuple[int, int, int]
    workspace_mib: int
    optimization: int
    version_compatible: bool
    same_family: bool

    @classmethod
    def of(
        cls,
        bundle: Bundle,
        key: GraphKey,
        *,
        precision: str,
        backend: str,
        version: str,
        device: str,
        options: BuildOptions,
    ) -> EngineKey:
        """The key of a graph of a bundle. fp16 is made from the fp32 graph."""
        sums = {a["href"].removeprefix("./"): a["file:checksum"] for a in bundle.item["assets"].values()}
        graph = source_graph(bundle, key, precision).relative_to(bundle.folder).as_posix()
        weights = "".join(value for href, value in sorted(sums.items()) if href.endswith(".safetensors"))
        return cls(
            schema=SCHEMA,
            backend=backend,
            version=version,
            device=device,
            graph=str(key),
            graph_sha256=sums[graph],
            weights_sha256=hashlib.sha256(weights.encode()).hexdigest(),
            precision=precision,
            window_px=bundle.tiling.window_px,
            **asdict(options),
        )

    @property
    def digest(self) -> str:
        """Sixteen hexadecimal digits for a file name."""
        return hashlib.sha256(json.dumps(asdict(self), sort_keys=True).encode()).hexdigest()[:16]


def source_graph(bundle: Bundle, key: GraphKey, precision: str) -> Path:
    """The ONNX file that an engine of a precision is built from."""
    return stored_graph(bundle, key, "int8" if precision == "int8" else "fp32")


def cache_folder(chosen: Path | None = None) -> Path:
    """Where engines lie: what was chosen, MMEDGE_ENGINES, or the user's cache."""
    if chosen is not None:
        return chosen
    home = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(os.environ.get("MMEDGE_ENGINES") or Path(home) / "mmedge" / "engines")


def engine_path(folder: Path, key: EngineKey) -> Path:
    """Where the engine of a key lies; its sidecar is beside it as `.json`."""
    return folder / f"{key.graph}.{key.precision}.{key.digest}{_suffix(key.backend)}"


def _suffix(backend: str) -> str:
    return SUFFIXES.get(backend, ".engine")


def write_engine(folder: Path, key: EngineKey, plan: bytes, facts: Mapping[str, Any]) -> Path:
    """Store a plan and its sidecar, the plan last: a plan without a sidecar is never seen."""
    folder.mkdir(parents=True, exist_ok=True)
    path = engine_path(folder, key)
    sidecar = {"key": asdict(key), "plan_sha256": hashlib.sha256(plan).hexdigest(), **facts}
    with written_together([path.with_suffix(".json"), path]) as (facts_part, plan_part):
        facts_part.write_text(json.dumps(sidecar, indent=1))
        plan_part.write_bytes(plan)
    return path


def find_engine(
    folder: Path, bundle: Bundle, key: GraphKey, *, precision: str, backend: str, version: str, device: str, batch: int
) -> tuple[Path, EngineKey]:
    """The engine for a graph that takes `batch`, and the key that it must have here, whatever its build options were.

    Raises MachineError where there is none; whether it belongs here is `read_engine`'s to say.
    """
    here = {"precision": precision, "backend": backend, "version": version, "device": device}
    foreign: tuple[Path, EngineKey] | None = None
    for sidecar in sorted(folder.glob(f"{key}.{precision}.*.json")):
        try:
            built = json.loads(sidecar.read_text())["key"]
            chosen: dict[str, Any] = {f.name: built[f.name] for f in fields(BuildOptions)}
            options = BuildOptions(**{**chosen, "batch": tuple(chosen["batch"])})
        except (OSError, ValueError, KeyError, TypeError) as err:
            raise MachineError(f"`{sidecar.name}` cannot be read: {err!r}", hint="mmedge compile BUNDLE") from None
        wanted = EngineKey.of(bundle, key, options=options, **here)
        found = sidecar.with_suffix(_suffix(built["backend"])), wanted
        if built == json.loads(json.dumps(asdict(wanted))) and options.batch[0] <= batch <= options.batch[2]:
            return found
        foreign = found
    if foreign is None:
        raise MachineError(
            f"no {precision} engine for `{key}` in `{folder}`",
            hint=f"mmedge compile {bundle.name} --precision {precision}",
        )
    return foreign


def engines_for(folder: Path, precision: str, device: str) -> str | None:
    """The backend whose accepted engines of a precision were built on a GPU, TensorRT's own first; None where none is.

    Whether one fits is `read_engine`'s to say.
    """
    sidecars = [json.loads(path.read_text()) for path in folder.glob(f"*.{precision}.*.json")]
    keys = [sidecar["key"] for sidecar in sidecars if sidecar.get("accepted")]
    built = {key["backend"] for key in keys if (key["precision"], key["device"]) == (precision, device)}
    return next((backend for backend in ("tensorrt", "tensorrt-rtx", "torch-tensorrt") if backend in built), None)


def accepted_engine(
    folder: Path, bundle: Bundle, key: GraphKey, *, precision: str, backend: str, version: str, device: str, batch: int
) -> tuple[Path, bytes]:
    """The engine of a graph that belongs here and was compared with the reference; MachineError where there is none."""
    path, wanted = find_engine(
        folder, bundle, key, precision=precision, backend=backend, version=version, device=device, batch=batch
    )
    plan, sidecar = read_engine(path, wanted)
    if not sidecar.get("accepted"):
        raise MachineError(
            f"`{path.name}` was never compared with the reference on a GPU",
            hint="mmedge compile BUNDLE on this device",
        )
    return path, plan


def read_engine(path: Path, here: EngineKey) -> tuple[bytes, dict[str, Any]]:
    """A plan that belongs here, and its sidecar.

    Raises EngineMismatchError with every difference, MachineError where the plan or the sidecar is missing or damaged.
    """
    try:
        sidecar = json.loads(path.with_suffix(".json").read_text())
        plan = path.read_bytes()
        built: dict[str, Any] = sidecar["key"]
        stored = sidecar["plan_sha256"]
    except (OSError, ValueError, KeyError, TypeError) as err:
        raise MachineError(f"`{path.name}` cannot be read: {err!r}", hint="mmedge compile BUNDLE") from None
    now = json.loads(json.dumps(asdict(here)))
    differences = {name: (built.get(name), value) for name, value in now.items() if built.get(name) != value}
    if differences:
        raise EngineMismatchError(path, differences)
    if hashlib.sha256(plan).hexdigest() != stored:
        raise MachineError(f"`{path.name}` is damaged", hint="mmedge compile BUNDLE --overwrite")
    return plan, sidecar
