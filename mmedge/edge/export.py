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

from mmedge.bundle import Tiling, graph_href
from mmedge.edge.external import WEIGHTS, places, refer
from mmedge.edge.models.mamol import CHANNELS, MaMOL, MaMOLConfig
from mmedge.edge.models.network import Network
from mmedge.edge.models.registry import build
from mmedge.errors import BundleError
from mmedge.modality import Availability

WINDOW_PX = 64
OPSET = 20
FOLD_ELEMENTS = 16  # shape arithmetic is folded, weights are not
LATER = ("shared", "special", "aware", "reaches")  # options of MaMOL that the first bundles do not name
INLINE_BYTES = 1 << 14  # what a graph may hold itself: shapes, scalars, constants of the architecture


def export_graphs(model: Network, folder: Path, tiling: Tiling) -> list[Path]:
    """Write every graph of the model and their common weights to `folder/graphs`; the graphs' paths."""
    align = tiling.align_px if tiling.resizable else None
    target = folder / "graphs"
    target.mkdir(parents=True, exist_ok=True)
    save_weights(model, target / WEIGHTS)
    stored = places(target / WEIGHTS)
    paths = []
    for availability in Availability.every(model.sensors):
        for mixed in (False, True):
            graph = to_onnx(model, availability.names, mixed=mixed, window_px=tiling.window_px, align_px=align)
            _check_size(graph, stored)
            refer(graph, stored)
            paths.append(folder / graph_href(availability, precision="fp32", mixed=mixed))
            onnx.save(graph, paths[-1])
    return paths


def save_weights(model: Network, path: Path) -> None:
    """The model's tensors and its recipe as safetensors: the same model gives the same bytes."""
    tensors = {name: t.detach().contiguous() for name, t in sorted(model.state_dict().items())}
    if type(model) is MaMOL:  # as in the bundles that came before recipes, and before some of the options
        usual = asdict(MaMOLConfig())
        options = {k: v for k, v in asdict(model.config).items() if k not in LATER or v != usual[k]}
        metadata = {"config": json.dumps(options, sort_keys=True)}
    else:
        metadata = {"recipe": json.dumps(model.recipe)}  # the order of its channels means something
    save_file(tensors, path, metadata)


def load_eager(folder: Path) -> Network:
    """The network of a bundle, rebuilt from its weights alone. Raises BundleError where they tell of no network."""
    if not (folder / "graphs" / WEIGHTS).exists():
        raise _no_network(folder)
    with safe_open(folder / "graphs" / WEIGHTS, framework="pt") as file:
        metadata = file.metadata() or {}
        if not metadata.keys() & {"recipe", "config"}:
            raise _no_network(folder)
        state = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    if "recipe" in metadata:
        model = build(json.loads(metadata["recipe"]))
    else:
        options = json.loads(metadata["config"])
        galileo = {"method": "mamol", "encoder": "galileo", "channels": CHANNELS, "classes": options.pop("classes")}
        model = build({**galileo, "options": options})
    model.load_state_dict(state)
    return model.eval().requires_grad_(False)


def _no_network(folder: Path) -> BundleError:
    return BundleError(f"`{folder.name}` has graphs, but no network for PyTorch", hint="--backend openvino")


class Positional(nn.Module):
    """The network with its inputs in a row: `m`, `m_valid` for each sensor."""

    def __init__(self, model: Network, sensors: tuple[str, ...], mixed: bool) -> None:
        super().__init__()
        self.model, self.sensors, self.mixed = model, sensors, mixed

    def forward(self, *inputs: Tensor) -> tuple[Tensor, ...]:
        data, valid = (dict(zip(self.sensors, row, strict=True)) for row in (inputs[::2], inputs[1::2]))
        return self.model.answers(data, valid, uniform=not self.mixed)


def to_onnx(
    model: Network, sensors: tuple[str, ...], *, mixed: bool, window_px: int = WINDOW_PX, align_px: int | None = None
) -> onnx.ModelProto:
    """One graph, weights inside; its float initialisers bear the names of the model's tensors.

    Windows are `window_px` wide, or where `align_px` is given any multiple of it.
    """
    side = (window_px, window_px) if align_px is None else (16 * align_px, 24 * align_px)  # apart: no two are one size
    example: list[Tensor] = []
    for m in sensors:
        example += [torch.zeros(2, model.channels[m], *side), torch.ones(2, 1, *side) > 0]
    free = {0: torch.export.Dim("batch", min=1, max=4096)}
    if align_px is not None:
        free |= {2 + i: align_px * torch.export.Dim(name, min=2, max=4096) for i, name in enumerate(("rows", "cols"))}
    with warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("ignore")  # the exporter's own deprecations
        program = torch.onnx.export(
            Positional(model.eval().requires_grad_(False), sensors, mixed).eval(),
            tuple(example),
            dynamo=True,
            opset_version=OPSET,
            optimize=False,
            verbose=False,
            input_names=[name for m in sensors for name in (m, f"{m}_valid")],
            output_names=list(model.outputs),
            dynamic_shapes={"inputs": tuple(free for _ in example)},
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


def _check_size(graph: onnx.ModelProto, stored: Mapping[str, tuple[int, int]]) -> None:
    inline = sum(numpy_helper.to_array(t).nbytes for t in graph.graph.initializer if t.name not in stored)
    if inline > INLINE_BYTES:
        raise RuntimeError(f"a graph holds {inline} bytes of constants beside the weights file")
