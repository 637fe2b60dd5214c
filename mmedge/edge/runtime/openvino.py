"""OpenVINO on the CPU: an inference stream a worker thread, or two threads to a stream where windows are large."""

from __future__ import annotations

import platform
import threading
from typing import Any

import numpy as np
import numpy.typing as npt
import openvino as ov
from openvino import opset13 as ops

from mmedge.bundle import Bundle
from mmedge.edge.runtime.session import Feeds, GraphKey, Traits, input_shapes, stored_graph
from mmedge.edge.runtime.upsampling import fold_upsampling
from mmedge.tile import Data

# Two threads take half the memory on one window that they take on one each. They wait for each other now and then:
# alone nearly as fast, beside reading and writing some 5 % slower (tried with the U-Net of the benchmarks).
SHARED_PX = 512 * 512
# From AVX2 on, oneDNN's transposed convolutions are as fast as the others; on Arm nobody has tried.
FOLDS = ("x86_64", "amd64")
_once = threading.Lock()
_ready = threading.Event()


class OpenVinoRuntime:
    """Compiles ONNX graphs for the CPU. Fulfils `Runtime`.

    The precision hint is always set: OpenVINO silently computes in bf16 where the CPU can.
    """

    name = "openvino"

    def __init__(self, *, precision: str, threads: int, frugal: bool = False) -> None:
        self.traits = Traits(shared_px=SHARED_PX, kept_px=0) if frugal else Traits()
        self._core, self._precision = ov.Core(), precision
        self._threads = threads

    @property
    def device(self) -> str:
        return str(self._core.get_property("CPU", "FULL_DEVICE_NAME"))

    def load(self, bundle: Bundle, key: GraphKey, *, batch: int) -> OpenVinoSession:
        _set_up(self._core)
        model = self._core.read_model(stored_graph(bundle, key, self._precision))
        shapes = input_shapes(bundle, key, batch)
        model.reshape({name: ov.PartialShape(list(shape)) for name, shape in shapes.items()})
        if platform.machine().lower() in FOLDS:
            fold_upsampling(model)
        options: dict[str, Any] = {
            "INFERENCE_PRECISION_HINT": "bf16" if self._precision == "bf16" else "f32",
            "NUM_STREAMS": str(self.traits.streams(batch * bundle.tiling.window_px**2, self._threads)),
            "INFERENCE_NUM_THREADS": str(self._threads),
            "ENABLE_CPU_PINNING": "NO",  # every process would begin at the first core: two workers shared it
        }
        return OpenVinoSession(self._core.compile_model(model, "CPU", options))


class OpenVinoSession:
    """A compiled graph. Each thread has its own inference request. Fulfils `TracingSession`."""

    def __init__(self, compiled: ov.CompiledModel) -> None:
        self._compiled = compiled
        self._local = threading.local()

    def run(self, feeds: Feeds) -> Data:
        logits: Data = self._infer(feeds).get_output_tensor(0).data
        return logits

    def run_traced(self, feeds: Feeds) -> tuple[Data, npt.NDArray[Any]]:
        request = self._infer(feeds)
        return request.get_output_tensor(0).data, request.get_output_tensor(1).data

    def _infer(self, feeds: Feeds) -> ov.InferRequest:
        request = getattr(self._local, "request", None)
        if request is None:
            request = self._local.request = self._compiled.create_infer_request()
        request.infer(dict(feeds), share_inputs=True, share_outputs=True)
        return request


def _set_up(core: ov.Core) -> None:
    """Infer a model of one operation, once in a process.

    The first inference sets up statics of OpenVINO's Python layer, which gives up the interpreter's lock on the way:
    two threads at once can wait for each other for ever (2026.4). A window of the map would make the others wait long.
    """
    with _once:
        if _ready.is_set():
            return
        x, valid = ops.parameter([1], np.float32, name="x"), ops.parameter([1], np.bool_, name="x_valid")
        model = ov.Model([ops.select(valid, x, x)], [x, valid], "set_up")
        feeds = {"x": np.zeros(1, np.float32), "x_valid": np.ones(1, np.bool_)}
        OpenVinoSession(core.compile_model(model, "CPU")).run(feeds)
        _ready.set()
