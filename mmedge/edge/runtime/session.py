"""What every backend offers: graphs of a bundle, ready to run on batches of one fixed shape."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy.typing as npt

from mmedge.bundle import Bundle
from mmedge.errors import MachineError, UsageError
from mmedge.modality import Availability
from mmedge.tile import Data

Feeds = Mapping[str, npt.NDArray[Any]]
BACKENDS = ("auto", "openvino")


@dataclass(frozen=True, slots=True)
class GraphKey:
    """Which graph of a bundle: the sensors it takes, and whether each token has an availability of its own."""

    availability: Availability
    mixed: bool


class Session(Protocol):
    """One graph, compiled for batches of (`batch`, channels, height, width). `run` may be called from many threads."""

    def run(self, feeds: Feeds) -> Data:
        """Logits (batch, classes, height, width) float32."""
        ...


class Runtime(Protocol):
    """A backend on this machine. `load` compiles; what it returns lives as long as the runtime."""

    @property
    def name(self) -> str: ...

    @property
    def device(self) -> str: ...

    def load(self, graph: Path, shapes: Mapping[str, tuple[int, ...]]) -> Session: ...


class Engines:
    """The graphs of one bundle in one runtime at one precision: each compiled when it is first asked for."""

    def __init__(self, bundle: Bundle, runtime: Runtime, *, precision: str, batch: int) -> None:
        from threading import Lock

        self.bundle, self.runtime, self.precision, self.batch = bundle, runtime, precision, batch
        self._sessions: dict[GraphKey, Session] = {}
        self._lock = Lock()

    def session(self, key: GraphKey) -> Session:
        with self._lock:
            if key not in self._sessions:
                self._sessions[key] = self._load(key)
            return self._sessions[key]

    def _load(self, key: GraphKey) -> Session:
        side = self.bundle.tiling.window_px
        shapes: dict[str, tuple[int, ...]] = {}
        for name in key.availability:
            shapes[name] = (self.batch, self.bundle.modality(name).channels, side, side)
            shapes[f"{name}_valid"] = (self.batch, 1, side, side)
        # bf16 is a way to execute the fp32 graph; int8 is a graph of its own.
        stored = "fp32" if self.precision == "bf16" else self.precision
        return self.runtime.load(self.bundle.graph(key.availability, precision=stored, mixed=key.mixed), shapes)


def open_runtime(backend: str, *, precision: str, threads: int) -> Runtime:
    """The backend of that name; `auto` takes the best one that is there."""
    if backend not in BACKENDS:
        raise UsageError(f"no backend `{backend}`", hint=f"--backend {'|'.join(BACKENDS)}")
    try:
        from mmedge.edge.runtime.openvino import OpenVinoRuntime
    except ImportError as err:
        raise MachineError(f"OpenVINO cannot be loaded: {err}", hint="pip install openvino") from None
    return OpenVinoRuntime(precision=precision, threads=threads)
