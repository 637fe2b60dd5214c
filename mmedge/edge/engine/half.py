"""fp32 graph -> fp16 graph by its dtypes, for strongly typed networks. Weights stay where they are, once, in fp32.

Normalisation of the inputs and of layers stays fp32. Between the two a value is cast once; a cast weight is folded when
an engine is built.
"""

from __future__ import annotations

import onnx
from onnx import NodeProto, TensorProto, helper

# LayerNormalization in fp16 overflows on large activations (TensorRT #2564, #4493). Resize wants fp32 scales. What
# ConstantOfShape gives has the type of its attribute.
KEEP_FLOAT = ("LayerNormalization", "Softmax", "Resize", "Range", "ConstantOfShape")
PRODUCTS = ("MatMul", "Conv", "ConvTranspose", "Gemm")
FLOAT, HALF = TensorProto.FLOAT, TensorProto.FLOAT16


def to_half(model: onnx.ModelProto) -> onnx.ModelProto:
    """The graph in fp16 from its first products on; inputs and logits stay fp32. Weights may lie outside."""
    half = onnx.ModelProto()
    half.CopyFrom(model)
    graph, floats = half.graph, _float_values(model)
    types = dict.fromkeys((v.name for v in (*graph.input, *graph.initializer) if v.name in floats), FLOAT)
    plain = before_products(model)
    nodes: list[NodeProto] = []
    cast: dict[str, str] = {}

    def version(name: str, wanted: int) -> str:
        """The value in the wanted dtype, cast where it is first needed."""
        if name not in floats or types[name] == wanted:
            return name
        if name not in cast:
            cast[name] = f"{name}_{'fp16' if wanted == HALF else 'fp32'}"
            nodes.append(helper.make_node("Cast", [name], [cast[name]], name=cast[name], to=wanted))
        return cast[name]

    for node in graph.node:
        wanted = FLOAT if node.op_type in KEEP_FLOAT or set(node.output) & plain else HALF
        inputs = [version(name, wanted) for name in node.input]
        del node.input[:]
        node.input.extend(inputs)
        for attribute in node.attribute:
            if node.op_type == "Cast" and attribute.name == "to" and attribute.i == FLOAT:
                attribute.i = wanted
        nodes.append(node)
        types |= dict.fromkeys((name for name in node.output if name in floats), wanted)
    for value in graph.output:
        if types.get(value.name) == HALF:
            _rename(nodes, value.name, f"{value.name}_fp16")
            nodes.append(helper.make_node("Cast", [f"{value.name}_fp16"], [value.name], name=value.name, to=FLOAT))
    del graph.node[:], graph.value_info[:]
    graph.node.extend(nodes)
    return half


def _rename(nodes: list[NodeProto], old: str, new: str) -> None:
    for node in nodes:
        for names in (node.input, node.output):
            for i, name in enumerate(names):
                if name == old:
                    names[i] = new


def _float_values(model: onnx.ModelProto) -> set[str]:
    """Names of the values of a graph that are fp32."""
    graph = onnx.shape_inference.infer_shapes(model, data_prop=True).graph
    values = (*graph.input, *graph.output, *graph.value_info)
    found = {v.name for v in values if v.type.tensor_type.elem_type == FLOAT}
    return found | {i.name for i in graph.initializer if i.data_type == FLOAT}


def before_products(model: onnx.ModelProto) -> set[str]:
    """Values that come from the inputs with no product on the way, nor beside: pixels that are being normalised."""
    plain, after = {value.name for value in model.graph.input}, set[str]()
    for node in model.graph.node:
        if node.op_type in PRODUCTS or after & set(node.input):
            after |= set(node.output)
        elif plain & set(node.input):
            plain |= set(node.output)
    return plain
