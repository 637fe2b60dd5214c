"""Upsampling folded into convolutions gives the sums that it gave before, and is left alone where it could not."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import openvino as ov
import pytest
from openvino import opset13 as ops

from mmedge.edge.runtime.upsampling import fold_upsampling

COPY = {"mode": "nearest", "coordinate_transformation_mode": "asymmetric", "nearest_mode": "floor"}


def enlarged(value: ov.Output, factors: tuple[float, float], **how: str) -> ov.Node:
    ways = {**COPY, **how}
    mode = ways.pop("mode")
    scales = np.array(factors, np.float32)
    return ops.interpolate(
        value, ops.constant(scales), mode, "scales", axes=ops.constant(np.array([2, 3])), pads_begin=[0, 0, 0, 0],
        pads_end=[0, 0, 0, 0], **ways,
    )  # fmt: skip


def convolved(value: ov.Output, channels: int, kernel: tuple[int, int], pads: list[int], **how: Any) -> ov.Node:
    weights = np.random.default_rng(1).normal(size=(5, channels, *kernel)).astype(np.float32)
    ways = {"strides": [1, 1], "dilations": [1, 1], "auto_pad": "explicit", **how}
    return ops.convolution(value, ops.constant(weights), pads_begin=pads[:2], pads_end=pads[2:], **ways)


def run(model: ov.Model) -> npt.NDArray[np.float32]:
    draw = np.random.default_rng(0)
    feeds = [draw.normal(size=tuple(i.get_shape())).astype(i.get_element_type().to_dtype()) for i in model.inputs]
    compiled = ov.Core().compile_model(model, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    found: npt.NDArray[np.float32] = compiled(feeds)[0]
    return found.copy()


def kinds(model: ov.Model) -> list[str]:
    return [node.get_type_name() for node in model.get_ordered_ops()]


def folds(output: ov.Node, inputs: list[ov.Node]) -> list[str]:
    """Fold, check that the result is the same but for rounding, and say of what operations the model is then."""
    model = ov.Model([output], inputs, "test")
    before = run(model)
    count = fold_upsampling(model)
    after = run(model)
    assert after.shape == before.shape
    np.testing.assert_allclose(after, before, rtol=0, atol=2e-5 * float(np.abs(before).max()))
    assert kinds(model).count("ConvolutionBackpropData") >= count
    return kinds(model)


@pytest.mark.parametrize(
    ("kernel", "factors", "pads"),
    [
        ((3, 3), (2, 2), [1, 1, 1, 1]),
        ((3, 3), (2, 2), [0, 0, 0, 0]),
        ((3, 3), (2, 2), [0, 2, 1, 0]),
        ((5, 5), (2, 2), [2, 2, 2, 2]),
        ((3, 3), (4, 4), [1, 1, 1, 1]),
        ((3, 5), (3, 2), [1, 2, 1, 2]),
        ((2, 2), (2, 2), [0, 0, 1, 1]),
    ],
)
def test_an_enlarged_map_is_never_made(kernel: tuple[int, int], factors: tuple[int, int], pads: list[int]) -> None:
    x = ops.parameter([2, 4, 6, 7], np.float32)
    left = folds(convolved(enlarged(x.output(0), factors).output(0), 4, kernel, pads), [x])
    assert "Interpolate" not in left
    assert "Convolution" not in left


@pytest.mark.parametrize("first", [True, False])
def test_beside_a_skip_connection_only_the_enlarged_part_is_folded(first: bool) -> None:
    x, skip = ops.parameter([1, 4, 6, 6], np.float32), ops.parameter([1, 3, 12, 12], np.float32)
    large = enlarged(x.output(0), (2, 2))
    joined = ops.concat([large, skip] if first else [skip, large], 1)
    left = folds(convolved(joined.output(0), 7, (3, 3), [1, 1, 1, 1]), [x, skip])
    assert "Interpolate" not in left
    assert "Concat" not in left
    assert left.count("Convolution") == 1


def test_what_several_layers_read_is_folded_into_each() -> None:
    x, skip, more = (ops.parameter([1, n, s, s], np.float32) for n, s in ((4, 6), (3, 12), (2, 12)))
    joined = ops.concat([skip, enlarged(x.output(0), (2, 2)), more], 1)
    a, b = (convolved(joined.output(0), 9, kernel, [k // 2 for k in kernel] * 2) for kernel in ((3, 3), (5, 5)))
    left = folds(ops.add(a, b), [x, skip, more])
    assert left.count("ConvolutionBackpropData") == 2
    assert left.count("Concat") == 2  # of what is not enlarged
    assert "Interpolate" not in left


@pytest.mark.parametrize(
    ("transform", "nearest"), [("half_pixel", "round_prefer_ceil"), ("half_pixel", "round_prefer_floor")]
)
@pytest.mark.parametrize("factors", [(2, 2), (3, 3)])
def test_other_names_of_the_same_copies(transform: str, nearest: str, factors: tuple[int, int]) -> None:
    x = ops.parameter([1, 4, 5, 5], np.float32)
    large = enlarged(x.output(0), factors, coordinate_transformation_mode=transform, nearest_mode=nearest)
    assert "Interpolate" not in folds(convolved(large.output(0), 4, (3, 3), [1, 1, 1, 1]), [x])


@pytest.mark.parametrize(
    "how",
    [
        {"mode": "linear_onnx", "coordinate_transformation_mode": "half_pixel"},
        {"coordinate_transformation_mode": "half_pixel", "nearest_mode": "floor"},
        {"coordinate_transformation_mode": "align_corners"},
    ],
)
def test_upsampling_that_does_not_copy_is_left_alone(how: dict[str, str]) -> None:
    x = ops.parameter([1, 4, 6, 6], np.float32)
    large = enlarged(x.output(0), (2, 2), **how)
    assert "Interpolate" in folds(convolved(large.output(0), 4, (3, 3), [1, 1, 1, 1]), [x])


@pytest.mark.parametrize(
    ("kernel", "pads", "how"),
    [
        ((1, 1), [0, 0, 0, 0], {}),  # nothing is saved
        ((3, 3), [1, 1, 1, 1], {"strides": [2, 2]}),
        ((3, 3), [2, 2, 2, 2], {"dilations": [2, 2]}),
        ((3, 3), [3, 3, 3, 3], {}),  # wider than the kernel
        ((3, 3), [0, 0, 0, 0], {"auto_pad": "same_upper"}),
    ],
)
def test_convolutions_that_have_no_such_form_are_left_alone(
    kernel: tuple[int, int], pads: list[int], how: dict[str, Any]
) -> None:
    x = ops.parameter([1, 4, 6, 6], np.float32)
    left = folds(convolved(enlarged(x.output(0), (2, 2)).output(0), 4, kernel, pads, **how), [x])
    assert "Interpolate" in left
    assert "ConvolutionBackpropData" not in left


def test_factors_that_are_not_whole_are_left_alone() -> None:
    x = ops.parameter([1, 4, 6, 6], np.float32)
    large = enlarged(x.output(0), (1.5, 1.5))
    assert "Interpolate" in folds(convolved(large.output(0), 4, (3, 3), [1, 1, 1, 1]), [x])


def test_weights_that_are_computed_are_left_alone() -> None:
    x, w = ops.parameter([1, 4, 6, 6], np.float32), ops.parameter([5, 4, 3, 3], np.float32)
    large = enlarged(x.output(0), (2, 2))
    assert "Interpolate" in folds(ops.convolution(large, w, [1, 1], [1, 1], [1, 1], [1, 1]), [x, w])


def test_a_network_in_fp16_stays_one() -> None:
    x, skip = ops.parameter([1, 4, 6, 6], np.float16), ops.parameter([1, 3, 12, 12], np.float16)
    weights = ops.constant(np.random.default_rng(1).normal(size=(5, 7, 3, 3)).astype(np.float16))
    joined = ops.concat([enlarged(x.output(0), (2, 2)), skip], 1)
    model = ov.Model([ops.convolution(joined, weights, [1, 1], [1, 1], [1, 1], [1, 1])], [x, skip], "test")
    before = run(model).astype(np.float32)
    assert fold_upsampling(model) == 1
    assert model.outputs[0].get_element_type() == ov.Type.f16
    np.testing.assert_allclose(run(model).astype(np.float32), before, rtol=0, atol=0.02 * float(np.abs(before).max()))
