"""ONNX Runtime on the CPU: one thread a call, as many calls at once as there are workers."""

from __future__ import annotations

from typing import Any

import numpy.typing as npt
import onnxruntime as ort

from mmedge.bundle import Bundle
from mmedge.edge.device import sums_int8
from mmedge.edge.runtime.session import Feeds, GraphKey, Traits, stored_graph
from mmedge.tile import Data

# Q/DQ stay as they are: int8 graphs are computed in fp32, with the rounding of int8.
QDQ_IN_FP32 = ("session.disable_quant_qdq", "1")


class OnnxRuntime:
    """Runs the ONNX graphs as they are. Fulfils `Runtime`."""

    name = "onnxruntime"
    traits = Traits()
    device = "CPU"

    def __init__(self, *, precision: str) -> None:
        self._precision = precision

    def load(self, bundle: Bundle, key: GraphKey, *, batch: int) -> OnnxSession:
        options = ort.SessionOptions()
        options.intra_op_num_threads = options.inter_op_num_threads = 1
        options.add_free_dimension_override_by_name("batch", batch)
        options.log_severity_level = 3
        if not sums_int8():
            options.add_session_config_entry(*QDQ_IN_FP32)
        path = stored_graph(bundle, key, self._precision)
        return OnnxSession(ort.InferenceSession(path, options, providers=["CPUExecutionProvider"]))


class OnnxSession:
    """A loaded graph; its `run` may be called from many threads. Fulfils `TracingSession`."""

    def __init__(self, session: ort.InferenceSession) -> None:
        self._session = session

    def run(self, feeds: Feeds) -> Data:
        logits: Data = self._session.run(["logits"], dict(feeds))[0]
        return logits

    def run_traced(self, feeds: Feeds) -> tuple[Data, npt.NDArray[Any]]:
        logits, recovered = self._session.run(["logits", "recovered"], dict(feeds))
        return logits, recovered
