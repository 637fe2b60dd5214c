"""What every backend offers: graphs of a bundle, ready to run on batches of one fixed shape."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from math import inf
from pathlib import Path
from threading import Lock
from typing import Any, Protocol, runtime_checkable

import numpy.typing as npt

from mmedge.bundle import Bundle, Tiling
from mmedge.geo_io.tiling import Lattice, fitted
from mmedge.grid import Grid, Window
from mmedge.modality import Availability
from mmedge.tile import Data

Feeds = Mapping[str, npt.NDArray[Any]]
BATCH_PX = 512 * 512
FEW_WINDOWS = 64


@dataclass(frozen=True, slots=True)
class GraphKey:
    """Which graph of a bundle: the sensors it takes, and whether each token has an availability of its own."""

    availability: Availability
    mixed: bool

    def __str__(self) -> str:
        return f"{self.availability}.mixed" if self.mixed else str(self.availability)

    @classmethod
    def every(cls, bundle: Bundle) -> list[GraphKey]:
        """All graphs of a bundle: for each availability the uniform one, then the mixed one where it has some."""
        kinds = (False, True) if bundle.mixed else (False,)
        return [cls(a, mixed) for a in Availability.every(bundle.order) for mixed in kinds]


class Session(Protocol):
    """One graph, compiled for batches of (`batch`, channels, height, width). `run` may be called from many threads."""

    def run(self, feeds: Feeds) -> Data:
        """Logits (batch, classes, height, width) float32."""
        ...


@runtime_checkable
class TracingSession(Session, Protocol):
    """A session that also gives what a graph says beside its logits."""

    def run_traced(self, feeds: Feeds) -> tuple[Data, npt.NDArray[Any]]:
        """Logits, and which sensors were recovered and believed: (batch, modalities, height, width)."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Traits:
    """What suits a backend.

    `batch`: windows at once, where there are many. Two threads share a batch of `shared_px` pixels or more.
    `any_window`: a graph is compiled in a second, so that windows and batches may be resized for each scene; the
    graphs for earlier scenes' windows are kept while those hold at most `kept_px` pixels.
    """

    batch: int = 4
    shared_px: float = inf
    any_window: bool = True
    kept_px: int = 640 * 640

    def streams(self, pixels: int, threads: int) -> int:
        """Batches of so many pixels that `threads` threads compute at the same time."""
        return -(-threads // 2) if pixels >= self.shared_px else threads


class Runtime(Protocol):
    """A backend on this machine, at one precision. What `load` returns lives as long as the runtime."""

    @property
    def name(self) -> str: ...

    @property
    def traits(self) -> Traits: ...

    @property
    def device(self) -> str: ...

    def load(self, bundle: Bundle, key: GraphKey, *, batch: int) -> Session: ...


class Engines:
    """The graphs of one bundle in one runtime: each compiled when it is first asked for.

    `batch` windows at once (None: what suits the runtime), fewer where they hold more than `BATCH_PX` pixels. At most
    `keep` graphs stay compiled (None: all), those that were used last.
    """

    def __init__(self, bundle: Bundle, runtime: Runtime, *, batch: int | None = None, keep: int | None = None) -> None:
        self.bundle, self.runtime, self._keep = bundle, runtime, keep
        self._wanted = batch or runtime.traits.batch
        self.batch = largest_batch(bundle, self._wanted)
        self._sessions: dict[GraphKey, Session] = {}
        self._fitted: dict[Tiling, Engines] = {}
        self._resized: dict[tuple[Tiling, int], Engines] = {}
        self._lock = Lock()

    @property
    def resizable(self) -> bool:
        """Whether windows of other sizes will do."""
        return self.bundle.tiling.resizable and self.runtime.traits.any_window

    def fitted(self, grid: Grid) -> Engines:
        """The engines for a scene: with a window that fits it, where any will do. Those of the last scenes are kept."""
        tiling = fitted(self.bundle.tiling, grid) if self.resizable else self.bundle.tiling
        if tiling == self.bundle.tiling:
            return self
        with self._lock:
            engines = self._fitted.pop(tiling, None)
            self._fitted[tiling] = engines or Engines(
                replace(self.bundle, tiling=tiling), self.runtime, batch=self._wanted
            )
            while len(self._fitted) > 1 and sum(t.window_px**2 for t in self._fitted) > self.runtime.traits.kept_px:
                del self._fitted[next(iter(self._fitted))]
            return self._fitted[tiling]

    def batched(self, region: Window, grid: Grid) -> Engines:
        """The engines for a region: one window at a time where it has few, which would leave batches half empty."""
        windows = Lattice.of(self.bundle.tiling, grid).count(region, 1)
        if windows >= FEW_WINDOWS or not self.runtime.traits.any_window:
            return self
        return self.resized(batch=1)

    def resized(self, *, batch: int | None = None, window_px: int | None = None, grid: Grid | None = None) -> Engines:
        """The same graphs for another batch or, where the network takes any, a window of at most `window_px`, which
        fits `grid`. The same sizes give the same engines.
        """
        tiling = self.bundle.tiling if window_px is None else replace(self.bundle.tiling, window_px=window_px)
        tiling = fitted(tiling, grid) if grid else tiling
        key = tiling, batch or self._wanted
        with self._lock:
            if key not in self._resized:
                self._resized[key] = Engines(replace(self.bundle, tiling=tiling), self.runtime, batch=key[1])
            return self._resized[key]

    def keeping(self, graphs: int) -> Engines:
        """These engines, of which at most so many graphs stay compiled."""
        self._keep = graphs
        return self

    def session(self, key: GraphKey) -> Session:
        with self._lock:
            found = self._sessions.pop(key, None)
            while found is None and self._keep is not None and len(self._sessions) >= self._keep:
                del self._sessions[next(iter(self._sessions))]
            self._sessions[key] = found or self.runtime.load(self.bundle, key, batch=self.batch)
            return self._sessions[key]


def largest_batch(bundle: Bundle, wanted: int) -> int:
    """`wanted`, or as many windows as `BATCH_PX` holds."""
    return max(1, min(wanted, BATCH_PX // bundle.tiling.window_px**2))


def stored_graph(bundle: Bundle, key: GraphKey, precision: str) -> Path:
    """The graph file for a precision: bf16 is a way to execute the fp32 graph, int8 is a graph of its own."""
    return bundle.graph(key.availability, precision="fp32" if precision == "bf16" else precision, mixed=key.mixed)


def input_shapes(bundle: Bundle, key: GraphKey, batch: int) -> dict[str, tuple[int, int, int, int]]:
    """(batch, channels, height, width) of each input of a graph, in the graph's order."""
    side, shapes = bundle.tiling.window_px, {}
    for name in key.availability:
        shapes[name] = (batch, bundle.modality(name).channels, side, side)
        shapes[f"{name}_valid"] = (batch, 1, side, side)
    return shapes
