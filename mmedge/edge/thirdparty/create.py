"""`bundle create`: a third party's ONNX network becomes a bundle that every verb takes."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
from onnx import numpy_helper

from mmedge.bundle import LandClass, Tiling, graph_href, open_bundle, write_model_json
from mmedge.edge.external import WEIGHTS, places, refer
from mmedge.edge.item import ROLES
from mmedge.edge.thirdparty.card import item
from mmedge.edge.thirdparty.description import Description, merged, parse_description
from mmedge.edge.thirdparty.field import SIDES, Field, measure
from mmedge.edge.thirdparty.graph import Head, assign, dims, image_inputs, prepared, wrap
from mmedge.edge.thirdparty.metadata import metadata_description
from mmedge.edge.thirdparty.untrusted import read_onnx
from mmedge.errors import BundleError, OutputError, UsageError
from mmedge.extras import need
from mmedge.geo_io.tiling import wide_px
from mmedge.modality import Availability

SMALL_BYTES = 1 << 10  # what stays in the graphs: shapes, scalars
CPU_OPTIONS = {"INFERENCE_PRECISION_HINT": "f32", "INFERENCE_NUM_THREADS": "1"}
Array = npt.NDArray[np.float32]


@dataclass(frozen=True, slots=True, kw_only=True)
class Created:
    """A bundle that was made. `field` None: the network sees all of its window."""

    folder: Path
    tiling: Tiling
    field: Field | None
    head: Head
    warnings: tuple[str, ...]

    def document(self) -> dict[str, Any]:
        """What was made and measured, as JSON of schema `mmedge.bundle.create/1`."""
        return {
            "schema": "mmedge.bundle.create/1",
            "bundle": str(self.folder),
            "tiling": self.tiling.kind,
            "window_px": self.tiling.window_px,
            "halo_px": self.tiling.halo_px,
            "receptive_field_px": None if self.field is None else 2 * self.field.radius_px + 1,
            "stride_px": None if self.field is None else self.field.stride_px,
            "any_size": self.tiling.resizable,
            "outputs": self.head.kind,
            "classes": self.head.classes,
        }


def create_bundle(model: Path, folder: Path, told: Mapping[str, Any], *, overwrite: bool = False) -> Created:
    """Wrap `model` into the bundle `folder`. `told`: a description over what the file's own metadata say.

    Raises BundleError for a network that cannot be wrapped or is not to be trusted, UsageError for what the description
    lacks, OutputError where the folder exists. Nothing half-written is left.
    """
    need("safetensors")
    if folder.exists() and not (overwrite and (folder / "model.json").is_file()):
        hint = "--overwrite replaces it" if (folder / "model.json").is_file() else "-o FOLDER, a new one"
        raise OutputError(f"`{folder}` exists already", hint=hint)
    source = read_onnx(model)
    described = _described(source, told, model.stem)
    network, tensors = prepared(source), assign(source, described.inputs)
    probe = _Probe(network, described, tensors, _side(source))
    described = replace(described, classes=_classes(described.classes, probe.head))
    field = None if probe.head.whole else measure(probe.wrapped(), probe.bands, sides=probe.sides)
    tiling, warnings = _tiling(described, field, probe)
    part = folder.with_name(folder.name + ".part")
    shutil.rmtree(part, ignore_errors=True)
    try:
        _write(part, network, described, tensors, probe, field, tiling)
        open_bundle(part)
        if folder.exists():
            shutil.rmtree(folder)
        part.replace(folder)
    finally:
        shutil.rmtree(part, ignore_errors=True)
    warnings += [
        f"`{s.modality.name}`: no mean was given, so invalid pixels become {s.fill[0]:g}; better is `--fill "
        f"{s.modality.name}=...`, the mean of the training data"
        for s in described.inputs
        if not any(s.fill)
    ]
    return Created(folder=folder, tiling=tiling, field=field, head=probe.head, warnings=tuple(warnings))


def _described(source: onnx.ModelProto, told: Mapping[str, Any], stem: str) -> Description:
    images = image_inputs(source)
    channels = dims(images[0])[1] if len(images) == 1 else None
    props = {entry.key: entry.value for entry in source.metadata_props}
    return parse_description(merged(metadata_description(props, channels or 0), told), name=stem)


def _side(source: onnx.ModelProto) -> int | None:
    """The height and width that the network declares, None where they are open."""
    sides = {side for value in image_inputs(source) for side in dims(value)[2:] if side}
    if len(sides) > 1:
        raise BundleError(f"the network takes windows of {sorted(sides)} px", hint="export it for square windows")
    return sides.pop() if sides else None


class _Probe:
    """The network, run at any size on standard normal input to find out about it.

    `fixed_px`: the only window that it takes, None where it takes any.
    """

    def __init__(
        self, network: onnx.ModelProto, described: Description, tensors: dict[str, str], declared_px: int | None
    ) -> None:
        self._network, self._described, self._tensors = network, described, tensors
        self.bands = sum(len(s.modality.bands) for s in described.inputs)
        self.order = tuple(s.modality.name for s in described.inputs)
        side = declared_px or described.window_px or SIDES[0]
        self.head = self._head(side)
        self.fixed_px = side if declared_px and not self._takes(side + 64) else None

    @property
    def sides(self) -> tuple[int, ...]:
        return SIDES if self.fixed_px is None else (self.fixed_px,)

    def wrapped(self) -> Callable[[Array], Array]:
        """The graph of the bundle for all sensors: normalised input (bands, side, side) -> logits."""
        return self._run(self.graph(Availability.of(self.order, self.order)))

    def graph(self, present: Availability) -> onnx.ModelProto:
        return wrap(self._network, self._described.inputs, self._tensors, self.head, present)

    def _run(self, graph: onnx.ModelProto) -> Callable[[Array], Array]:
        import openvino as ov

        core, loaded = ov.Core(), graph.SerializeToString()
        compiled: dict[int, Any] = {}

        def run(x: Array) -> Array:
            side = x.shape[1]
            if side not in compiled:
                model = core.read_model(loaded)
                feeds = self._feeds(x)
                model.reshape({name: ov.PartialShape(list(value.shape)) for name, value in feeds.items()})
                compiled[side] = core.compile_model(model, "CPU", CPU_OPTIONS)
            logits: Array = compiled[side](self._feeds(x))[0][0]
            return logits

        return run

    def _feeds(self, x: Array) -> dict[str, npt.NDArray[Any]]:
        feeds: dict[str, npt.NDArray[Any]] = {}
        first = 0
        for s in self._described.inputs:
            last = first + len(s.modality.bands)
            mean, std = (np.reshape(v, (-1, 1, 1)).astype(np.float32) for v in (s.mean, s.std))
            feeds[s.modality.name] = (x[first:last] * std + mean)[None]
            feeds[f"{s.modality.name}_valid"] = np.ones((1, 1, *x.shape[1:]), bool)
            first = last
        return feeds

    def _head(self, side: int) -> Head:
        """What comes out, from one run of the network as it is."""
        answer = self._answer(side)
        if answer.dtype.kind != "f":
            raise BundleError(
                f"the network answers {answer.dtype} numbers", hint="export it without the argmax: scores are wanted"
            )
        shape, classes = answer.shape[1:], len(self._described.classes)
        whole = shape in ((shape[0],), (shape[0], 1, 1))
        if not whole and (len(shape) != 3 or shape[1] != shape[2] or side % shape[1]):
            raise BundleError(
                f"for windows of {side} px the network answers {answer.shape}",
                hint="(batch, classes, height, width) or (batch, classes) is wanted",
            )
        if shape[0] != classes and (shape[0], classes) not in ((1, 1), (1, 2)):
            raise BundleError(
                f"the network gives {shape[0]} outputs, {classes} classes were named",
                hint="--classes with one name for each output, in their order",
            )
        kind = "probabilities" if answer.min() >= 0 and answer.max() <= 1 else "logits"
        return Head(shape[0], whole, 1 if whole else side // shape[1], kind)  # type: ignore[arg-type]

    def _takes(self, side: int) -> bool:
        """Whether the network can be run at another size than it declares."""
        try:
            shape = self._answer(side).shape
        except BundleError:
            return False
        return not self.head.whole and shape[2:] == (side // self.head.scale,) * 2

    def _answer(self, side: int) -> npt.NDArray[Any]:
        """The raw output for a window of that size, two at once. Raises BundleError where it cannot be run."""
        import openvino as ov

        rng, core = np.random.default_rng(1), ov.Core()
        try:
            model = core.read_model(self._network.SerializeToString())
            shapes = {value.any_name: [2, self._channels(value.any_name), side, side] for value in model.inputs}
            model.reshape({name: ov.PartialShape(shape) for name, shape in shapes.items()})
            compiled = core.compile_model(model, "CPU", CPU_OPTIONS)
            feeds = {
                port.any_name: rng.standard_normal(shapes[port.any_name]).astype(port.element_type.to_dtype())
                for port in compiled.inputs
            }
            answer: npt.NDArray[Any] = compiled(feeds)[0].copy()
        except RuntimeError as err:
            raise BundleError(
                f"the network does not run on two windows of {side} px: {str(err).strip().splitlines()[-1]}",
                hint="export it with a dynamic batch; --window N where it takes one size alone",
            ) from None
        return answer

    def _channels(self, tensor: str) -> int:
        names = {f"network/{given}": sensor for sensor, given in self._tensors.items()}
        return next(len(s.modality.bands) for s in self._described.inputs if s.modality.name == names[tensor])


def _classes(classes: tuple[LandClass, ...], head: Head) -> tuple[LandClass, ...]:
    """A network with one output says yes or no: what is not its class is `other`."""
    if head.channels > 1 or len(classes) == 2:
        return classes
    only = classes[0] if classes[0].value else replace(classes[0], value=1)
    return (LandClass(0, "other", (221, 221, 221)), only)


def _tiling(described: Description, field: Field | None, probe: _Probe) -> tuple[Tiling, list[str]]:
    """Where the windows lie: exact for a network whose field fits into them, else a lattice."""
    asked = probe.fixed_px or described.window_px
    if described.window_px and probe.fixed_px and described.window_px != probe.fixed_px:
        raise UsageError(f"the network takes windows of {probe.fixed_px} px alone", hint="leave --window out")
    if field is not None:
        window = asked or wide_px(field.halo_px)
        window -= 0 if probe.fixed_px else window % field.stride_px
        if window - 2 * field.halo_px >= field.stride_px and window % field.stride_px == 0:
            return Tiling(
                kind="convolutional",
                window_px=window,
                halo_px=field.halo_px,
                align_px=field.stride_px,
                token_px=1,
                resizable=probe.fixed_px is None,
            ), []
    window = asked or SIDES[0]
    halo = (window - described.step_px) // 2 if described.step_px else 0 if probe.head.whole else window // 8
    if not 0 <= 2 * halo < window:
        raise UsageError(f"a step of {described.step_px} px in windows of {window} px", hint="--step below --window")
    step = window - 2 * halo
    seen = "more than its window holds" if field is None else f"{field.radius_px} px to each side"
    warnings = [] if probe.head.whole else [f"the network sees {seen}: windows will meet in seams"]
    return Tiling(kind="attention", window_px=window, halo_px=halo, align_px=step, token_px=1), warnings


def _write(
    folder: Path,
    network: onnx.ModelProto,
    described: Description,
    tensors: dict[str, str],
    probe: _Probe,
    field: Field | None,
    tiling: Tiling,
) -> None:
    from safetensors.numpy import save_file

    (folder / "graphs").mkdir(parents=True)
    weights = _weights(network)
    stored: dict[str, tuple[int, int]] = {}
    if weights:
        save_file(weights, folder / "graphs" / WEIGHTS)
        stored = places(folder / "graphs" / WEIGHTS)
    for present in Availability.every(probe.order):
        graph = probe.graph(present)
        refer(graph, stored)
        onnx.save(graph, folder / graph_href(present, precision="fp32", mixed=False))
    parameters = sum(int(np.prod(t.dims)) for t in network.graph.initializer if len(t.dims))
    measured = None if field is None else asdict(field)
    card = item(described, probe.head, tiling, measured, parameters)
    write_model_json(folder, card, ROLES, {".onnx": {"bands": card["properties"]["bands"]}})


def _weights(network: onnx.ModelProto) -> dict[str, npt.NDArray[Any]]:
    """The initialisers that are stored once for all graphs."""
    found = {t.name: np.ascontiguousarray(numpy_helper.to_array(t)) for t in network.graph.initializer}
    return {name: array for name, array in sorted(found.items()) if array.nbytes > SMALL_BYTES and array.ndim}
