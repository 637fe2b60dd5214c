"""Two backends or precisions on the same real windows: differences, signal to noise, agreement; layer by layer too."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from mmedge.bundle import Bundle
from mmedge.edge.runtime.open import open_runtime
from mmedge.edge.runtime.session import Engines, Feeds, GraphKey, stored_graph
from mmedge.edge.windows import Batch, batches
from mmedge.geo_io.ground import gsd_m
from mmedge.geo_io.scene import Scene
from mmedge.geo_io.tiling import Lattice
from mmedge.modality import Availability
from mmedge.tile import Data

BATCH, TILE_PX = 8, 1024
Floats = npt.NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class Side:
    """One of the two: a backend and a precision, written `openvino:int8`."""

    backend: str
    precision: str

    @classmethod
    def parse(cls, text: str) -> Side:
        backend, _, precision = text.partition(":")
        return cls(backend, precision or "fp32")

    def engines(self, bundle: Bundle) -> Engines:
        runtime, _ = open_runtime(self.backend, precision=self.precision, threads=1)
        return Engines(bundle, runtime, batch=BATCH)

    def __str__(self) -> str:
        return f"{self.backend}:{self.precision}"


@dataclass(frozen=True, slots=True)
class Difference:
    """What separates two results: largest and mean |difference|, SQNR [dB], share of positions with one winner."""

    max_abs: float
    mean_abs: float
    sqnr_db: float
    agreement: float

    @classmethod
    def of(cls, first: Floats, second: Floats) -> Difference:
        """Of two arrays (N, classes, ...); `second` is judged by `first`. Equal arrays have an infinite SQNR."""
        gap = np.abs(first.astype(np.float64) - second)
        noise, signal = float((gap**2).mean()), float((first.astype(np.float64) ** 2).mean())
        with np.errstate(divide="ignore"):
            sqnr = float(10 * np.log10(np.divide(signal, noise))) if noise else float("inf")
        return cls(float(gap.max()), float(gap.mean()), sqnr, float((first.argmax(1) == second.argmax(1)).mean()))


@dataclass(frozen=True, slots=True)
class ParityReport:
    """`graphs`: difference of the logits by graph; `windows`: how many; `layers`: by layer, the worst first."""

    first: Side
    second: Side
    graphs: Mapping[str, Difference]
    windows: Mapping[str, int]
    layers: Mapping[str, Difference]

    def document(self) -> dict[str, Any]:
        """As JSON of schema `mmedge.parity/1`."""
        return {
            "schema": "mmedge.parity/1",
            "first": str(self.first),
            "second": str(self.second),
            "graphs": {k: {"windows": self.windows[k], **_finite(d)} for k, d in self.graphs.items()},
            "layers": {k: _finite(d) for k, d in self.layers.items()},
        }


def _finite(difference: Difference) -> dict[str, float | None]:
    """JSON knows no infinity: null."""
    return {k: v if np.isfinite(v) else None for k, v in asdict(difference).items()}


def parity(
    bundle: Bundle,
    scene: Scene,
    first: Side,
    second: Side,
    *,
    availabilities: Iterable[Availability] | None = None,
    most: int = 64,
    layers: bool = False,
) -> ParityReport:
    """Compare on at most `most` windows of a scene for each graph that the scene has windows of."""
    sides = [side.engines(bundle) for side in (first, second)]
    if all(engines.resizable for engines in sides):
        sides = [engines.fitted(scene.grid) for engines in sides]
        bundle = sides[0].bundle
    there = Availability.of(scene.sensors, bundle.order)
    wanted = availabilities or [a for a in Availability.every(bundle.order) if a & there == a]
    graphs: dict[str, Difference] = {}
    inner: dict[str, Difference] = {}
    windows: dict[str, int] = {}
    for availability in wanted:
        for key, some in _by_graph(real_batches(scene, bundle, availability, size=sides[0].batch), most).items():
            results = [_logits(engines, key, some) for engines in sides]
            graphs[str(key)] = Difference.of(*results)
            windows[str(key)] = sum(len(batch.cells) for batch in some)
            if layers:
                found = compare_layers(bundle, key, first.precision, second.precision, some[0].feeds)
                inner |= {f"{key} {name}": difference for name, difference in found.items()}
    return ParityReport(first, second, graphs, windows, dict(sorted(inner.items(), key=lambda item: item[1].sqnr_db)))


def real_batches(scene: Scene, bundle: Bundle, availability: Availability, *, size: int) -> Iterator[Batch]:
    """The windows of a scene as a map of `availability` would run them."""
    scene = scene.only(availability.names)
    cells = max(1, min(BATCH, TILE_PX // bundle.tiling.stride_px))
    for where in Lattice.of(bundle.tiling, scene.grid).tiles(scene.grid.window, cells):
        tile = scene.read(where.read)
        for batch in batches(tile, where, bundle, size=size, pixel_m=gsd_m(scene.grid)):
            if batch.key.availability == availability:
                yield batch


def _by_graph(found: Iterable[Batch], most: int) -> dict[GraphKey, list[Batch]]:
    graphs: dict[GraphKey, list[Batch]] = {}
    for batch in found:
        some = graphs.setdefault(batch.key, [])
        if sum(len(b.cells) for b in some) < most:
            some.append(batch)
    return graphs


def _logits(engines: Engines, key: GraphKey, some: Sequence[Batch]) -> Data:
    """Logits (pixels, classes) where some sensor is valid: elsewhere a map has no class."""
    found = []
    for batch in some:
        seen = np.logical_or.reduce([batch.feeds[f"{m}_valid"][:, 0] for m in key.availability])
        logits = np.moveaxis(engines.session(key).run(batch.feeds), 1, -1)
        found.append(logits[: len(batch.cells)][seen[: len(batch.cells)]])
    return np.concatenate(found)


def compare_layers(bundle: Bundle, key: GraphKey, first: str, second: str, feeds: Feeds) -> dict[str, Difference]:
    """Differences of the outputs of every MatMul and Conv that both graphs have, in OpenVINO."""
    import openvino as ov

    core = ov.Core()
    models = [core.read_model(stored_graph(bundle, key, precision)) for precision in (first, second)]
    names = sorted(_products(models[0]) & _products(models[1]))
    values = []
    for model, precision in zip(models, (first, second), strict=True):
        model.add_outputs(names)
        hint = "bf16" if precision == "bf16" else "f32"
        result = core.compile_model(model, "CPU", {"INFERENCE_PRECISION_HINT": hint})(dict(feeds))
        values.append([np.array(result[name], np.float32) for name in names])
    return {name: Difference.of(a, b) for name, a, b in zip(names, *values, strict=True)}


def _products(model: Any) -> set[str]:
    """Names of what the MatMuls and Convs of an OpenVINO model give."""
    kinds = ("MatMul", "Convolution", "GroupConvolution")
    ops = [op for op in model.get_ops() if op.get_type_name() in kinds]
    return {name for op in ops for name in op.output(0).get_names()}
