"""Q/DQ in the one recipe that TensorRT, OpenVINO and ONNX Runtime all accept.

int8 everywhere, symmetric; weights per output channel, activations per tensor; no bias is quantized and no output of a
MatMul or Conv. ONNX Runtime's quantizer inserts the nodes; the scales are ours. Only products with a constant are
quantized: gathered experts (MARS) and attention scores stay float.
"""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
from onnx import TensorProto, helper, numpy_helper
from onnx.reference import ReferenceEvaluator
from onnxruntime.quantization import QuantType
from onnxruntime.quantization.calibrate import CalibrationMethod, TensorData, TensorsData
from onnxruntime.quantization.qdq_quantizer import QDQQuantizer
from safetensors.numpy import save_file

from mmedge.edge.external import places, point

Array = npt.NDArray[Any]
INT8_WEIGHTS = "weights.int8.safetensors"
RECIPE = {
    "ActivationSymmetric": True,
    "WeightSymmetric": True,
    "QuantizeBias": False,
    "OpTypesToExcludeOutputQuantization": ["Conv", "MatMul", "Gemm", "Add"],
}


@dataclass(frozen=True, slots=True)
class Layer:
    """A product with a constant: `name` is that of its weight, the same in every graph and tower that uses it.

    `products`: how many an output sums up.
    """

    name: str
    node: str
    input: str
    weight: str
    products: int


def linear_layers(model: onnx.ModelProto) -> list[Layer]:
    """The MatMuls and Convs of a graph whose second factor is constant."""
    roots = constant_roots(model)
    sizes = {i.name: int(np.prod(i.dims)) for i in model.graph.initializer}
    nodes = [
        node
        for node in model.graph.node
        if node.op_type in ("MatMul", "Conv") and node.input[1] in roots and node.input[0] not in roots
    ]
    weights = constant_values(model, {node.input[1] for node in nodes})
    found = []
    for node in nodes:
        root = max(roots[node.input[1]], key=lambda name: (sizes[name], name))
        weight = weights[node.input[1]]
        products = int(np.prod(weight.shape[1:])) if node.op_type == "Conv" else weight.shape[-2]
        found.append(Layer(root.removesuffix(".weight"), node.name, node.input[0], node.input[1], products))
    return found


def constant_roots(model: onnx.ModelProto) -> dict[str, frozenset[str]]:
    """For each constant value of a graph, the initialisers that it comes from."""
    roots = {i.name: frozenset({i.name}) for i in model.graph.initializer}
    for node in model.graph.node:
        if node.input and all(name in roots for name in node.input):
            roots |= dict.fromkeys(node.output, frozenset().union(*(roots[name] for name in node.input)))
    return roots


def load_graph(path: Path) -> tuple[onnx.ModelProto, dict[str, list[onnx.StringStringEntryProto]]]:
    """A graph with its weights and a name for each node, and where each weight lies outside it."""
    bare, model = onnx.load(path, load_external_data=False), onnx.load(path)
    for node in model.graph.node:
        node.name = node.name or node.output[0]
    return model, {i.name: list(i.external_data) for i in bare.graph.initializer if i.external_data}


def quantized(model: onnx.ModelProto, layers: Sequence[Layer], clips: Mapping[str, float]) -> onnx.ModelProto:
    """The graph with Q/DQ around `layers`. `clips`: the largest magnitude that int8 keeps of each layer's input."""
    out = onnx.ModelProto()
    out.CopyFrom(model)
    if not layers:  # to the quantizer, no node means every node
        return out
    _fold_weights(out, layers)
    ranges = {n: TensorData(lowest=np.float32(-c), highest=np.float32(c)) for n, c in clips.items()}
    quantizer = QDQQuantizer(
        out,
        per_channel=True,
        reduce_range=False,
        weight_qType=QuantType.QInt8,
        activation_qType=QuantType.QInt8,
        tensors_range=TensorsData(CalibrationMethod.MinMax, ranges),
        nodes_to_quantize=[layer.node for layer in layers],
        nodes_to_exclude=[],
        op_types_to_quantize=["MatMul", "Conv"],
        extra_options=dict(RECIPE),
    )
    quantizer.quantize_model()
    quantizer.model.topological_sort()
    result: onnx.ModelProto = quantizer.model.model
    _keep_floats_float(result, {layer.node for layer in layers})
    kept = [entry for entry in result.opset_import if entry.domain == ""]
    del result.opset_import[:]
    result.opset_import.extend(kept)
    result.producer_name, result.producer_version = "mmedge", ""
    return result


def _keep_floats_float(model: onnx.ModelProto, chosen: Collection[str]) -> None:
    """Let nodes that are not quantized read what was there before Q/DQ: the quantizer rewires every reader."""
    suffix = "_DequantizeLinear_Output"
    for node in model.graph.node:
        if node.name not in chosen and node.op_type != "DequantizeLinear":
            for i, name in enumerate(node.input):
                node.input[i] = name.removesuffix(suffix)


def constant_values(model: onnx.ModelProto, names: Collection[str]) -> dict[str, Array]:
    """Values that a graph computes from its initialisers alone."""
    roots = constant_roots(model)
    values = {i.name: numpy_helper.to_array(i) for i in model.graph.initializer if i.name in names}
    computed = sorted(set(names) - set(values))
    if computed:
        nodes = [n for n in model.graph.node if n.input and all(name in roots for name in n.input)]
        outputs = [helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in computed]
        part = helper.make_graph(nodes, "constants", [], outputs, list(model.graph.initializer))
        source = helper.make_model(part, opset_imports=model.opset_import, ir_version=model.ir_version)
        results: Sequence[Any] = list(ReferenceEvaluator(source).run(None, {}))
        values |= zip(computed, results, strict=True)
    return values


def _fold_weights(model: onnx.ModelProto, layers: Sequence[Layer]) -> None:
    """Give each layer an initialiser of its own as weight, where it is computed from others (transposed, gathered)."""
    graph, names = model.graph, {layer.weight: layer.name for layer in layers}
    have = {i.name for i in graph.initializer}
    renamed = {}
    for old, value in constant_values(model, set(names) - have).items():
        array = np.ascontiguousarray(value, np.float32)
        renamed[old] = f"{names[old]}.{hashlib.sha256(array.tobytes()).hexdigest()[:8]}"
        graph.initializer.append(numpy_helper.from_array(array, renamed[old]))
    chosen = {layer.node for layer in layers}
    for node in graph.node:
        if node.name in chosen:
            node.input[1] = renamed.get(node.input[1], node.input[1])
    drop_unused(graph)


def drop_unused(graph: onnx.GraphProto) -> None:
    """Remove nodes whose outputs nobody reads, then initialisers."""
    needed = {value.name for value in graph.output}
    nodes = []
    for node in reversed(graph.node):
        if needed & set(node.output):
            nodes.append(node)
            needed |= set(node.input)
    initializers = [i for i in graph.initializer if i.name in needed]
    del graph.node[:], graph.initializer[:]
    graph.node.extend(reversed(nodes))
    graph.initializer.extend(initializers)


def save_quantized(
    models: Mapping[Path, onnx.ModelProto], external: Mapping[str, list[onnx.StringStringEntryProto]]
) -> None:
    """Write quantized graphs into one folder, their int8 weights and scales once, beside them.

    `external` says where the float weights lie already.
    """
    folder = next(iter(models)).parent
    shared: dict[str, Array] = {}
    for model in models.values():
        for tensor in model.graph.initializer:
            if tensor.name.endswith(("_quantized", "_scale")) and len(tensor.dims):
                value = numpy_helper.to_array(tensor)
                if not np.array_equal(shared.setdefault(tensor.name, value), value):
                    raise RuntimeError(f"two graphs quantize `{tensor.name}` differently")
    save_file({name: np.ascontiguousarray(shared[name]) for name in sorted(shared)}, folder / INT8_WEIGHTS)
    found = places(folder / INT8_WEIGHTS)
    for path, model in models.items():
        for tensor in model.graph.initializer:
            if tensor.name in found:
                point(tensor, INT8_WEIGHTS, found[tensor.name])
            elif tensor.name in external:
                tensor.ClearField("raw_data")
                tensor.data_location = TensorProto.EXTERNAL
                del tensor.external_data[:]
                tensor.external_data.extend(external[tensor.name])
        onnx.save(model, path)
        onnx.checker.check_model(str(path))
