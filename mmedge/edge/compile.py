"""A bundle -> TensorRT engines in a cache, each compared with the reference on real windows before it is accepted."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from mmedge.bundle import Bundle
from mmedge.edge.engine.compilers import Compiler, check_precision, open_compiler
from mmedge.edge.engine.key import (
    PORTABLE,
    BuildOptions,
    EngineKey,
    engine_path,
    read_engine,
    write_engine,
)
from mmedge.edge.parity import Difference, real_batches
from mmedge.edge.runtime.open import open_runtime
from mmedge.edge.runtime.session import GraphKey, Session
from mmedge.edge.windows import Batch
from mmedge.errors import MachineError, UsageError
from mmedge.geo_io.scene import Scene

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


def compile_bundle(
    request: CompileRequest, *, compiler: Compiler | None = None, say: Say = lambda _: None
) -> Iterator[Engine]:
    """Engines for the graphs of a bundle, one by one. What is in the cache under the same key is not built again.

    Without a GPU, TensorRT for RTX builds portable plans: they are stored as not accepted, and no runtime loads them.
    Raises MachineError where TensorRT or the GPU is missing or an engine is wrong, BuildError where a graph is refused.
    """
    check_precision(request.backend, request.precision)
    compiler = compiler or open_compiler(request.backend, request.folder)
    if compiler.device != PORTABLE and request.scene is None:
        raise UsageError("nothing to compare the engines with", hint="--scenes scene.tif")
    for key in request.keys or GraphKey.every(request.bundle):
        wanted = EngineKey.of(
            request.bundle,
            key,
            precision=request.precision,
            backend=request.backend,
            version=compiler.version,
            device=compiler.device,
            options=request.options,
        )
        path = engine_path(request.folder, wanted)
        if path.exists() and not request.overwrite:
            _, facts = read_engine(path, wanted)
            yield Engine(key, path, cached=True, accepted=facts["accepted"], facts=facts)
            continue
        say(f"building {key} in {request.precision}")
        made = compiler.make(request.bundle, key, request.precision, request.options, say)
        facts = {**made.facts, "accepted": False}
        if compiler.device != PORTABLE:
            session, found = compiler.session(made.content, request.bundle, key, request.precision, request.options)
            facts |= {**found, "compared": _compare(request, session, key), "accepted": True}
        write_engine(request.folder, wanted, made.content, facts)
        yield Engine(key, path, cached=False, accepted=facts["accepted"], facts=facts)


def _compare(request: CompileRequest, session: Session, key: GraphKey) -> dict[str, Any] | None:
    """The logits compared with OpenVINO in fp32; None where no window is there; MachineError where they are wrong."""
    if request.scene is None:
        raise ValueError("an engine is accepted on a scene")
    size = request.options.batch[1]
    reference = open_runtime("openvino", precision="fp32", threads=1)[0].load(request.bundle, key, batch=size)
    some = list(_first(real_batches(request.scene, request.bundle, key.availability, size=size), key, 4))
    if not some:
        return None
    pairs = [(reference.run(b.feeds).copy(), session.run(b.feeds)) for b in some]
    difference = Difference.of(*(np.concatenate(side) for side in zip(*pairs, strict=True)))
    if not difference.agreement >= LEAST_AGREEMENT[request.precision]:
        raise MachineError(
            f"the {request.precision} engine of `{key}` changes {1 - difference.agreement:.1%} of the classes",
            hint="--precision fp32",
        )
    return asdict(difference)


def _first(found: Iterable[Batch], key: GraphKey, count: int) -> Iterator[Batch]:
    for batch in found:
        if batch.key == key and count:
            count -= 1
            yield batch
