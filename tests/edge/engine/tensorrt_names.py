"""A recorder in place of TensorRT and CUDA, specified from the names of each version: what is not listed is not there.

It computes: device memory is memory, copies copy, a CUDA graph replays what was recorded, and the engine's one layer
gives each class the mean of the first input plus the class's number. One of a model that recovers sensors
says, too, that it recovered the first.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from enum import IntEnum
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np

VERSIONS = {"10.3.0": 1, "10.13.3.9": 2, "10.16.1.11": 4, "11.0.0.114": 8, "11.4.0.106": 16, "rtx": 32}
LISTING = Path(__file__).parents[2] / "data" / "tensorrt_api.txt"
# The listing was read from class dictionaries: what pybind11 gives every enum, and `name` and `shape` of tensors.
UNLISTED = {"name"}


def api(version: str) -> frozenset[str]:
    """Public names of a version, as `Class.member`."""
    rows = (line.split(" ", 1) for line in LISTING.read_text().splitlines() if not line.startswith("#"))
    return frozenset(name for bits, name in rows if int(bits, 16) & VERSIONS[version])


class Recorder:
    """One version of TensorRT: its module, the calls that were made, and what they answer."""

    def __init__(self, version: str, *, recovers: bool = False) -> None:
        self.version, self.api, self.calls = version, api(version), []
        self.cuda = Cuda(self)
        self.io = {"sar": True, "sar_valid": True, "logits": False} | ({"recovered": False} if recovers else {})
        self.shapes: dict[str, tuple[int, ...]] = {}
        self.addresses: dict[str, int] = {}
        self.module = Module("tensorrt", self)

    def names(self) -> list[str]:
        return [name for name, _ in self.calls]

    def count(self, name: str) -> int:
        return self.names().count(name)

    def answer(self, name: str, args: tuple[Any, ...]) -> Any:
        self.calls.append((name, args))
        made: dict[str, str] = {
            "Builder.create_network": "INetworkDefinition",
            "Builder.create_builder_config": "IBuilderConfig",
            "Builder.create_optimization_profile": "IOptimizationProfile",
            "IBuilderConfig.create_timing_cache": "ITimingCache",
            "INetworkDefinition.get_layer": "ILayer",
            "Runtime.deserialize_cuda_engine": "ICudaEngine",
            "ICudaEngine.create_execution_context": "IExecutionContext",
            "ICudaEngine.create_engine_inspector": "EngineInspector",
        }
        if name in made:
            return Thing(self, made[name])
        special: dict[str, Callable[..., Any]] = {
            "OnnxParser.parse_from_file": lambda path: True,
            "ILayer.get_output_type": lambda i: self.module.DataType.FLOAT,
            "IBuilderConfig.set_timing_cache": lambda cache, ignore: True,
            "ITimingCache.serialize": lambda: b"timing",
            "Builder.build_serialized_network": lambda network, config: b"plan",
            "ICudaEngine.get_tensor_name": lambda i: list(self.io)[i],
            "ICudaEngine.get_tensor_mode": lambda n: getattr(
                self.module.TensorIOMode, "INPUT" if self.io[n] else "OUTPUT"
            ),
            "ICudaEngine.get_tensor_dtype": lambda n: n,
            "IExecutionContext.set_input_shape": self.shapes.__setitem__,
            "IExecutionContext.get_tensor_shape": self._shape,
            "IExecutionContext.set_tensor_address": self.addresses.__setitem__,
            "IExecutionContext.execute_async_v3": lambda stream: self.cuda.enqueue(self._execute),
            "EngineInspector.get_engine_information": lambda kind: '{"Layers": []}',
        }
        return special.get(name, lambda *_: True)(*args)

    def _shape(self, name: str) -> tuple[int, ...]:
        """Those of outputs follow from the inputs', which have to be set before."""
        batch, _, rows, cols = self.shapes["sar"]
        return {"logits": (batch, 4, rows, cols), "recovered": (batch, 3, rows, cols)}.get(name) or self.shapes[name]

    def _execute(self) -> None:
        batch = self.shapes["sar"][0]
        sar = self.cuda.view(self.addresses["sar"], np.float32)
        logits = self.cuda.view(self.addresses["logits"], np.float32).reshape(batch, 4, -1)
        logits[:] = sar.reshape(batch, -1).mean(1)[:, None, None] + np.arange(4)[None, :, None]
        if "recovered" in self.io:
            self.cuda.view(self.addresses["recovered"], np.uint8).reshape(batch, 3, -1)[:] = [[[1], [0], [0]]]


class Thing:
    """An object of one class: attributes outside the API do not exist, calls are recorded."""

    def __init__(self, recorder: Recorder, cls: str) -> None:
        self.__dict__.update(recorder=recorder, cls=cls)

    def _check(self, name: str) -> str:
        if f"{self.cls}.{name}" not in self.recorder.api and name not in UNLISTED:
            raise AttributeError(f"TensorRT {self.recorder.version} has no {self.cls}.{name}")
        return f"{self.cls}.{name}"

    def __getattr__(self, name: str) -> Any:
        full = self._check(name)
        values = {
            "INetworkDefinition.num_layers": 1,
            "OnnxParser.num_errors": 0,
            "ILayer.num_outputs": 1,
            "ICudaEngine.num_io_tensors": len(self.recorder.io),
        }
        if full == "ILayer.type":
            return self.recorder.module.LayerType.CONVOLUTION
        return values[full] if full in values else lambda *args: self.recorder.answer(full, args)

    def __setattr__(self, name: str, value: Any) -> None:
        self.recorder.calls.append((self._check(name), (value,)))


class Module(ModuleType):
    """The module: classes make Things, enums number their members anew for each version."""

    def __init__(self, name: str, recorder: Recorder) -> None:
        super().__init__(name)
        self.__dict__.update(recorder=recorder, __version__=recorder.version)
        shift = list(VERSIONS).index(recorder.version)  # integers differ between versions: none may be relied on
        members: dict[str, list[str]] = {}
        for entry in sorted(recorder.api):
            cls, dot, member = entry.partition(".")
            if dot and member.isupper() and "." not in member:
                members.setdefault(cls, []).append(member)
        for cls in ("ILogger", "IProgressMonitor"):
            values = {member: i + shift for i, member in enumerate(members.get(cls, []))}
            setattr(self, cls, type(cls, (), values))
        for cls in ("DataType", "LayerType", "TensorIOMode", "MemoryPoolType", "ProfilingVerbosity", "BuilderFlag"):
            setattr(self, cls, IntEnum(cls, {m: i + shift for i, m in enumerate(members[cls])}))
        for cls in ("LayerInformationFormat", "HardwareCompatibilityLevel", "NetworkDefinitionCreationFlag"):
            setattr(self, cls, IntEnum(cls, {m: i + shift for i, m in enumerate(members[cls])}))
        types = {"sar_valid": np.bool_, "recovered": np.uint8}
        self.nptype = lambda name: types.get(name, np.float32)

    def __getattr__(self, name: str) -> Any:
        if name not in self.recorder.api:
            raise AttributeError(f"TensorRT {self.recorder.version} has no {name}")

        def make(*args: Any) -> Thing:
            self.recorder.calls.append((name, args))
            return Thing(self.recorder, name)

        return make


class Cuda:
    """The part of cuda.bindings.runtime that the runtime uses, on ordinary memory."""

    cudaStreamNonBlocking = 1
    cudaHostAllocDefault = 0

    class cudaMemcpyKind(IntEnum):
        cudaMemcpyHostToDevice = 1
        cudaMemcpyDeviceToHost = 2

    class cudaStreamCaptureMode(IntEnum):
        cudaStreamCaptureModeThreadLocal = 1

    def __init__(self, recorder: Recorder) -> None:
        self._recorder = recorder
        self._memory: dict[int, Any] = {}
        self._captured: list[Callable[[], None]] | None = None
        self.fail: str | None = None

    def _log(self, name: str, *values: Any) -> tuple[Any, ...]:
        self._recorder.calls.append((name, values))
        return (700 if name == self.fail else 0, *values)

    def view(self, address: int, dtype: Any) -> Any:
        return np.frombuffer(self._memory[address], dtype)

    def enqueue(self, work: Callable[[], None]) -> bool:
        if self._captured is None:
            work()
        else:
            self._captured.append(work)
        return True

    def _allocate(self, name: str, size: int) -> tuple[Any, ...]:
        block = (ctypes.c_byte * size)()
        self._memory[ctypes.addressof(block)] = block
        return self._log(name, ctypes.addressof(block))

    def cudaMalloc(self, size: int) -> tuple[Any, ...]:
        return self._allocate("cudaMalloc", size)

    def cudaHostAlloc(self, size: int, flags: int) -> tuple[Any, ...]:
        return self._allocate("cudaHostAlloc", size)

    def cudaStreamCreateWithFlags(self, flags: int) -> tuple[Any, ...]:
        return self._log("cudaStreamCreateWithFlags", 5)

    def cudaMemcpyAsync(self, target: int, source: int, size: int, kind: int, stream: int) -> tuple[Any, ...]:
        self.enqueue(lambda: ctypes.memmove(target, source, size) and None)
        return self._log("cudaMemcpyAsync")

    def cudaStreamSynchronize(self, stream: int) -> tuple[Any, ...]:
        return self._log("cudaStreamSynchronize")

    def cudaStreamBeginCapture(self, stream: int, mode: int) -> tuple[Any, ...]:
        self._captured = []
        return self._log("cudaStreamBeginCapture")

    def cudaStreamEndCapture(self, stream: int) -> tuple[Any, ...]:
        graph, self._captured = self._captured, None
        return self._log("cudaStreamEndCapture", graph)

    def cudaGraphInstantiate(self, graph: Any, flags: int) -> tuple[Any, ...]:
        return self._log("cudaGraphInstantiate", graph)

    def cudaGraphLaunch(self, graph: Any, stream: int) -> tuple[Any, ...]:
        for work in graph:
            work()
        return self._log("cudaGraphLaunch")
