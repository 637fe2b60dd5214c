"""Network -> ONNX, one graph per availability twice over: for uniform windows and for mixed ones.

Float weights lie in `graphs/weights.safetensors`, once: a safetensors file is a header and raw bytes, so the graphs
name them there as ONNX external data. Nothing that depends on a weight is folded at export (the runtimes do so when
they load), so the graphs depend on the architecture alone and the weights file is the eager model.
"""

from __future__ import annotations

import json
import warnings
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path

import onnx
import onnx_ir
import torch
from onnx import numpy_helper
from onnxscript.optimizer import optimize_ir
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from mmedge.bundle import graph_href
from mmedge.edge.external import Place, places, refer
from mmedge.edge.models.mamol import CHANNELS, SENSORS, WINDOW_PX, MaMOL, MaMOLConfig
from mmedge.modality import Availability

WEIGHTS = "weights.safetensors"
OPSET = 20
FOLD_ELEMENTS = 16  # shape arithmetic is folded, weights are not
INLINE_BYTES = 1 << 14  # what a graph may hold itself: shapes, scalars, constants of the architecture


def export_graphs(model: MaMOL, folder: Path) -> list[Path]:
    """Write every graph of the model and their common weights to `folder/graphs`; the graphs' paths."""
    target = folder / "graphs"
    target.mkdir(parents=True, exist_ok=True)
    save_weights(model, target / WEIGHTS)
    found = places(target / WEIGHTS)
    paths = []
    for availability in Availability.every(SENSORS):
        for mixed in (False, True):
            graph = to_onnx(model, availability.names, mixed=mixed)
            _refer(graph, found)
            paths.append(folder / graph_href(availability, precision="fp32", mixed=mixed))
            onnx.save(graph, paths[-1])
    return paths


def save_weights(model: MaMOL, path: Path) -> None:
    """The model's tensors and its configuration as safetensors: the same model gives the same bytes."""
    tensors = {name: t.detach().contiguous() for name, t in sorted(model.state_dict().items())}
    save_file(tensors, path, {"config": json.dumps(asdict(model.config), sort_keys=True)})


def load_eager(folder: Path) -> MaMOL:
    """The network of a bundle, rebuilt from the bundle's weights alone."""
    with safe_open(folder / "graphs" / WEIGHTS, framework="pt") as file:
        config = MaMOLConfig(**json.loads(file.metadata()["config"]))
        state = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    model = MaMOL(config)
    model.load_state_dict(state)
    return model.eval().requires_grad_(False)


class _Positional(nn.Module):
    """The network with its inputs in a row: `m`, `m_valid` for each sensor."""

    def __init__(self, model: MaMOL, sensors: tuple[str, ...], mixed: bool) -> None:
        super().__init__()
        self.model, self.sensors, self.mixed = model, sensors, mixed

    def forward(self, *inputs: Tensor) -> Tensor:
        data, valid = (dict(zip(self.sensors, row, strict=True)) for row in (inputs[::2], inputs[1::2]))
        logits: Tensor = self.model(data, valid, uniform=not self.mixed)
        return logits


def to_onnx(model: MaMOL, sensors: tuple[str, ...], *, mixed: bool) -> onnx.ModelProto:
    """One graph, weights inside; its float initialisers bear the names of the model's tensors."""
    example: list[Tensor] = []
    for m in sensors:
        example += [torch.zeros(2, CHANNELS[m], WINDOW_PX, WINDOW_PX), torch.ones(2, 1, WINDOW_PX, WINDOW_PX) > 0]
    batch = torch.export.Dim("batch", min=1, max=4096)
    with warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("ignore")  # the exporter's own deprecations
        program = torch.onnx.export(
            _Positional(model.eval().requires_grad_(False), sensors, mixed).eval(),
            tuple(example),
            dynamo=True,
            opset_version=OPSET,
            optimize=False,
            verbose=False,
            input_names=[name for m in sensors for name in (m, f"{m}_valid")],
            output_names=["logits"],
            dynamic_shapes={"inputs": tuple({0: batch} for _ in example)},
        )
    if program is None:
        raise RuntimeError(f"the exporter gave no graph for {'+'.join(sensors)}")
    optimize_ir(program.model, should_fold=_may_fold)
    graph: onnx.ModelProto = program.model_proto
    if not all(value.type.tensor_type.shape.dim[0].dim_param for value in (*graph.graph.input, *graph.graph.output)):
        raise RuntimeError("the exporter has fixed the batch size: some operation of the network reads it as a number")
    _strip(graph)
    onnx.checker.check_model(graph)
    return graph


def _may_fold(node: onnx_ir.Node) -> bool | None:
    """Keep every node that reads a weight; leave the others to the optimiser's own judgement."""
    constants = [v.const_value for v in node.inputs if v is not None and v.const_value is not None]
    return False if any(c.size > FOLD_ELEMENTS for c in constants) else None


def _strip(graph: onnx.ModelProto) -> None:
    """Drop what the exporter notes about Python: paths and stack traces have no place in a file that is shipped."""
    for message in (graph, graph.graph, *graph.graph.node, *graph.graph.initializer):
        message.doc_string = ""
        del message.metadata_props[:]
    del graph.graph.value_info[:]
    graph.producer_name, graph.producer_version = "mmedge", ""
    for initializer in graph.graph.initializer:
        initializer.name = initializer.name.removeprefix("model.")
    for node in graph.graph.node:
        for i, name in enumerate(node.input):
            node.input[i] = name.removeprefix("model.")


def _refer(graph: onnx.ModelProto, found: Mapping[str, Place]) -> None:
    """Replace the weights inside a graph by their places in the weights file."""
    inline = 0
    for initializer in graph.graph.initializer:
        if initializer.name not in found:
            inline += numpy_helper.to_array(initializer).nbytes
            continue
        refer(initializer, WEIGHTS, found[initializer.name])
    if inline > INLINE_BYTES:
        raise RuntimeError(f"a graph holds {inline} bytes of constants beside the weights file")
