"""The network of a bundle as an exported PyTorch program: one set of sensors, any batch, precision in its dtypes.

It is what torch-TensorRT compiles. fp16 is autocast while the program is traced: products are half, layer norms and
softmax as autocast has them, weights stay fp32 and are cast once, when an engine is built.
"""

from __future__ import annotations

import warnings
from collections import Counter
from collections.abc import Mapping

import torch
from torch import Tensor, nn
from torch.export import Dim, ExportedProgram

from mmedge.bundle import Bundle
from mmedge.edge.export import Positional, load_eager
from mmedge.edge.models.network import Network
from mmedge.edge.runtime.session import GraphKey, input_shapes
from mmedge.errors import BundleError

DTYPES = {"fp32": torch.float32, "fp16": torch.float16}
PRODUCTS = ("linear", "matmul", "conv2d", "conv_transpose2d", "bmm", "addmm", "mm", "convolution", "einsum")


class _Typed(nn.Module):
    """A network whose products compute in `dtype` and whose outputs are fp32."""

    def __init__(self, inner: nn.Module, dtype: torch.dtype) -> None:
        super().__init__()
        self.inner, self.dtype = inner, dtype

    def forward(self, *inputs: Tensor) -> tuple[Tensor, ...]:
        with torch.autocast(inputs[0].device.type, self.dtype, enabled=self.dtype != torch.float32):
            outputs: tuple[Tensor, ...] = self.inner(*inputs)
        return tuple(y.float() if y.is_floating_point() else y for y in outputs)


def export_program(
    bundle: Bundle,
    key: GraphKey,
    precision: str,
    batch: tuple[int, int, int],
    device: torch.device | None = None,
) -> ExportedProgram:
    """The network of a bundle with the sensors of a graph; inputs in the graph's order.

    Raises BundleError where the bundle has no network, or a product does not compute in the precision asked for.
    """
    network = load_eager(bundle.folder).to(device or torch.device("cpu"))
    program = export_network(network, key, input_shapes(bundle, key, 1), precision, batch)
    check_products(product_types(program), precision, str(key))
    return program


def export_network(
    network: Network, key: GraphKey, shapes: Mapping[str, tuple[int, ...]], precision: str, batch: tuple[int, int, int]
) -> ExportedProgram:
    """A network for inputs of `shapes`, in batches from the least to the largest."""
    device = next(network.parameters()).device
    model = _Typed(Positional(network, key.availability.names, key.mixed), DTYPES[precision]).eval()
    least, _, largest = batch
    # With one window the exporter would take the batch for the number 1.
    size = largest if least == largest else max(2, largest)
    example = tuple(
        torch.ones(size, *shape[1:], dtype=torch.bool if name.endswith("_valid") else torch.float32, device=device)
        for name, shape in shapes.items()
    )
    dims = None if least == largest else ({0: Dim("batch", min=least, max=largest)},) * len(example)
    with warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("ignore")  # the exporter's own deprecations
        program: ExportedProgram = torch.export.export(
            model, example, dynamic_shapes=dims and {"inputs": dims}, strict=False
        )
        typed: ExportedProgram = program.run_decompositions({})  # autocast becomes casts
    return typed


def product_types(program: ExportedProgram) -> dict[str, int]:
    """How many products of each kind give each dtype, as `linear:float16`."""
    found: Counter[str] = Counter()
    for node in program.graph.nodes:
        kind = str(node.target).split(".")[1] if node.op == "call_function" and "." in str(node.target) else ""
        if kind in PRODUCTS:
            found[f"{kind}:{str(node.meta['val'].dtype).removeprefix('torch.')}"] += 1
    return dict(sorted(found.items()))


def check_products(types: Mapping[str, int], precision: str, graph: str) -> None:
    """Raises BundleError where a product has another dtype, or where there is none."""
    wanted = str(DTYPES[precision]).removeprefix("torch.")
    wrong = {name: count for name, count in types.items() if not name.endswith(f":{wanted}")}
    if wrong or not types:
        raise BundleError(f"`{graph}` was asked for in {precision}, but its products are {dict(types)}")
