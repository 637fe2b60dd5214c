"""What routing and experts add to the plain backbone, and what an absent sensor saves: `python -m benchmarks.routing`.

Per availability, in OpenVINO fp32 on one thread, a window at a time: the graph that ships, and the same graph
without its adapters (their sum taken out, and all that nothing else needs). A sensor's encoder is the part of its own
graph up to where it is joined to the others. Times are the least CPU time of some calls in turns: other work on the
machine counts little.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import openvino as ov

from benchmarks.machine import machine
from mmedge.bundle import Bundle, open_bundle
from mmedge.calibration.qdq import constant_roots, drop_unused
from mmedge.calibration.score import cpu_ms
from mmedge.edge.macs import graph_macs
from mmedge.edge.runtime.openvino import OpenVinoSession
from mmedge.edge.runtime.session import Feeds, GraphKey, input_shapes, stored_graph
from mmedge.geo_io.tiling import narrowed
from mmedge.modality import Availability

Graph = onnx.ModelProto
BATCH = 1


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("models", nargs="*", default=["mamol-terra", "mamol-conv"])
    parser.add_argument("--repeats", type=int, default=10)
    parser.add_argument("--report", type=Path)
    args = parser.parse_args()
    document: dict[str, Any] = {"schema": "mmedge.routing/1", "machine": machine(), "models": {}}
    for name in args.models:
        bundle = open_bundle(name)
        bundle = replace(bundle, tiling=narrowed(bundle.tiling))
        facts = {"batch": BATCH, "window_px": bundle.tiling.window_px}
        document["models"][name] = {**facts, **measure(bundle, args.repeats)}
    if args.report:
        args.report.write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8")


def measure(bundle: Bundle, repeats: int) -> dict[str, Any]:
    rows: dict[str, Any] = {}
    print(f"\n{bundle.name}, {bundle.tiling.window_px} px\n{'':24s}    GMAC  plain  adds %       ms  plain  adds %")
    for availability in Availability.every(bundle.order):
        whole = Model.of(bundle, GraphKey(availability, False))
        plain = whole.but(without_adapters)
        ms = cpu_ms({"whole": whole.session(), "plain": plain.session()}, repeats=repeats)
        row = {"macs": whole.macs, "plain_macs": plain.macs, "ms": ms["whole"], "plain_ms": ms["plain"]}
        rows[str(availability)] = row
        gmac = [row[k] / 1e9 for k in ("macs", "plain_macs")]
        more = [100 * (a / b - 1) for a, b in (gmac, (row["ms"], row["plain_ms"]))]
        print(
            f"{availability!s:24s} {gmac[0]:7.3f} {gmac[1]:6.3f} {more[0]:7.1f} "
            f"{row['ms']:8.1f} {row['plain_ms']:6.1f} {more[1]:7.1f}",
            flush=True,
        )
    return {"availabilities": rows, "saved": saved(bundle, repeats)}


def saved(bundle: Bundle, repeats: int) -> dict[str, Any]:
    """What leaving out each sensor saves, beside what its encoder costs."""
    complete = Availability.every(bundle.order)[-1]
    rows: dict[str, Any] = {}
    print(f"{'without':24s} saves GMAC  encoder    %  saves ms  encoder    %")
    for sensor in bundle.order:
        rest = Availability.of([m for m in bundle.order if m != sensor], bundle.order)
        models = {name: Model.of(bundle, GraphKey(a, False)) for name, a in (("complete", complete), ("rest", rest))}
        alone = Model.of(bundle, GraphKey(Availability.of([sensor], bundle.order), False))
        models["encoder"] = alone.but(lambda graph, sensor=sensor: encoder_of(graph, sensor))
        ms = cpu_ms({name: model.session() for name, model in models.items()}, repeats=repeats)
        macs = {name: model.macs for name, model in models.items()}
        rows[sensor] = {"macs": macs, "ms": ms}
        gain = [values["complete"] - values["rest"] for values in (macs, ms)]
        share = [100 * g / values["encoder"] for g, values in zip(gain, (macs, ms), strict=True)]
        print(
            f"{sensor:24s} {gain[0] / 1e9:10.3f} {macs['encoder'] / 1e9:8.3f} {share[0]:4.0f} "
            f"{gain[1]:9.1f} {ms['encoder']:8.1f} {share[1]:4.0f}",
            flush=True,
        )
    return rows


@dataclass(frozen=True, slots=True)
class Model:
    """A graph with its weights inside, for windows of a bundle."""

    graph: Graph
    shapes: dict[str, tuple[int, ...]]

    @classmethod
    def of(cls, bundle: Bundle, key: GraphKey) -> Model:
        return cls(onnx.load(stored_graph(bundle, key, "fp32")), dict(input_shapes(bundle, key, BATCH)))

    def but(self, change: Callable[[Graph], None]) -> Model:
        graph = Graph()
        graph.CopyFrom(self.graph)
        change(graph)
        return Model(graph, self.shapes)

    @property
    def macs(self) -> int:
        """Multiply-accumulates of one window."""
        with tempfile.TemporaryDirectory() as folder:
            onnx.save(self.graph, Path(folder) / "graph.onnx")
            return graph_macs(Path(folder) / "graph.onnx", {n: (1, *s[1:]) for n, s in self.shapes.items()})

    def session(self) -> tuple[OpenVinoSession, Feeds]:
        core = ov.Core()
        model = core.read_model(self.graph.SerializeToString())
        model.reshape({name: ov.PartialShape(list(shape)) for name, shape in self.shapes.items()})
        options = {"INFERENCE_PRECISION_HINT": "f32", "NUM_STREAMS": "1", "INFERENCE_NUM_THREADS": "1"}
        rng = np.random.default_rng(0)
        feeds = {
            name: np.ones(shape, bool) if name.endswith("_valid") else rng.normal(size=shape).astype(np.float32)
            for name, shape in self.shapes.items()
        }
        return OpenVinoSession(core.compile_model(model, "CPU", options)), feeds


def without_adapters(model: Graph) -> None:
    """Take the sum of each adapter out of the feed-forward that it is beside."""
    graph = model.graph
    made = {name: node for node in graph.node for name in node.output}

    def is_adapter(name: str) -> bool:
        """Whether a value is what an adapter's last layer gives."""
        return name in made and any(i.startswith("adapters.") and i.endswith(".out.bias") for i in made[name].input)

    renamed: dict[str, str] = {}
    for node in graph.node:
        ends = [is_adapter(name) for name in node.input] if node.op_type == "Add" else []
        if any(ends):
            renamed[node.output[0]] = node.input[ends.index(False)]
    if not renamed:
        raise ValueError("the graph has no adapters")
    for node in graph.node:
        for i, name in enumerate(node.input):
            while name in renamed:
                name = renamed[name]
            node.input[i] = name
    drop_unused(graph)


def encoder_of(model: Graph, sensor: str) -> None:
    """Keep what leads to the layers that join a sensor to the others, those included."""
    graph, roots = model.graph, constant_roots(model)

    def joins(name: str) -> bool:
        names = roots.get(name, frozenset())
        return any(
            n == f"fuse.{sensor}.weight" or (n.startswith("encoder.join.") and f".{sensor}." in n) for n in names
        )

    ends = [n.output[0] for n in graph.node if n.op_type in ("MatMul", "Conv") and joins(n.input[1])]
    if not ends:
        raise ValueError(f"nothing joins `{sensor}`")
    del graph.output[:]
    graph.output.extend(onnx.helper.make_tensor_value_info(e, onnx.TensorProto.FLOAT, None) for e in ends)
    drop_unused(graph)


if __name__ == "__main__":
    main()
