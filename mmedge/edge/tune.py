"""The sizes with which this machine runs a bundle fastest, measured once and remembered in the user's cache.

A window that may be resized, else the batch, is chosen by the bare sessions; the windows along a tile's side by a few
tiles of the scene at hand. Sizes that are as good within 2 % lose to the smallest of them: it takes less memory. None
of it can change the map.
"""

from __future__ import annotations

import hashlib
import json
import os
import time
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from mmedge import __version__
from mmedge.edge.device import cpu_name, threads_available
from mmedge.edge.predict import predict
from mmedge.edge.request import Request, cut_up
from mmedge.edge.runtime.session import Engines, GraphKey, input_shapes
from mmedge.geo_io.scene import Scene
from mmedge.geo_io.tiling import Lattice
from mmedge.grid import Window
from mmedge.modality import Availability

SCHEMA = "mmedge.tuning/1"
BATCHES, CELLS = (1, 2, 4, 8, 16, 32), (4, 8, 16)
STEPS_PX = (256, 384, 512, 768, 1024, 1280)
SECONDS, ROUNDS = 0.3, 3
AS_GOOD = 0.98
Size = TypeVar("Size")


@dataclass(frozen=True, slots=True, kw_only=True)
class Tuning:
    """What was found to be fastest: windows a batch, pixels along a window (None: as in the bundle), windows along a
    tile.
    """

    batch: int
    window_px: int | None
    cells: int


def tuned(request: Request, engines: Engines, region: Window, scene: Scene) -> tuple[Request, Engines]:
    """A request and its engines in the sizes that are fastest here; measured if nobody has yet."""
    facts = _facts(request, engines, scene)
    path = tuning_folder() / f"{hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()[:16]}.json"
    found = _read(path)
    if found is None:
        found, rates = tune(request, engines, region, scene)
        _write(path, {"schema": SCHEMA, **facts, **asdict(found), "mpx_per_s": rates})
    sized = engines.resized(batch=found.batch, window_px=found.window_px, grid=scene.grid)
    return replace(request, batch=found.batch, cells=found.cells), sized


def tune(
    request: Request, engines: Engines, region: Window, scene: Scene
) -> tuple[Tuning, dict[str, dict[str, float]]]:
    """Measure; the sizes, and the rates of all that were tried [Mpx of map/s]."""
    tiling, threads = engines.bundle.tiling, request.threads or threads_available()
    engines = Engines(engines.bundle, engines.runtime, batch=engines.batch)  # what is compiled here is not kept
    key = GraphKey(Availability.of(scene.sensors, engines.bundle.order), False)
    if engines.resizable:
        steps = sorted({min(step, tiling.stride_px) // tiling.align_px * tiling.align_px for step in STEPS_PX})
        windows = [step + 2 * tiling.halo_px for step in steps if step]
        rates = _rates(windows, lambda window: _session_rate(engines.resized(window_px=window, batch=1), key, threads))
        return Tuning(batch=1, window_px=_best(rates), cells=1), {"window_px": _named(rates)}
    rates = _rates(BATCHES, lambda batch: _session_rate(engines.resized(batch=batch), key, threads))
    batch = _best(rates)
    sized = engines.resized(batch=batch)
    tiles = _rates(CELLS, lambda cells: _tile_rate(replace(request, cells=cells), sized, region, scene), rounds=1)
    chosen = Tuning(batch=batch, window_px=None, cells=_best(tiles))
    return chosen, {"batch": _named(rates), "cells": _named(tiles)}


def tuning_folder() -> Path:
    """Where measured sizes are remembered: MMEDGE_TUNING, or the user's cache."""
    home = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(os.environ.get("MMEDGE_TUNING") or Path(home) / "mmedge" / "tuning")


def _facts(request: Request, engines: Engines, scene: Scene) -> dict[str, Any]:
    """What a choice holds for."""
    return {
        "mmedge": __version__,
        "bundle_sha256": engines.bundle.sha256,
        "sensors": list(scene.sensors),
        "backend": engines.runtime.name,
        "precision": request.precision,
        "threads": request.threads or threads_available(),
        "cpu": cpu_name(),
        "device": engines.runtime.device,
    }


def _read(path: Path) -> Tuning | None:
    """What was remembered; None where nothing was, or by another schema, or half of it."""
    try:
        document = json.loads(path.read_text())
        if document["schema"] != SCHEMA:
            return None
        return Tuning(batch=document["batch"], window_px=document["window_px"], cells=document["cells"])
    except (FileNotFoundError, ValueError, LookupError, TypeError):
        return None


def _write(path: Path, document: dict[str, Any]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f"{path.name}.{os.getpid()}.part")
    part.write_text(json.dumps(document, indent=1) + "\n")
    part.replace(path)


def _rates(sizes: Iterable[Size], rate: Callable[[Size], float], *, rounds: int = ROUNDS) -> dict[Size, float]:
    """The best rate of each size, tried in turns: other work on the machine comes and goes."""
    every = list(sizes)
    best = dict.fromkeys(every, 0.0)
    for _ in range(rounds):
        for size in every:
            best[size] = max(best[size], rate(size))
    return best


def _best(rates: dict[int, float]) -> int:
    return min(size for size, rate in rates.items() if rate >= AS_GOOD * max(rates.values()))


def _named(rates: dict[int, float]) -> dict[str, float]:
    return {str(size): round(rate / 1e6, 4) for size, rate in rates.items()}


def _session_rate(engines: Engines, key: GraphKey, threads: int) -> float:
    """Pixels of map a second through one graph, as many threads as a run has."""
    rng, session = np.random.default_rng(0), engines.session(key)
    feeds = {
        name: np.ones(shape, np.bool_) if name.endswith("_valid") else rng.random(shape, np.float32)
        for name, shape in input_shapes(engines.bundle, key, engines.batch).items()
    }

    def work(until: float) -> int:
        done = 0
        while not done or time.perf_counter() < until:
            session.run(feeds)
            done += 1
        return done

    with ThreadPoolExecutor(threads) as pool:
        list(pool.map(lambda _: session.run(feeds) is None, range(threads)))
        start = time.perf_counter()
        done = sum(pool.map(work, [start + SECONDS] * threads))
        seconds = time.perf_counter() - start
    return done * engines.batch * engines.bundle.tiling.stride_px**2 / seconds


def _tile_rate(request: Request, engines: Engines, region: Window, scene: Scene) -> float:
    """Pixels of map a second of two tiles a thread, read and computed, from the first corner of a region."""
    lattice, threads = Lattice.of(engines.bundle.tiling, scene.grid), request.threads or threads_available()
    side = request.cells * lattice.step_px
    sample = Window(region.row, region.col, 2 * side, threads * side).intersect(region)
    plan = cut_up(request, engines, sample, scene)
    start = time.perf_counter()
    pixels = sum(tile.classes.size for tile in predict(scene, engines, sample, plan))
    return pixels / (time.perf_counter() - start)
