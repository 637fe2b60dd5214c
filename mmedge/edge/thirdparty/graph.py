"""Wrap a network: sensors in model units and their masks in, logits as large as the window out.

In front: Where(valid, x, fill), then (x - mean) / std. Behind: probabilities become their logarithms, a single output
becomes two classes, a small output is enlarged, one answer for the whole window is spread over it. A sensor that is
absent is `fill` everywhere, so that every set of sensors has a graph.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import onnx
from onnx import TensorProto, compose, helper, numpy_helper

from mmedge.edge.thirdparty.description import SensorInput
from mmedge.errors import BundleError
from mmedge.modality import Availability

PREFIX = "network/"
OPSETS = (13, 99)
TINY = 1e-7  # the smallest probability: its logarithm is finite


@dataclass(frozen=True, slots=True)
class Head:
    """What comes out of a network: `channels` values for each pixel of a `scale` times smaller picture, or, `whole`,
    for all of it.
    """

    channels: int
    whole: bool
    scale: int
    kind: Literal["logits", "probabilities"]

    @property
    def classes(self) -> int:
        return max(2, self.channels)


def image_inputs(model: onnx.ModelProto) -> list[onnx.ValueInfoProto]:
    """The inputs of a network, constants aside. Raises BundleError where one is no (batch, bands, height, width)."""
    constants = {tensor.name for tensor in model.graph.initializer}
    inputs = [value for value in model.graph.input if value.name not in constants]
    for value in inputs:
        if len(value.type.tensor_type.shape.dim) != 4:
            raise BundleError(
                f"input `{value.name}` is no image: (batch, bands, height, width) is wanted, it has {dims(value)}",
                hint="export the network so that it takes images alone",
            )
    return inputs


def dims(value: onnx.ValueInfoProto) -> list[int | None]:
    """The shape as declared, None where it is open."""
    return [d.dim_value or None for d in value.type.tensor_type.shape.dim]


def assign(model: onnx.ModelProto, inputs: Sequence[SensorInput]) -> dict[str, str]:
    """Which tensor each sensor goes to: the one that was named, else that of the sensor's name, else the next free."""
    free = {value.name: value for value in image_inputs(model)}
    if len(free) != len(inputs):
        raise BundleError(
            f"the network takes {len(free)} images ({', '.join(free)}), {len(inputs)} sensors were described",
            hint="--bands SENSOR=B1,B2,... once for each of them",
        )
    chosen = {}
    for sensor in sorted(inputs, key=lambda s: (s.tensor or s.modality.name) not in free):
        wanted = sensor.tensor or (sensor.modality.name if sensor.modality.name in free else next(iter(free)))
        if wanted not in free:
            raise BundleError(f"the network has no input `{wanted}` left", hint=f"it takes {', '.join(free)}")
        _check_bands(free.pop(wanted), sensor)
        chosen[sensor.modality.name] = wanted
    return chosen


def _check_bands(value: onnx.ValueInfoProto, sensor: SensorInput) -> None:
    shape, bands = dims(value), len(sensor.modality.bands)
    if shape[1] not in (None, bands):
        last = " (its last dimension fits: bands must come second)" if shape[3] == bands else ""
        raise BundleError(
            f"input `{value.name}` has the shape {shape}, {bands} bands were named{last}",
            hint=f"--bands {sensor.modality.name}=... with one name for each band"
            if not last
            else "export the network as (batch, bands, height, width)",
        )


def prepared(model: onnx.ModelProto) -> onnx.ModelProto:
    """The network with open shapes and names that cannot clash with ours; nothing that an exporter noted is kept."""
    opset = max((entry.version for entry in model.opset_import if entry.domain in ("", "ai.onnx")), default=0)
    if not OPSETS[0] <= opset <= OPSETS[1]:
        raise BundleError(f"the network is written in ONNX opset {opset}", hint=f"export it with opset {OPSETS[0]}-20")
    if len(model.graph.output) != 1:
        names = ", ".join(value.name for value in model.graph.output)
        raise BundleError(f"the network has {len(model.graph.output)} outputs: {names}", hint="export one of them")
    model = compose.add_prefix(model, PREFIX)
    del model.graph.value_info[:]
    del model.metadata_props[:]
    constants = {tensor.name for tensor in model.graph.initializer}
    kept = [value for value in model.graph.input if value.name not in constants]
    del model.graph.input[:]
    model.graph.input.extend(kept)
    return model


def wrap(
    network: onnx.ModelProto, inputs: Sequence[SensorInput], tensors: dict[str, str], head: Head, present: Availability
) -> onnx.ModelProto:
    """The graph of a bundle for the sensors of `present`, from a `prepared` network."""
    parts = _Parts()
    like = f"{present.names[0]}_valid"
    for sensor in inputs:
        target = PREFIX + tensors[sensor.modality.name]
        kind = next(v.type.tensor_type.elem_type for v in network.graph.input if v.name == target)
        parts.feed(sensor, target, kind, like=None if sensor.modality.name in present else like)
    nodes = [*parts.nodes, *network.graph.node]
    parts.nodes = []
    parts.answer(network.graph.output[0].name, head, like=like)
    output = helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["batch", head.classes, "height", "width"])
    graph = helper.make_graph(
        [*nodes, *parts.nodes],
        str(present),
        parts.inputs,
        [output],
        [*network.graph.initializer, *parts.constants],
        sparse_initializer=network.graph.sparse_initializer,
    )
    opsets = list(network.opset_import)
    model: onnx.ModelProto = helper.make_model(
        graph, opset_imports=opsets, functions=network.functions, producer_name="mmedge"
    )
    model.ir_version = network.ir_version
    return model


class _Parts:
    """Nodes and constants around a network, gathered one after the other."""

    def __init__(self) -> None:
        self.inputs: list[onnx.ValueInfoProto] = []
        self.nodes: list[onnx.NodeProto] = []
        self.constants: list[onnx.TensorProto] = []

    def feed(self, sensor: SensorInput, target: str, kind: int, *, like: str | None) -> None:
        """Fill what is invalid, normalise, cast; `like`: a mask whose batch and size an absent sensor takes."""
        name, bands = sensor.modality.name, len(sensor.modality.bands)
        fill = self._bands(f"{name}_fill", sensor.fill)
        if like is None:
            for tensor, element, count in ((name, TensorProto.FLOAT, bands), (f"{name}_valid", TensorProto.BOOL, 1)):
                self.inputs.append(helper.make_tensor_value_info(tensor, element, ["batch", count, "height", "width"]))
            x = self._add("Where", [f"{name}_valid", name, fill], f"{name}_filled")
        else:
            size = self._add("Shape", [like], f"{name}_size")
            x = self._add("Expand", [fill, size], f"{name}_filled")
        if any(sensor.mean):
            x = self._add("Sub", [x, self._bands(f"{name}_mean", sensor.mean)], f"{name}_centred")
        if any(s != 1 for s in sensor.std):
            x = self._add("Div", [x, self._bands(f"{name}_std", sensor.std)], f"{name}_scaled")
        if kind == TensorProto.FLOAT:
            self._add("Identity", [x], target)
        else:
            self._add("Cast", [x], target, to=kind)

    def answer(self, output: str, head: Head, *, like: str) -> None:
        """Logits (batch, classes, height, width) from what the network says."""
        x = self._add("Cast", [output], "answer", to=TensorProto.FLOAT)
        if head.kind == "probabilities":
            x = self._add("Max", [x, self._constant("tiny", [TINY])], "likely")
            if head.channels == 1:
                rest = self._add("Sub", [self._constant("one", [1.0]), x], "rest")
                x = self._joined(self._add("Max", [rest, "tiny"], "unlikely"), x)
            x = self._add("Log", [x], "logarithms")
        elif head.channels == 1:
            x = self._joined(self._add("Sub", [x, x], "zero"), x)
        if head.whole:
            shape = numpy_helper.from_array(np.array([0, head.classes, 1, 1]), "one_pixel_shape")
            self.constants.append(shape)
            x = self._add("Reshape", [x, shape.name], "one_pixel")
            x = self._add("Expand", [x, self._add("Shape", [like], "window_size")], "spread")
        elif head.scale > 1:
            factors = self._constant("factors", [1.0, 1.0, head.scale, head.scale])
            x = self._add("Resize", [x, "", factors], "enlarged", mode="linear")
        self._add("Identity", [x], "logits")

    def _joined(self, other: str, this: str) -> str:
        return self._add("Concat", [other, this], "two_classes", axis=1)

    def _add(self, operator: str, inputs: list[str], output: str, **attributes: Any) -> str:
        self.nodes.append(helper.make_node(operator, inputs, [output], name=output, **attributes))
        return output

    def _bands(self, name: str, values: Sequence[float]) -> str:
        return self._constant(name, np.reshape(values, (1, -1, 1, 1)))

    def _constant(self, name: str, values: Any) -> str:
        self.constants.append(numpy_helper.from_array(np.asarray(values, np.float32), name))
        return name
