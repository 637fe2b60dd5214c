"""Who builds engines: TensorRT and TensorRT for RTX from ONNX graphs, torch-TensorRT from the network itself."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any, Protocol

from mmedge.bundle import Bundle
from mmedge.edge.device import gpu
from mmedge.edge.engine.build import MODULES, build, check_engine_types, engine_types, load_tensorrt
from mmedge.edge.engine.key import PORTABLE, BuildOptions, source_graph
from mmedge.edge.runtime.open import PRECISIONS
from mmedge.edge.runtime.session import GraphKey, Session, input_shapes
from mmedge.errors import MachineError, UsageError
from mmedge.extras import need

COMPILERS = (*MODULES, "torch-tensorrt")
Facts = dict[str, Any]
Say = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class Made:
    """What is stored of an engine, and what its sidecar says of the build."""

    content: bytes
    facts: Mapping[str, Any]


class Compiler(Protocol):
    """Builds engines for one device. `version`: all that they depend on."""

    @property
    def version(self) -> str: ...

    @property
    def device(self) -> str: ...

    def make(self, bundle: Bundle, key: GraphKey, precision: str, options: BuildOptions, say: Say) -> Made: ...

    def session(
        self, content: bytes, bundle: Bundle, key: GraphKey, precision: str, options: BuildOptions
    ) -> tuple[Session, Facts]:
        """The engine, ready to run batches of the usual size, and what it says of itself; MachineError where that is
        wrong.
        """
        ...


def check_precision(backend: str, precision: str) -> None:
    """Raises UsageError where there is no such compiler, or where it does not build a precision."""
    if backend not in COMPILERS:
        raise UsageError(f"no compiler `{backend}`", hint=f"--backend {'|'.join(COMPILERS)}")
    if precision not in PRECISIONS[backend]:
        able = [name for name in COMPILERS if precision in PRECISIONS[name]]
        hint = f"--backend {'|'.join(able)}" if able else f"--precision {'|'.join(PRECISIONS[backend])}"
        raise UsageError(f"{backend} builds no {precision}", hint=hint)


def open_compiler(backend: str, folder: Path) -> Compiler:
    """The compiler of that name; its timing cache lies in `folder`.

    TensorRT itself needs a GPU and may crash without a driver; TensorRT for RTX builds portable plans.
    """
    found = gpu()
    if found is None and backend != "tensorrt-rtx":
        raise MachineError(
            f"{backend} builds engines on the GPU that runs them, and there is none", hint="mmedge doctor"
        )
    need("onnx")
    if backend == "torch-tensorrt":
        need("torch")
        from mmedge.edge.engine.dynamo import load_torch_tensorrt

        return TorchTensorRtCompiler(load_torch_tensorrt(), str(found), folder)
    return TensorRtCompiler(load_tensorrt(backend), backend, str(found) if found else PORTABLE, folder)


class TensorRtCompiler:
    """ONNX graphs through `tensorrt` or `tensorrt_rtx`. Fulfils `Compiler`."""

    def __init__(self, trt: ModuleType, backend: str, device: str, folder: Path) -> None:
        self._trt, self._backend, self.device, self._folder = trt, backend, device, folder
        self.version: str = trt.__version__

    def make(self, bundle: Bundle, key: GraphKey, precision: str, options: BuildOptions, say: Say) -> Made:
        cache = timing_cache(self._folder, self._backend, self.version, self.device)
        timing = cache.read_bytes() if cache.exists() else b""
        with graph_file(bundle, key, precision) as graph:
            shapes = input_shapes(bundle, key, 1)
            built = build(self._trt, graph, shapes, precision, options, timing_cache=timing, say=say)
        if built.timing_cache:
            self._folder.mkdir(parents=True, exist_ok=True)
            cache.write_bytes(built.timing_cache)
        return Made(built.plan, {"layers": built.layers, "said": built.said, "seconds": round(built.seconds, 2)})

    def session(
        self, content: bytes, bundle: Bundle, key: GraphKey, precision: str, options: BuildOptions
    ) -> tuple[Session, Facts]:
        from mmedge.edge.runtime.tensorrt import TensorRtRuntime

        cuda = need("cuda.bindings.runtime")
        runtime = TensorRtRuntime(
            self._trt, cuda, backend=self._backend, precision=precision, device=self.device, folder=self._folder
        )
        session = runtime.open_plan(content, bundle, key, batch=options.batch[1])
        types = engine_types(session.layers())
        check_engine_types(types, precision)
        return session, {"engine_types": types}


class TorchTensorRtCompiler:
    """The network through `torch_tensorrt`. Fulfils `Compiler`."""

    def __init__(self, ttrt: ModuleType, device: str, folder: Path, where: Any = None) -> None:
        from mmedge.edge.engine.dynamo import versions

        self._ttrt, self.device, self._folder, self._where = ttrt, device, folder, where
        self.version = versions(ttrt)

    def make(self, bundle: Bundle, key: GraphKey, precision: str, options: BuildOptions, say: Say) -> Made:
        from mmedge.edge.engine.dynamo import NAME, compile_graph

        self._folder.mkdir(parents=True, exist_ok=True)
        cache = timing_cache(self._folder, NAME, self.version, self.device)
        done = compile_graph(
            self._ttrt, bundle, key, precision, options, timing_cache=cache, device=self._where, say=say
        )
        if done.in_torch:
            say(f"{done.in_torch} parts of {key} stay in PyTorch")
        facts = {"products": done.products, "in_tensorrt": done.in_tensorrt, "in_torch": done.in_torch}
        return Made(done.content, {**facts, "seconds": round(done.seconds, 2)})

    def session(
        self, content: bytes, bundle: Bundle, key: GraphKey, precision: str, options: BuildOptions
    ) -> tuple[Session, Facts]:
        """Reloaded from its bytes, as a runtime does."""
        from mmedge.edge.runtime.torch_tensorrt import TorchTensorRtRuntime

        runtime = TorchTensorRtRuntime(
            self._ttrt, precision=precision, device=self.device, folder=self._folder, where=self._where
        )
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "program.pt2"
            path.write_bytes(content)
            return runtime.open_file(path, bundle, key), {}


def timing_cache(folder: Path, backend: str, version: str, device: str) -> Path:
    """Where the times of kernels are kept: they are good for one builder on one device."""
    return folder / f"timing.{backend}.{version}.{device}.cache".replace(" ", "_")


@contextmanager
def graph_file(bundle: Bundle, key: GraphKey, precision: str) -> Iterator[Path]:
    """The ONNX file that is built, its weights beside it: the bundle's own, or an fp16 graph made from the fp32 one."""
    source = source_graph(bundle, key, precision)
    if precision != "fp16":
        yield source
        return
    import onnx

    from mmedge.edge.engine.half import to_half

    with tempfile.TemporaryDirectory() as folder:
        for weights in source.parent.glob("*.safetensors"):
            shutil.copy(weights, folder)
        path = Path(folder) / source.name.replace(".fp32.", ".fp16.")
        onnx.save(to_half(onnx.load(source, load_external_data=False)), path)
        yield path
