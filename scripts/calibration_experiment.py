"""Does calibration on every availability beat calibration on complete data alone?

Run `python scripts/calibration_experiment.py`. For each seed and availability the graph for uniform windows is
quantized twice, every layer that int8 may gain on: with the clips of its own windows, and with those that the same
layer of the same tower has in the graph of all sensors. Ranges come from training blocks; agreement with fp32, signal
to noise and accuracy from windows and labels of the test blocks.
"""

from __future__ import annotations

import argparse
import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from quantize_default import scenes

from mmedge.bundle import Bundle, open_bundle
from mmedge.calibration.observe import observe, with_outputs
from mmedge.calibration.qdq import Layer, linear_layers, load_graph, quantized
from mmedge.calibration.scales import METHODS
from mmedge.calibration.score import Pixels
from mmedge.calibration.sensitivity import too_small
from mmedge.calibration.windows import LabelledWindow, SceneFiles, read_windows, sample, stack
from mmedge.edge.runtime.session import GraphKey, stored_graph
from mmedge.edge.training.split import TEST, TRAIN
from mmedge.modality import Availability

WINDOWS, CROPS = 16, 80
Row = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Graph:
    """A float graph with the layers that int8 may gain on and the clips of its own availability."""

    model: onnx.ModelProto
    layers: list[Layer]
    clips: dict[str, float]


def calibrated(bundle: Bundle, key: GraphKey, windows: Sequence[LabelledWindow], method: str) -> Graph:
    model, _ = load_graph(stored_graph(bundle, key, "fp32"))
    every = linear_layers(model)
    layers = [layer for layer in every if layer.name not in too_small(every)]
    histograms = observe(model, sorted({layer.input for layer in layers}), stack(windows, 8))
    return Graph(model, layers, {name: METHODS[method](h) for name, h in histograms.items()})


def borrowed(graph: Graph, availability: Availability, complete: Graph) -> dict[str, float]:
    """Clips of the complete graph. A layer is used once, or once a tower in the order of the sensors."""
    uses: dict[str, list[float]] = {}
    for layer in complete.layers:
        uses.setdefault(layer.name, []).append(complete.clips[layer.input])
    towers = [availability.order.index(sensor) for sensor in availability]
    turns: Counter[str] = Counter()
    clips = {}
    for layer in graph.layers:
        every = uses[layer.name]
        clips[layer.input] = every[towers[turns[layer.name]] if len(every) > 1 else 0]
        turns[layer.name] += 1
    return clips


def logits(model: onnx.ModelProto, windows: Sequence[LabelledWindow], core: slice) -> Pixels:
    """Every core pixel of some windows in ONNX Runtime."""
    session = with_outputs(model, ())
    found = np.concatenate([session.run(["logits"], dict(feeds))[0] for feeds in stack(windows, 8)])
    inner = np.moveaxis(found[:, :, core, core], 1, -1)
    return Pixels(inner.reshape(-1, inner.shape[-1]), np.stack([w.labels for w in windows]).ravel())


def rows(bundle: Bundle, parts: Mapping[int, tuple[SceneFiles, ...]], seed: int, method: str) -> list[dict[str, Any]]:
    rng = np.random.default_rng(seed)
    core = slice(bundle.tiling.halo_px, bundle.tiling.halo_px + bundle.tiling.stride_px)
    graphs: dict[Availability, Graph] = {}
    for availability in Availability.every(bundle.order):
        key = GraphKey(availability, False)
        pool = [w for w in read_windows(parts[TRAIN], bundle, availability, rng, crops=CROPS) if w.key == key]
        graphs[availability] = calibrated(bundle, key, sample(pool, WINDOWS, rng), method)
    complete, found = graphs[Availability.every(bundle.order)[-1]], []
    for availability, graph in graphs.items():
        key = GraphKey(availability, False)
        windows = [w for w in read_windows(parts[TEST], bundle, availability, rng) if w.key == key]
        before = logits(graph.model, windows, core)
        for name, clips in (("own", graph.clips), ("complete", borrowed(graph, availability, complete))):
            after = logits(quantized(graph.model, graph.layers, clips), windows, core)
            oa = [100 * p.known.confusion().overall_accuracy for p in (before, after)]
            row = {"seed": seed, "availability": str(availability), "calibration": name}
            row |= {"agreement": round(100 * after.agreement(before), 3), "sqnr_db": round(after.sqnr_db(before), 2)}
            found.append({**row, "drop": round(oa[0] - oa[1], 3)})
            print(*found[-1].values(), flush=True)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=Path("../shared/data"))
    parser.add_argument("--model", default="mamol-terra")
    parser.add_argument("--work", type=Path, default=Path("runs/quantize"))
    parser.add_argument("--method", default="mse")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--out", type=Path, default=Path("docs/results/calibration_rows.json"))
    args = parser.parse_args()
    parts = {part: scenes(args.data, args.work, part, hidden=part == TRAIN) for part in (TRAIN, TEST)}
    bundle, done = open_bundle(args.model), []
    for seed in args.seeds:
        done += rows(bundle, parts, seed, args.method)
        args.out.write_text(json.dumps({"method": args.method, "rows": done}, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
