"""How large tiles, windows and batches may be for a run to stay within a given memory.

What an inference takes is measured, not modelled: the largest graph that a scene can need is compiled for one small
batch, run once, and its growth of the process is scaled to the other sizes. Tiles, results and GDAL's cache are sums of
array sizes. None of it can change the map.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from math import ceil
from weakref import WeakKeyDictionary

import numpy as np

from mmedge.edge.device import threads_available
from mmedge.edge.memory import resident_mib
from mmedge.edge.predict import Plan
from mmedge.edge.request import Request, cut_up
from mmedge.edge.runtime.session import Engines, GraphKey, Runtime, input_shapes
from mmedge.errors import UsageError
from mmedge.geo_io.scene import Scene
from mmedge.grid import Window
from mmedge.modality import Availability

MIB = 1 << 20
# A resizable window is tried for at this width, and never made narrower than this beside its halo.
PROBE_PX, LEAST_STEP_PX = 256, 128
LEAST_CACHE_BYTES = 16 * MIB
# The picture, the item, the compressing pass and what the allocator keeps: measured, 20-60 MiB.
REST_MIB = 64.0
# Of what is predicted, beside what is measured.
MARGIN = 1.05


@dataclass(frozen=True, slots=True, kw_only=True)
class Need:
    """What a model takes here, in MiB: `fixed` the process without any graph, `graph` a compiled one, `pixel` each
    pixel of the batches that are computed at the same time.
    """

    fixed: float
    graph: float
    pixel: float


# Measured once for a runtime: when it has run other scenes, the process has grown by what is to be measured.
_known: WeakKeyDictionary[Runtime, Need] = WeakKeyDictionary()


def within(limit: int, request: Request, engines: Engines, region: Window, scene: Scene) -> tuple[Engines, Plan]:
    """The fastest way to cut a run up that stays within `limit` bytes; UsageError where there is none."""
    need = _known.get(engines.runtime) or measure(engines, scene)
    _known[engines.runtime] = need
    graphs = 2 if engines.bundle.mixed else 1
    least = float("inf")
    for threads, sized in _choices(request, engines, scene):
        asked = replace(request, threads=threads)
        for plan in _smaller(cut_up(asked, sized, region, scene)):
            total = MARGIN * need_mib(need, plan, sized, scene, graphs=graphs, probs=request.probs)
            if total <= limit / MIB:
                spare = limit / MIB - total
                more = int(spare // max(1.0, MARGIN * _graph_mib(need, plan, sized)))
                return sized.keeping(graphs + more), plan
            least = min(least, total)
    raise UsageError(
        f"`{engines.bundle.name}` does not fit into {limit / MIB:.0f} MiB here: the smallest tiles on one thread take "
        f"about {least:.0f} MiB",
        hint=f"--max-memory {ceil(least)}M",
    )


def measure(engines: Engines, scene: Scene) -> Need:
    """Compile the largest graph that the scene can need for a small batch, and run it once."""
    bundle = engines.bundle
    narrow = PROBE_PX // bundle.tiling.align_px * bundle.tiling.align_px
    small = engines.resized(window_px=narrow if engines.resizable else None, batch=1)
    key = GraphKey(Availability.of(scene.sensors, bundle.order), bundle.mixed)
    before = resident_mib()
    session = small.runtime.load(small.bundle, key, batch=small.batch)
    compiled = resident_mib()
    shapes = input_shapes(small.bundle, key, small.batch)
    session.run({name: np.ones(s, np.bool_ if name.endswith("_valid") else np.float32) for name, s in shapes.items()})
    pixels = small.batch * small.bundle.tiling.window_px**2
    return Need(fixed=before, graph=max(0.0, compiled - before), pixel=max(0.0, resident_mib() - compiled) / pixels)


def need_mib(need: Need, plan: Plan, engines: Engines, scene: Scene, *, graphs: int, probs: bool) -> float:
    """What a run takes at most, in MiB."""
    tiling, classes = engines.bundle.tiling, len(engines.bundle.classes)
    core = (plan.cells * tiling.stride_px) ** 2
    read = (plan.cells * tiling.stride_px + 2 * tiling.halo_px) ** 2
    bands = sum(len(source.info.bands) for source in scene.sources.values())
    # Read and waiting, or being computed: float32 and masks. Being read: once more, as it lies in the file.
    tiles = (plan.readers + 1 + plan.ahead + plan.threads) * read * (4 * bands + len(scene.sources))
    tiles += plan.readers * read * 4 * bands
    results = (2 * plan.threads + plan.ahead + 1) * core * (3 + (classes if probs else 0))
    arrays = (tiles + results + plan.cache_bytes) / MIB
    return need.fixed + graphs * _graph_mib(need, plan, engines) + arrays + REST_MIB


def _graph_mib(need: Need, plan: Plan, engines: Engines) -> float:
    pixels = engines.batch * engines.bundle.tiling.window_px**2
    return need.graph + engines.runtime.traits.streams(pixels, plan.threads) * need.pixel * pixels


def _choices(request: Request, engines: Engines, scene: Scene) -> Iterator[tuple[int, Engines]]:
    """Threads and sizes, those that should be fastest first: more threads, then larger windows, then larger batches."""
    tiling = engines.bundle.tiling
    most = request.threads or threads_available()
    for threads in range(most, 0, -1):
        if not engines.resizable:
            for shift in range(engines.batch.bit_length()):
                yield threads, engines.resized(batch=max(1, engines.batch >> shift))
            continue
        step = tiling.stride_px
        while step >= min(LEAST_STEP_PX, tiling.stride_px):
            yield threads, engines.resized(window_px=step + 2 * tiling.halo_px, grid=scene.grid)
            step = step * 7 // 8 // tiling.align_px * tiling.align_px


def _smaller(plan: Plan) -> Iterator[Plan]:
    """A plan and what takes less memory than it: fewer tiles waiting, less of a cache, smaller tiles."""
    yield plan
    plan = replace(plan, readers=1, ahead=min(plan.ahead, 1))
    while True:
        yield plan
        yield replace(plan, tall=1, cache_bytes=LEAST_CACHE_BYTES)
        if plan.cells == 1:
            return
        plan = replace(plan, cells=plan.cells // 2)
