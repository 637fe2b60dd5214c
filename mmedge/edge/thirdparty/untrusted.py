"""Read an ONNX file that nobody vouches for: weights outside its folder and foreign operators are refused."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING

from mmedge.errors import BundleError
from mmedge.extras import need

if TYPE_CHECKING:
    import onnx

DOMAINS = ("", "ai.onnx")


def read_onnx(path: Path) -> onnx.ModelProto:
    """The model with its weights inside.

    Raises BundleError where it is no ONNX model, names external data that do not lie in its own folder, or uses
    operators that are not ONNX's own. MissingExtraError where onnx is not installed.
    """
    need("onnx")
    import onnx
    from onnx import external_data_helper
    from onnx.checker import ValidationError, check_model

    if not path.is_file():
        raise BundleError(f"no such file: `{path}`", hint="mmedge bundle create MODEL.onnx -o FOLDER")
    try:
        model: onnx.ModelProto = onnx.load(path, load_external_data=False)
    except need("google.protobuf.message").DecodeError as err:
        raise BundleError(f"`{path}` is no ONNX model: {err}", hint="export the network again") from None
    for tensor in _tensors(model.graph):
        if tensor.data_location == onnx.TensorProto.EXTERNAL:
            _check_external(path, tensor)
    foreign = sorted({n.domain for n in _nodes(model.graph)} - set(DOMAINS) - {f.domain for f in model.functions})
    if foreign:
        raise BundleError(
            f"`{path}` uses operators of {', '.join(foreign)}, which no backend promises to run",
            hint="export it with standard ONNX operators only",
        )
    try:
        external_data_helper.load_external_data_for_model(model, str(path.parent))
        check_model(model)
    except (ValidationError, ValueError, OSError) as err:
        raise BundleError(f"`{path}` is a broken ONNX model: {err}", hint="export the network again") from None
    return model


def _check_external(path: Path, tensor: onnx.TensorProto) -> None:
    location = {entry.key: entry.value for entry in tensor.external_data}.get("location", "")
    folder, href = path.parent.resolve(), PurePosixPath(location.replace("\\", "/"))
    inside = bool(location) and not href.is_absolute() and ".." not in href.parts and ":" not in location
    target = (folder / href).resolve() if inside else folder
    if not inside or folder not in target.parents:
        raise BundleError(
            f"`{path}` takes the weight `{tensor.name}` from `{location}`, outside its own folder",
            hint="an ONNX file that reads other files of this machine is not to be trusted",
        )
    if not target.is_file():
        raise BundleError(f"`{path}` lacks its weights `{location}`", hint="copy them beside the model")


def _nodes(graph: onnx.GraphProto) -> Iterator[onnx.NodeProto]:
    for node in graph.node:
        yield node
        for attribute in node.attribute:
            for inner in (*([attribute.g] if attribute.HasField("g") else []), *attribute.graphs):
                yield from _nodes(inner)


def _tensors(graph: onnx.GraphProto) -> Iterator[onnx.TensorProto]:
    """Every tensor of a graph: initialisers, constants, and those of graphs inside its nodes."""
    yield from graph.initializer
    for sparse in graph.sparse_initializer:
        yield from (sparse.values, sparse.indices)
    for node in graph.node:
        for attribute in node.attribute:
            yield from (*([attribute.t] if attribute.HasField("t") else []), *attribute.tensors)
            for inner in (*([attribute.g] if attribute.HasField("g") else []), *attribute.graphs):
                yield from _tensors(inner)
