"""A convolution of what nearest-neighbour upsampling has made, as the transposed convolution that it is.

U-Nets enlarge a map, lay it beside a skip connection and convolve both: K x K products for each pixel, most of them
with copies of one value. What falls on one value can be summed up beforehand. Enlarged s times, a row of K weights is
a row of K + s - 1 with stride s (Dumoulin & Visin, arXiv:1603.07285, on the transposed convolution): of 9 products a
pixel 4 are left, and neither the enlarged map nor the concatenation is ever made. Sums are rounded in another order.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import reduce
from typing import Any

import numpy as np
import numpy.typing as npt
import openvino as ov
from openvino import opset13 as ops
from openvino.utils import replace_node

Floats = npt.NDArray[np.floating[Any]]
Pads = tuple[list[int], list[int]]  # before and after: (down, across) each
# How a pixel of the enlarged map finds the one that it copies: both are floor(y / s) for whole factors.
COPIES = {("asymmetric", "floor"), ("half_pixel", "round_prefer_floor"), ("half_pixel", "round_prefer_ceil")}


def fold_upsampling(model: ov.Model) -> int:
    """Fold nearest-neighbour upsampling into the convolutions of a model of static shapes; how many were folded."""
    folded = 0
    for node in model.get_ordered_ops():
        if node.get_type_name() == "Convolution":
            result = _folded(node)
            if result is not None:
                result.set_friendly_name(node.get_friendly_name())
                replace_node(node, result)
                folded += 1
    return folded


def _folded(convolution: ov.Node) -> ov.Node | None:
    """What gives the same sums as a convolution with less work; None where there is no such thing."""
    attributes, weights = convolution.get_attributes(), convolution.input_value(1).get_node()
    if weights.get_type_name() != "Constant" or weights.get_element_type() not in (ov.Type.f32, ov.Type.f16):
        return None
    if attributes["auto_pad"] not in ("explicit", "valid") or any(
        n != 1 for n in (*attributes["strides"], *attributes["dilations"])
    ):
        return None
    pads: Pads = (list(attributes["pads_begin"]), list(attributes["pads_end"]))
    terms, rest, first = [], [], 0
    for part in _parts(convolution.input_value(0)):
        last = first + part.get_shape()[1]
        kernels, factors = weights.data[:, first:last], _factors(part)
        first = last
        if factors is not None and _saves(kernels.shape[2:], factors, pads):
            terms.append(_transposed(part.get_node().input_value(0), kernels, factors, pads))
        else:
            rest.append((part, kernels))
    if not terms:
        return None
    return reduce(ops.add, [*terms, _convolved(rest, pads)] if rest else terms)


def _transposed(small: ov.Output, kernels: Floats, factors: tuple[int, int], pads: Pads) -> ov.Node:
    """The convolution of a map that is enlarged `factors` times, from the map itself."""
    begin, end = ([k - 1 - pad for k, pad in zip(kernels.shape[2:], side, strict=True)] for side in pads)
    weights = ops.constant(_spread(kernels, factors))
    return ops.convolution_backprop_data(
        small, weights, strides=list(factors), pads_begin=begin, pads_end=end, dilations=[1, 1]
    )


def _convolved(parts: Sequence[tuple[ov.Output, Floats]], pads: Pads) -> ov.Node:
    """The convolution of maps that stay as they are, with the kernels of each."""
    maps = [part for part, _ in parts]
    weights = np.ascontiguousarray(np.concatenate([kernels for _, kernels in parts], axis=1))
    joined = maps[0] if len(maps) == 1 else ops.concat(maps, 1)
    return ops.convolution(joined, ops.constant(weights), [1, 1], *pads, [1, 1])


def _parts(value: ov.Output) -> list[ov.Output]:
    """What is concatenated along the channels to give a value; the value itself where nothing is."""
    node = value.get_node()
    if node.get_type_name() != "Concat" or node.get_attributes()["axis"] not in (1, 1 - len(value.get_shape())):
        return [value]
    return list(node.input_values())


def _factors(value: ov.Output) -> tuple[int, int] | None:
    """How many times (down, across) nearest-neighbour upsampling has repeated each pixel; None for anything else."""
    node = value.get_node()
    if node.get_type_name() != "Interpolate":
        return None
    attributes = node.get_attributes()
    copies = (attributes["coordinate_transformation_mode"], attributes["nearest_mode"]) in COPIES
    padded = any((*attributes["pads_begin"], *attributes["pads_end"]))
    small, large = list(node.input_value(0).get_shape()), list(value.get_shape())
    if attributes["mode"] != "nearest" or not copies or padded or len(small) != 4 or small[:2] != large[:2]:
        return None
    whole = all(b % a == 0 for a, b in zip(small[2:], large[2:], strict=True))
    return (large[2] // small[2], large[3] // small[3]) if whole else None


def _saves(kernel: Sequence[int], factors: Sequence[int], pads: Pads) -> bool:
    """Whether fewer products are left, and the padding is one that a transposed convolution has."""
    fewer = any(k > 1 and s > 1 for k, s in zip(kernel, factors, strict=True))
    return fewer and all(0 <= pad < k for side in pads for k, pad in zip(kernel, side, strict=True))


def _spread(kernels: Floats, factors: tuple[int, int]) -> Floats:
    """Weights (out, in, K, L) of a convolution as those (in, out, K + s - 1, L + t - 1) of a transposed one.

    The value i of a small map meets the outputs y with floor((y + k - pad) / s) = i for some k, so that k + r = t,
    counted from the last of both: its weight is the sum over r = 0 ... s - 1.
    """
    down, across = factors
    rows, cols = kernels.shape[2:]
    spread = np.zeros((*kernels.shape[:2], rows + down - 1, cols + across - 1), np.float64)
    for row in range(down):
        for col in range(across):
            spread[:, :, row : row + rows, col : col + cols] += kernels[:, :, ::-1, ::-1]
    return np.ascontiguousarray(spread.transpose(1, 0, 2, 3), kernels.dtype)
