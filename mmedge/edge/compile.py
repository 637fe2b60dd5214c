"""A bundle -> TensorRT engines in a cache, each compared with the reference on real windows before it is accepted."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np

from mmedge.bundle import Bundle
from mmedge.edge.build import MODULES, Built, build, check_engine_types, engine_types, load_tensorrt
from mmedge.edge.device import gpu
from mmedge.edge.engine import (
    PORTABLE,
    BuildOptions,
    EngineKey,
    engine_path,
    read_engine,
    source_graph,
    write_engine,
)
from mmedge.edge.parity import Difference, real_batches
from mmedge.edge.runtime.open import open_runtime
from mmedge.edge.runtime.session import Engines, GraphKey, input_shapes
from mmedge.edge.windows import Batch
from mmedge.errors import MachineError, UsageError
from mmedge.extras import need
from mmedge.geo_io.scene import Scene

PRECISIONS = ("fp32", "fp16", "int8")
# Share of the pixels that must keep the class of the fp32 reference.
LEAST_AGREEMENT = {"fp32": 0.999, "fp16": 0.99, "int8": 0.95}
Say = Callable[[str], None]


@dataclass(frozen=True, slots=True, kw_only=True)
class CompileRequest:
    """Which engines to build, and where they go. `scene`: real windows to accept them on; needed where a GPU is."""

    bundle: Bundle
    folder: Path
    backend: str = "tensorrt"
    precision: str = "fp16"
    keys: Sequence[GraphKey] = ()
    options: BuildOptions = field(default_factory=BuildOptions)
    scene: Scene | None = None
    overwrite: bool = False


@dataclass(frozen=True, slots=True)
class Engine:
    """One engine: where it lies, whether it was there already, whether it was accepted on a GPU, and its sidecar."""

    key: GraphKey
    path: Path
    cached: bool
    accepted: bool
    facts: Mapping[str, Any]


def compile_bundle(request: CompileRequest, *, say: Say = lambda _: None) -> Iterator[Engine]:
    """Engines for the graphs of a bundle, one by one. What is in the cache under the same key is not built again.

    Without a GPU, TensorRT for RTX builds portable plans: they are stored as not accepted, and no runtime loads them.
    Raises MachineError where TensorRT or the GPU is missing or an engine is wrong, BuildError where a graph is refused.
    """
    trt, device = open_builder(request.backend)
    if request.precision not in PRECISIONS:
        raise UsageError(f"no precision `{request.precision}`", hint=f"--precision {'|'.join(PRECISIONS)}")
    if device != PORTABLE and request.scene is None:
        raise UsageError("nothing to compare the engines with", hint="--scenes scene.tif")
    cache = request.folder / f"timing.{request.backend}.{trt.__version__}.{device.replace(' ', '_')}.cache"
    for key in request.keys or GraphKey.every(request.bundle):
        wanted = EngineKey.of(
            request.bundle,
            key,
            precision=request.precision,
            backend=request.backend,
            version=trt.__version__,
            device=device,
            options=request.options,
        )
        path = engine_path(request.folder, wanted)
        if path.exists() and not request.overwrite:
            _, facts = read_engine(path, wanted)
            yield Engine(key, path, cached=True, accepted=facts["accepted"], facts=facts)
            continue
        say(f"building {key} in {request.precision}")
        timing = cache.read_bytes() if cache.exists() else b""
        with graph_file(request.bundle, key, request.precision) as graph:
            shapes = input_shapes(request.bundle, key, 1)
            built = build(trt, graph, shapes, request.precision, request.options, timing_cache=timing, say=say)
        facts = {"layers": built.layers, "said": built.said, "seconds": round(built.seconds, 2), "accepted": False}
        if device != PORTABLE:
            facts |= {**_accept(request, trt, device, key, built), "accepted": True}
        write_engine(request.folder, wanted, built.plan, facts)
        if built.timing_cache:
            cache.write_bytes(built.timing_cache)
        yield Engine(key, path, cached=False, accepted=facts["accepted"], facts=facts)


def open_builder(backend: str) -> tuple[ModuleType, str]:
    """The TensorRT module of a backend, and the device that it builds for.

    TensorRT itself needs a GPU and may crash without a driver; TensorRT for RTX builds portable plans.
    """
    if backend not in MODULES:
        raise UsageError(f"no compiler `{backend}`", hint=f"--backend {'|'.join(MODULES)}")
    found = gpu()
    if found is None and backend == "tensorrt":
        raise MachineError("TensorRT builds engines on the GPU that runs them, and there is none", hint="mmedge doctor")
    need("onnx")
    return load_tensorrt(backend), str(found) if found else PORTABLE


@contextmanager
def graph_file(bundle: Bundle, key: GraphKey, precision: str) -> Iterator[Path]:
    """The ONNX file that is built, its weights beside it: the bundle's own, or an fp16 graph made from the fp32 one."""
    source = source_graph(bundle, key, precision)
    if precision != "fp16":
        yield source
        return
    import onnx

    from mmedge.edge.half import to_half

    with tempfile.TemporaryDirectory() as folder:
        for weights in source.parent.glob("*.safetensors"):
            shutil.copy(weights, folder)
        path = Path(folder) / source.name.replace(".fp32.", ".fp16.")
        onnx.save(to_half(onnx.load(source, load_external_data=False)), path)
        yield path


def _accept(request: CompileRequest, trt: ModuleType, device: str, key: GraphKey, built: Built) -> dict[str, Any]:
    """Layer precisions as built, and the logits compared with OpenVINO in fp32; MachineError where they are wrong."""
    if request.scene is None:
        raise ValueError("an engine is accepted on a scene")
    from mmedge.edge.runtime.tensorrt import TensorRtRuntime

    runtime = TensorRtRuntime(
        trt,
        need("cuda.bindings.runtime"),
        backend=request.backend,
        precision=request.precision,
        device=device,
        folder=request.folder,
    )
    size = request.options.batch[1]
    session = runtime.open_plan(built.plan, request.bundle, key, batch=size)
    types = engine_types(session.layers())
    check_engine_types(types, request.precision)
    reference = Engines(request.bundle, open_runtime("openvino", precision="fp32", threads=1)[0], batch=size)
    some = list(_first(real_batches(request.scene, request.bundle, key.availability, size=size), key, 4))
    if not some:
        return {"engine_types": types, "compared": None}
    pairs = [(reference.session(key).run(b.feeds).copy(), session.run(b.feeds)) for b in some]
    difference = Difference.of(*(np.concatenate(side) for side in zip(*pairs, strict=True)))
    if not difference.agreement >= LEAST_AGREEMENT[request.precision]:
        raise MachineError(
            f"the {request.precision} engine of `{key}` changes {1 - difference.agreement:.1%} of the classes",
            hint="--precision fp32",
        )
    return {"engine_types": types, "compared": asdict(difference)}


def _first(found: Iterable[Batch], key: GraphKey, count: int) -> Iterator[Batch]:
    for batch in found:
        if batch.key == key and count:
            count -= 1
            yield batch
