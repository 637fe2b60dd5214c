"""A small convolutional bundle of known receptive field, written as ONNX by hand: real graphs, seeded weights.

Two 3 x 3 convolutions see 2 pixels to each side; every sensor brings its data, filled where invalid, and its mask.
Elevation is seen as relief in windows of one size, as terrain, which itself looks around, in a resizable one.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from mmedge.bundle import SCHEMA, graph_href, write_model_json
from mmedge.edge.relief import TERRAIN_REACH_PX
from mmedge.modality import Availability

MODALITIES: list[dict[str, Any]] = [
    {"name": "optical", "bands": ["B02", "B03", "B04", "B08"], "unit": "reflectance", "gsd_m": 10.0},
    {"name": "sar", "bands": ["VV", "VH"], "unit": "dB", "gsd_m": 10.0},
    {"name": "elevation", "bands": ["DEM"], "unit": "m", "gsd_m": 10.0, "derive": "relief"},
]
CHANNELS = {"optical": 4, "sar": 2, "elevation": 2}
CLASSES = [(1, "water", "1f78b4"), (2, "trees", "33a02c"), (4, "crops", "ffd92f"), (5, "built area", "e31a1c")]
WIDTH = 8


def write_bundle(folder: Path, *, window_px: int = 64, halo_px: int = 2, resizable: bool = False) -> Path:
    """A bundle with a graph for every availability of optical, sar and elevation."""
    order = tuple(m["name"] for m in MODALITIES)
    modalities = MODALITIES
    if resizable:
        halo_px += TERRAIN_REACH_PX
        modalities = [{**m, "derive": "terrain"} if "derive" in m else m for m in MODALITIES]
    (folder / "graphs").mkdir(parents=True)
    for availability in Availability.every(order):
        for mixed in (False, True):
            path = folder / graph_href(availability, precision="fp32", mixed=mixed)
            onnx.save(_graph(availability), path)
    item = {
        "properties": {
            "mlm:name": "small",
            "mlm:output": [
                {"classification:classes": [{"value": v, "name": n, "color_hint": c} for v, n, c in CLASSES]}
            ],
            "mmedge:schema": SCHEMA,
            "mmedge:modalities": modalities,
            "mmedge:tiling": {
                "kind": "convolutional",
                "window_px": window_px,
                "halo_px": halo_px,
                "align_px": 1,
                "token_px": 1,
                "resizable": resizable,
            },
            "mmedge:nodata": 255,
        }
    }
    write_model_json(folder, item, {".onnx": ["mlm:model"]})
    return folder


def _graph(availability: Availability) -> onnx.ModelProto:
    inputs, nodes, weights, towers = [], [], [], []

    def constant(name: str, values: Any) -> str:
        weights.append(numpy_helper.from_array(np.asarray(values, np.float32), name))
        return name

    for name in availability:
        rng, channels = np.random.default_rng(sum(map(ord, name))), CHANNELS[name]
        for tensor, kind, count in ((name, TensorProto.FLOAT, channels), (f"{name}_valid", TensorProto.BOOL, 1)):
            inputs.append(helper.make_tensor_value_info(tensor, kind, ["batch", count, "height", "width"]))
        scale = constant(
            f"{name}_scale", np.full((1, channels, 1, 1), {"optical": 5, "sar": 0.1, "elevation": 0.05}[name])
        )
        kernel = constant(f"{name}_w", rng.normal(size=(WIDTH, channels + 1, 3, 3)))
        nodes += [
            helper.make_node("Where", [f"{name}_valid", name, constant(f"{name}_mean", 0.0)], [f"{name}_filled"]),
            helper.make_node("Mul", [f"{name}_filled", scale], [f"{name}_scaled"]),
            helper.make_node("Cast", [f"{name}_valid"], [f"{name}_mask"], to=TensorProto.FLOAT),
            helper.make_node("Concat", [f"{name}_scaled", f"{name}_mask"], [f"{name}_in"], axis=1),
            helper.make_node("Conv", [f"{name}_in", kernel], [f"{name}_out"], pads=[1, 1, 1, 1]),
        ]
        towers.append(f"{name}_out")
    rng = np.random.default_rng(7)
    second = constant("second", rng.normal(size=(len(CLASSES), WIDTH, 3, 3)))
    nodes += [
        helper.make_node("Sum", towers, ["fused"]),
        helper.make_node("Tanh", ["fused"], ["hidden"]),
        helper.make_node("Conv", ["hidden", second], ["logits"], pads=[1, 1, 1, 1]),
    ]
    output = helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["batch", len(CLASSES), "height", "width"])
    graph = helper.make_graph(nodes, str(availability), inputs, [output], weights)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)])
    model.ir_version = 9
    onnx.checker.check_model(model)
    return model
