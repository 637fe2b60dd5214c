"""Measure a bundle on this machine: sessions alone, and a whole run on a scene. Method after MLPerf Inference.

*single-stream*: one batch after the other, each begun when the last has ended; the latency of each is kept (V. J.
Reddi et al., "MLPerf Inference Benchmark", ISCA 2020; its score is the 90th percentile). *offline*: every worker thread
always has a batch; what counts is throughput. Tiles are windows of the network; Mpx and km2 count the pixels that a
window answers for, its core, not the halo that is computed with them.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from itertools import count
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np

from mmedge import __version__
from mmedge.bundle import Bundle
from mmedge.edge.bench.health import health
from mmedge.edge.bench.power import Energy, Meters, find_meters, metering
from mmedge.edge.device import cpu_flags, cpu_name, gpu, memory_gib, threads_available
from mmedge.edge.infer import run
from mmedge.edge.memory import peak_mib, reset_peak
from mmedge.edge.request import Request
from mmedge.edge.runtime.open import open_runtime
from mmedge.edge.runtime.session import Engines, Feeds, GraphKey, Session
from mmedge.errors import MMEdgeError, UsageError
from mmedge.geo_io.bands import sensor_name
from mmedge.modality import Availability

SCENARIOS = ("single-stream", "offline")
PERCENTILES = (50, 90, 95, 99)
KEPT = 2000  # latencies that a report keeps, evenly spaced in time: for its plots, and for comparisons


@dataclass(frozen=True, slots=True, kw_only=True)
class BenchOptions:
    """What is measured. Each row runs for `duration_s`, or for `count` batches where that is given.

    `batches`: windows at once; None: what suits a backend. `available`: sets of at most these sensors; None: all.
    `mixed`: the graphs for mixed windows too. `idle_s`: how long idle power is measured.
    """

    backends: tuple[str, ...] = ("auto",)
    precisions: tuple[str, ...] = ("fp32",)
    scenarios: tuple[str, ...] = SCENARIOS
    batches: tuple[int | None, ...] = (None,)
    available: tuple[str, ...] | None = None
    mixed: bool = False
    threads: int = 0
    warmup_s: float = 1.0
    duration_s: float = 5.0
    count: int | None = None
    idle_s: float = 2.0
    seed: int = 0


Say = Callable[[str], object]


def bench(bundle: Bundle, options: BenchOptions, *, scene: Request | None = None, say: Say = str) -> dict[str, Any]:
    """Measure; the report as JSON of schema `mmedge.bench/1`. `scene`: a run to measure end to end as well.

    A combination that this machine or this bundle does not have is a row with an `error`.
    """
    _check(bundle, options)
    meters = find_meters()
    idle = _idle(meters, options.idle_s)
    before = health()
    rows = list(_rows(bundle, options, meters, idle, say))
    return {
        "schema": "mmedge.bench/1",
        "version": __version__,
        "model": bundle.name,
        "model_sha256": bundle.sha256,
        "machine": {
            "cpu": cpu_name(),
            "cpu_flags": " ".join(cpu_flags()),
            "gpu": str(found) if (found := gpu()) else None,
            "memory_gib": memory_gib(),
            "threads": threads_available(),
        },
        "method": {
            "warmup_s": options.warmup_s,
            "duration_s": None if options.count else options.duration_s,
            "count": options.count,
            "seed": options.seed,
            "input": "standard normal numbers, every pixel valid",
        },
        "energy": {
            "meters": [meter.name for meter in meters.found],
            "missing": list(meters.missing),
            "idle_w": None if idle is None else round(idle.watts, 3),
            "rate_hz": None if idle is None else idle.rate_hz,
        },
        "health": {"before": before, "after": health()},
        "rows": rows,
        "end_to_end": None if scene is None else _end_to_end(scene, meters),
    }


def _check(bundle: Bundle, options: BenchOptions) -> None:
    for scenario in options.scenarios:
        if scenario not in SCENARIOS:
            raise UsageError(f"no scenario `{scenario}`", hint=f"--scenario {'|'.join(SCENARIOS)}")
    for name in options.available or ():
        if sensor_name(name) not in bundle.order:
            raise UsageError(f"`{bundle.name}` takes no `{name}`", hint=f"--available {','.join(bundle.order)}")


def _idle(meters: Meters, seconds: float) -> Energy | None:
    with metering(meters.found) as measured:
        if meters.found:
            time.sleep(seconds)
    return measured.result


def _rows(
    bundle: Bundle, options: BenchOptions, meters: Meters, idle: Energy | None, say: Say
) -> Iterator[dict[str, Any]]:
    for backend in options.backends:
        for precision in options.precisions:
            for scenario in options.scenarios:
                threads = 1 if scenario == "single-stream" else options.threads or threads_available()
                for batch in options.batches:
                    what = {"backend": backend, "precision": precision, "scenario": scenario, "threads": threads}
                    try:
                        runtime, _ = open_runtime(backend, precision=precision, threads=threads)
                        engines = Engines(bundle, runtime, batch=batch)
                        what |= {"backend": runtime.name, "device": runtime.device, "batch": engines.batch}
                        for key in _keys(bundle, options):
                            say(f"{runtime.name} {precision} {scenario} batch {engines.batch}: {key}")
                            yield {**what, **_measure(engines, key, threads, options, meters, idle)}
                    except MMEdgeError as err:
                        yield {**what, "batch": batch, "error": str(err)}


def _keys(bundle: Bundle, options: BenchOptions) -> list[GraphKey]:
    most = Availability.of(map(sensor_name, options.available or bundle.order), bundle.order)
    keys = (key for key in GraphKey.every(bundle) if options.mixed or not key.mixed)
    return [key for key in keys if key.availability & most == key.availability]


def _measure(
    engines: Engines,
    key: GraphKey,
    threads: int,
    options: BenchOptions,
    meters: Meters,
    idle: Energy | None,
) -> dict[str, Any]:
    """One row: warm up, run, and say how long the batches took, what they used and how hot it got."""
    reset = reset_peak()
    session, feeds = engines.session(key), random_feeds(engines, key, options.seed)
    _timed(session, feeds, threads, seconds=options.warmup_s, calls=options.count and 1)
    before = health()
    with metering(meters.found) as measured:
        start = time.perf_counter()
        latencies = _timed(session, feeds, threads, seconds=options.duration_s, calls=options.count)
        seconds = time.perf_counter() - start
    after = health()
    tiling = engines.bundle.tiling
    tiles = len(latencies) * engines.batch
    pixel_m = min(m.gsd_m for m in engines.bundle.modalities)
    area_km2 = tiles * (tiling.stride_px * pixel_m / 1000) ** 2
    return {
        "availability": str(key.availability),
        "mixed": key.mixed,
        "window_px": tiling.window_px,
        "core_px": tiling.stride_px,
        "batches": len(latencies),
        "seconds": round(seconds, 4),
        "latency_ms": {f"p{p}": round(float(np.percentile(latencies, p)) * 1e3, 4) for p in PERCENTILES},
        "latencies_ms": [round(float(v) * 1e3, 4) for v in _thinned(latencies)],
        "tiles_per_s": round(tiles / seconds, 4),
        "mpx_per_s": round(tiles * tiling.stride_px**2 / seconds / 1e6, 5),
        "peak_rss_mib": _rounded(peak_mib()) if reset else None,
        "energy": _energy(measured.result, idle, tiles, area_km2),
        "temperature_c": max(after["temperatures_c"].values(), default=None),
        "clocks_mhz": after["clocks_mhz"],
        "throttled": None
        if after["throttle_events"] is None or before["throttle_events"] is None
        else after["throttle_events"] > before["throttle_events"],
    }


def random_feeds(engines: Engines, key: GraphKey, seed: int) -> Feeds:
    """A batch of standard normal numbers, every pixel valid."""
    rng, side = np.random.default_rng(seed), engines.bundle.tiling.window_px
    feeds: dict[str, Any] = {}
    for name in key.availability:
        shape = (engines.batch, engines.bundle.modality(name).channels, side, side)
        feeds[name] = rng.standard_normal(shape, dtype=np.float32)
        feeds[f"{name}_valid"] = np.ones((engines.batch, 1, side, side), bool)
    return feeds


def _timed(session: Session, feeds: Feeds, threads: int, *, seconds: float, calls: int | None) -> list[float]:
    """Seconds of each batch, in the order of their ends: `calls` of them, else as many as begin within `seconds`."""
    tickets, end = count(), time.perf_counter() + seconds
    latencies: list[float] = []

    def work(_: int) -> None:
        while next(tickets) < calls if calls else time.perf_counter() < end or not latencies:
            start = time.perf_counter()
            session.run(feeds)
            latencies.append(time.perf_counter() - start)

    with ThreadPoolExecutor(threads) as pool:
        list(pool.map(work, range(threads)))
    return latencies


def _thinned(values: Sequence[float]) -> Sequence[float]:
    return values if len(values) <= KEPT else [values[i] for i in np.linspace(0, len(values) - 1, KEPT).astype(int)]


def _rounded(value: float | None) -> float | None:
    return None if value is None else round(value, 1)


def _energy(used: Energy | None, idle: Energy | None, tiles: int, area_km2: float) -> dict[str, Any] | None:
    """Joules a tile and a km2, idle power included and apart; None where nobody measured."""
    if used is None:
        return None
    above = None if idle is None else max(0.0, used.joules - idle.watts * used.seconds)
    return {
        "meters": list(used.meters),
        "mean_w": round(used.watts, 3),
        "j_per_tile": used.joules / tiles,
        "j_per_km2": used.joules / area_km2,
        "j_per_km2_above_idle": None if above is None else above / area_km2,
        "samples": used.samples,
        "rate_hz": used.rate_hz,
    }


def _end_to_end(request: Request, meters: Meters) -> dict[str, Any]:
    """A whole run on a scene, its map thrown away."""
    reset = reset_peak()
    with TemporaryDirectory() as folder, metering(meters.found) as measured:
        record = run(replace(request, output=Path(folder) / "map.tif"))
        document = record.document()
    used = measured.result
    return {
        "scene": document["scene"],
        "backend": document["backend"],
        "precision": document["precision"],
        "threads": document["threads"],
        "pixels": document["pixels"],
        "availability": document["availability"],
        "seconds": document["seconds"],
        "utilisation": document["utilisation"],
        "mpx_per_s": round(document["pixels"] / document["seconds"]["total"] / 1e6, 5),
        "peak_rss_mib": _rounded(peak_mib()) if reset else None,
        "joules": None if used is None else round(used.joules, 3),
    }
