"""Small ONNX networks as third parties write them: seeded weights, known receptive fields."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper


def segmenter(
    path: Path,
    *,
    inputs: dict[str, int],
    classes: int = 3,
    side: int | None = None,
    head: str | None = None,
    halved: bool = False,
) -> Path:
    """Pool 2 x 2, convolve, enlarge, convolve: stride 2, sees 4 pixels to each side. The inputs' bands are joined.

    `side`: the size it declares, open where None; `head`: an activation behind; `halved`: left at half size.
    """
    weights, nodes = [], []
    rng = np.random.default_rng(5)

    def constant(name: str, values: Any) -> str:
        weights.append(numpy_helper.from_array(np.asarray(values, np.float32), name))
        return name

    def add(operator: str, names: list[str], output: str, **attributes: Any) -> str:
        nodes.append(helper.make_node(operator, names, [output], **attributes))
        return output

    x = add("Concat", list(inputs), "joined", axis=1)
    x = add("MaxPool", [x], "pooled", kernel_shape=[2, 2], strides=[2, 2])
    x = add("Conv", [x, constant("w1", rng.normal(size=(8, sum(inputs.values()), 3, 3)))], "c1", pads=[1, 1, 1, 1])
    x = add("Relu", [x], "r1")
    if not halved:
        x = add("Resize", [x, "", constant("twice", [1, 1, 2, 2])], "up", mode="nearest")
    x = add("Conv", [x, constant("w2", rng.normal(size=(classes, 8, 3, 3)))], "scores", pads=[1, 1, 1, 1])
    if head:
        x = add(head, [x], "activated", **({"axis": 1} if head in ("Softmax", "ArgMax") else {}))
    kind = TensorProto.INT64 if head == "ArgMax" else TensorProto.FLOAT
    return _save(path, nodes, weights, inputs, x, [None, None, None, None], side, kind)


def classifier(path: Path, *, bands: int, classes: int, side: int) -> Path:
    """The mean of each band, then a matrix: one answer for the whole window."""
    rng = np.random.default_rng(6)
    weights = [numpy_helper.from_array(rng.normal(size=(bands, classes)).astype(np.float32), "w")]
    nodes = [
        helper.make_node("GlobalAveragePool", ["image"], ["mean"]),
        helper.make_node("Flatten", ["mean"], ["flat"]),
        helper.make_node("MatMul", ["flat", "w"], ["answer"]),
    ]
    return _save(path, nodes, weights, {"image": bands}, "answer", [None, None], side, TensorProto.FLOAT)


def _save(
    path: Path,
    nodes: list[Any],
    weights: list[Any],
    inputs: dict[str, int],
    output: str,
    shape: list[None],
    side: int | None,
    kind: int,
) -> Path:
    images = [
        helper.make_tensor_value_info(name, TensorProto.FLOAT, ["n", bands, side or "h", side or "w"])
        for name, bands in inputs.items()
    ]
    graph = helper.make_graph(nodes, "net", images, [helper.make_tensor_value_info(output, kind, shape)], weights)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)])
    model.ir_version = 9
    onnx.save(model, path)
    return path


def with_metadata(path: Path, **values: str) -> Path:
    """The same file with `metadata_props`."""
    model = onnx.load(path)
    helper.set_model_props(model, values)
    onnx.save(model, path)
    return path
