"""TensorRT engines on an NVIDIA GPU, through cuda-python: no torch.

Each worker thread has its own execution context, stream, device buffers, pinned host buffers and CUDA graph (TensorRT
#4127, #846), so that one worker's copies overlap another's kernels.
"""

from __future__ import annotations

import ctypes
import threading
from collections.abc import Mapping
from dataclasses import dataclass
from math import prod
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import numpy.typing as npt

from mmedge.bundle import Bundle
from mmedge.edge.engine.build import make_logger
from mmedge.edge.engine.key import accepted_engine
from mmedge.edge.runtime.session import Feeds, GraphKey, Traits, input_shapes
from mmedge.errors import MachineError
from mmedge.tile import Data


class CudaError(MachineError):
    """The CUDA driver or runtime has refused a call."""


class TensorRtRuntime:
    """Loads engines that `mmedge compile` has built on this machine. Fulfils `Runtime`.

    `trt` is the module `tensorrt` or `tensorrt_rtx`, `cuda` is `cuda.bindings.runtime`, `device` names the GPU and its
    compute capability. A foreign engine is refused, never loaded.
    """

    traits = Traits(batch=8, any_window=False)

    def __init__(
        self, trt: ModuleType, cuda: ModuleType, *, backend: str, precision: str, device: str, folder: Path
    ) -> None:
        self.name, self.device, self._precision, self._folder = backend, device, precision, folder
        self._trt, self._cuda = trt, cuda
        self._runtime = trt.Runtime(make_logger(trt))

    def load(self, bundle: Bundle, key: GraphKey, *, batch: int) -> TensorRtSession:
        here = {"backend": self.name, "version": self._trt.__version__, "device": self.device}
        _, plan = accepted_engine(self._folder, bundle, key, precision=self._precision, batch=batch, **here)
        return self.open_plan(plan, bundle, key, batch=batch)

    def open_plan(self, plan: bytes, bundle: Bundle, key: GraphKey, *, batch: int) -> TensorRtSession:
        """A session of a plan that was read or has just been built."""
        engine = self._runtime.deserialize_cuda_engine(plan)
        if engine is None:
            raise MachineError("TensorRT cannot deserialize the engine", hint="mmedge compile BUNDLE --overwrite")
        return TensorRtSession(self._trt, self._cuda, engine, input_shapes(bundle, key, batch))


class TensorRtSession:
    """A deserialized engine for inputs of `shapes`. Fulfils `TracingSession`."""

    def __init__(self, trt: ModuleType, cuda: ModuleType, engine: Any, shapes: Mapping[str, tuple[int, ...]]) -> None:
        self._trt, self._cuda, self._engine, self._shapes = trt, cuda, engine, shapes
        self._local = threading.local()

    def run(self, feeds: Feeds) -> Data:
        return self._worker().run(feeds)["logits"].astype(np.float32)

    def run_traced(self, feeds: Feeds) -> tuple[Data, npt.NDArray[Any]]:
        outputs = self._worker().run(feeds)
        return outputs["logits"].astype(np.float32), outputs["recovered"].copy()

    def _worker(self) -> _Worker:
        worker: _Worker | None = getattr(self._local, "worker", None)
        if worker is None:
            worker = self._local.worker = _Worker(self._trt, self._cuda, self._engine, self._shapes)
        return worker

    def layers(self) -> str:
        """What the engine consists of, as the inspector's JSON."""
        inspector = self._engine.create_engine_inspector()
        return str(inspector.get_engine_information(self._trt.LayerInformationFormat.JSON))


@dataclass(frozen=True, slots=True)
class _Buffer:
    """A tensor in pinned host memory, and its address on the device."""

    host: npt.NDArray[Any]
    device: int


class _Worker:
    """One thread's context, stream and buffers. The second run records a CUDA graph, later ones launch it."""

    def __init__(self, trt: ModuleType, cuda: ModuleType, engine: Any, shapes: Mapping[str, tuple[int, ...]]) -> None:
        self._cuda, self._runs = cuda, 0
        self._context = engine.create_execution_context()
        (self._stream,) = self._do(cuda.cudaStreamCreateWithFlags(cuda.cudaStreamNonBlocking))
        self._graph: Any = None
        self._context.set_optimization_profile_async(0, int(self._stream))
        for name, shape in shapes.items():
            self._context.set_input_shape(name, shape)
        self._inputs: dict[str, _Buffer] = {}
        self._outputs: dict[str, _Buffer] = {}
        for i in range(engine.num_io_tensors):
            name = engine.get_tensor_name(i)
            is_input = engine.get_tensor_mode(name) == trt.TensorIOMode.INPUT
            shape = tuple(self._context.get_tensor_shape(name))
            host = self._pinned(shape, np.dtype(trt.nptype(engine.get_tensor_dtype(name))))
            (device,) = self._do(cuda.cudaMalloc(host.nbytes))
            self._context.set_tensor_address(name, int(device))
            (self._inputs if is_input else self._outputs)[name] = _Buffer(host, int(device))

    def run(self, feeds: Feeds) -> Mapping[str, npt.NDArray[Any]]:
        """The outputs by name, in memory that the next run overwrites."""
        for name, array in feeds.items():
            np.copyto(self._inputs[name].host, array)
        self._runs += 1
        if self._runs == 2:  # the first run set up what cannot be recorded
            self._record()
        if self._graph is None:
            self._enqueue()
        else:
            self._do(self._cuda.cudaGraphLaunch(self._graph, self._stream))
        self._do(self._cuda.cudaStreamSynchronize(self._stream))
        return {name: buffer.host for name, buffer in self._outputs.items()}

    def _enqueue(self) -> None:
        kinds = self._cuda.cudaMemcpyKind
        for buffer in self._inputs.values():
            self._copy(buffer.device, buffer.host.ctypes.data, buffer.host.nbytes, kinds.cudaMemcpyHostToDevice)
        if not self._context.execute_async_v3(int(self._stream)):
            raise CudaError("TensorRT could not run the engine", hint="mmedge compile BUNDLE --overwrite")
        for buffer in self._outputs.values():
            self._copy(buffer.host.ctypes.data, buffer.device, buffer.host.nbytes, kinds.cudaMemcpyDeviceToHost)

    def _copy(self, target: int, source: int, size: int, kind: Any) -> None:
        self._do(self._cuda.cudaMemcpyAsync(target, source, size, kind, self._stream))

    def _record(self) -> None:
        """One launch for copies and kernels together; only this thread's calls are recorded."""
        mode = self._cuda.cudaStreamCaptureMode.cudaStreamCaptureModeThreadLocal
        self._do(self._cuda.cudaStreamBeginCapture(self._stream, mode))
        self._enqueue()
        (graph,) = self._do(self._cuda.cudaStreamEndCapture(self._stream))
        (self._graph,) = self._do(self._cuda.cudaGraphInstantiate(graph, 0))

    def _pinned(self, shape: tuple[int, ...], dtype: np.dtype[Any]) -> npt.NDArray[Any]:
        """Page-locked host memory: only copies from it run beside kernels."""
        size = prod(shape) * dtype.itemsize
        (address,) = self._do(self._cuda.cudaHostAlloc(size, self._cuda.cudaHostAllocDefault))
        raw = memoryview((ctypes.c_byte * size).from_address(int(address))).cast("B")
        array: npt.NDArray[Any] = np.frombuffer(raw, dtype).reshape(shape)
        return array

    def _do(self, result: tuple[Any, ...]) -> tuple[Any, ...]:
        """cuda-python returns (error, values...): the values, or CudaError."""
        error, *values = result
        if int(error):
            raise CudaError(f"CUDA error {int(error)}: {error}", hint="mmedge doctor")
        return tuple(values)
