"""Observers: how large the activations of a graph get on calibration windows, as histograms of their magnitude."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import onnx
import onnxruntime as ort
from onnx import TensorProto, helper

from mmedge.calibration.windows import CalibrationError
from mmedge.edge.device import sums_int8
from mmedge.edge.runtime.onnxruntime import QDQ_IN_FP32
from mmedge.edge.runtime.session import Feeds

BINS = 2048
SAMPLED = 1 << 17  # values of one activation and batch that are counted


@dataclass(frozen=True, slots=True)
class Histogram:
    """Counts (BINS,) of |x| between 0 and `top`, its largest value. Scales are symmetric: signs do not matter."""

    counts: npt.NDArray[np.int64]
    top: float

    def __add__(self, other: Histogram) -> Histogram:
        if self.top != other.top:
            raise ValueError(f"histograms up to {self.top} and {other.top} have different bins")
        return Histogram(self.counts + other.counts, self.top)

    @property
    def centres(self) -> npt.NDArray[np.float64]:
        """|x| in the middle of each bin."""
        return np.linspace(0.0, self.top, len(self.counts), endpoint=False) + self.top / len(self.counts) / 2


def observe(model: onnx.ModelProto, names: Sequence[str], batches: Sequence[Feeds]) -> dict[str, Histogram]:
    """Histograms of some activations of a float graph. Two passes: the first one finds the range, so no bin is guessed.

    Raises CalibrationError where there is no batch or an activation is not finite.
    """
    if not batches:
        raise CalibrationError("there is nothing to calibrate on", hint="give scenes with --scenes")
    session = with_outputs(model, names)
    tops = dict.fromkeys(names, 0.0)
    for feeds in batches:
        for name, values in zip(names, session.run(list(names), dict(feeds)), strict=True):
            top = float(np.abs(values).max())
            if not np.isfinite(top):
                raise CalibrationError(f"the activation `{name}` is not finite on the calibration windows")
            tops[name] = max(tops[name], top)
    counts = {name: np.zeros(BINS, np.int64) for name in names}
    for feeds in batches:
        for name, values in zip(names, session.run(list(names), dict(feeds)), strict=True):
            counts[name] += _count(values, tops[name] or 1.0)
    return {name: Histogram(counts[name], tops[name] or 1.0) for name in names}


def _count(values: npt.NDArray[np.float32], top: float) -> npt.NDArray[np.int64]:
    """Counts (BINS,) of |x|; of large activations every n-th value."""
    some = np.abs(values.ravel()[:: max(1, values.size // SAMPLED)])
    bins = np.minimum(some * np.float32(BINS / top), BINS - 1).astype(np.intp)
    return np.bincount(bins, minlength=BINS)


def with_outputs(model: onnx.ModelProto, names: Sequence[str]) -> ort.InferenceSession:
    """A session of the graph that gives inner tensors too."""
    wide = onnx.ModelProto()
    wide.CopyFrom(model)
    have = {value.name for value in wide.graph.output}
    wide.graph.output.extend(
        helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in names if name not in have
    )
    options = ort.SessionOptions()
    options.intra_op_num_threads, options.log_severity_level = 1, 3
    if not sums_int8():
        options.add_session_config_entry(*QDQ_IN_FP32)
    return ort.InferenceSession(wide.SerializeToString(), options, providers=["CPUExecutionProvider"])
