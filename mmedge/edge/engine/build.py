"""ONNX graph -> TensorRT engine, TensorRT 10.3 to 11.4 and TensorRT for RTX, on one strongly typed path.

Precision lies in the graph: dtypes and Q/DQ. Nothing here uses what TensorRT 11 has removed, and no enum integer is
stored. `trt` is the module `tensorrt` or `tensorrt_rtx`: both have the same interface.
"""

from __future__ import annotations

import json
import time
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

from mmedge.edge.engine.key import BuildOptions
from mmedge.errors import BundleError, MachineError
from mmedge.extras import need

MODULES = {"tensorrt": "tensorrt", "tensorrt-rtx": "tensorrt_rtx"}
PRODUCTS = ("MATRIX_MULTIPLY", "CONVOLUTION", "DECONVOLUTION")
# What products compute in, by precision. int8 products read dequantized fp32: the pair before them makes them int8.
PRODUCT_TYPES = {"fp32": "FLOAT", "fp16": "HALF", "int8": "FLOAT"}
Say = Callable[[str], None]


class BuildError(BundleError):
    """TensorRT does not take a graph, or cannot build it."""


def load_tensorrt(backend: str) -> ModuleType:
    """The Python module of a backend; MachineError where it or its libraries are missing."""
    try:
        return need(MODULES[backend])
    except ImportError as err:  # libraries that are missing raise no ModuleNotFoundError
        raise MachineError(f"TensorRT is installed, but cannot be loaded: {err}", hint="mmedge doctor") from None


@dataclass(frozen=True, slots=True)
class Built:
    """A plan, the timing cache after it, layers by type and dtype as parsed, what TensorRT said, and seconds."""

    plan: bytes
    timing_cache: bytes
    layers: Mapping[str, int]
    said: tuple[str, ...]
    seconds: float


def build(
    trt: ModuleType,
    graph: Path,
    shapes: Mapping[str, tuple[int, ...]],
    precision: str,
    options: BuildOptions,
    *,
    timing_cache: bytes = b"",
    say: Say = lambda _: None,
) -> Built:
    """Build one graph. `shapes` are (batch, channels, height, width) of its inputs; the batch varies as `options` say.

    Raises BuildError with the node and the reason where parsing, typing or building fails.
    """
    start = time.perf_counter()
    logger = make_logger(trt)
    builder = trt.Builder(logger)
    network = builder.create_network(creation_flags(trt))
    parser = trt.OnnxParser(network, logger)
    if not parser.parse_from_file(str(graph)):
        raise BuildError(f"TensorRT cannot parse `{graph.name}`: {_parse_errors(parser)}")
    layers = layer_types(trt, network)
    check_types(layers, precision, graph.name)
    config = builder.create_builder_config()
    config.set_memory_pool_limit(trt.MemoryPoolType.WORKSPACE, options.workspace_mib << 20)
    config.builder_optimization_level = options.optimization
    config.profiling_verbosity = trt.ProfilingVerbosity.DETAILED
    config.progress_monitor = make_monitor(trt, say)
    if options.version_compatible:
        config.set_flag(trt.BuilderFlag.VERSION_COMPATIBLE)
    if options.same_family:
        config.hardware_compatibility_level = trt.HardwareCompatibilityLevel.AMPERE_PLUS
    cache = None
    if trt.__name__ == "tensorrt":  # TensorRT for RTX times nothing when it builds
        cache = config.create_timing_cache(timing_cache)
        config.set_timing_cache(cache, False)
    profile = builder.create_optimization_profile()
    for name, shape in shapes.items():
        profile.set_shape(name, *((batch, *shape[1:]) for batch in options.batch))
    config.add_optimization_profile(profile)
    plan = builder.build_serialized_network(network, config)
    if plan is None:
        raise BuildError(f"TensorRT cannot build `{graph.name}`: {'; '.join(logger.said[-3:]) or 'it gave no reason'}")
    return Built(
        bytes(plan), bytes(cache.serialize()) if cache else b"", layers, tuple(logger.said), time.perf_counter() - start
    )


def creation_flags(trt: ModuleType) -> int:
    """Strongly typed: a flag in 10, the only way in 11 and in TensorRT for RTX."""
    if trt.__name__ == "tensorrt" and int(trt.__version__.split(".")[0]) < 11:
        return 1 << int(trt.NetworkDefinitionCreationFlag.STRONGLY_TYPED)
    return 0


def make_logger(trt: ModuleType) -> Any:
    """A logger that keeps warnings and errors: they go into the sidecar and into errors."""

    class Log(trt.ILogger):  # type: ignore[name-defined, misc]
        def __init__(self) -> None:
            trt.ILogger.__init__(self)
            self.said: list[str] = []
            self.loud = (trt.ILogger.INTERNAL_ERROR, trt.ILogger.ERROR, trt.ILogger.WARNING)

        def log(self, severity: Any, text: str) -> None:
            if severity in self.loud:
                self.said.append(text)

    return Log()


def make_monitor(trt: ModuleType, say: Say) -> Any:
    """A progress monitor: a build is never silent for minutes."""

    class Monitor(trt.IProgressMonitor):  # type: ignore[name-defined, misc]
        def __init__(self) -> None:
            trt.IProgressMonitor.__init__(self)
            self.steps: dict[str, int] = {}

        def phase_start(self, phase: str, parent: str | None, steps: int) -> None:
            self.steps[phase] = steps
            if parent is None:
                say(f"{phase}: {steps} steps")

        def step_complete(self, phase: str, step: int) -> bool:
            say(f"{phase}: {step + 1} of {self.steps.get(phase, 0)}")
            return True  # go on

        def phase_finish(self, phase: str) -> None:
            self.steps.pop(phase, None)

    return Monitor()


def _parse_errors(parser: Any) -> str:
    errors = (parser.get_error(i) for i in range(parser.num_errors))
    return "; ".join(f"node {e.node()} ({e.node_name()}, {e.node_operator()}): {e.desc()}" for e in errors)


def layer_types(trt: ModuleType, network: Any) -> dict[str, int]:
    """How many layers of each type give each dtype, as `MATRIX_MULTIPLY:HALF`. Strong typing makes this final."""
    found: Counter[str] = Counter()
    for i in range(network.num_layers):
        layer = network.get_layer(i)
        if layer.num_outputs:
            found[f"{layer.type.name}:{layer.get_output_type(0).name}"] += 1
    return dict(sorted(found.items()))


def check_types(layers: Mapping[str, int], precision: str, graph: str) -> None:
    """Compare the layers' dtypes with what was asked for: engines asked for in fp16 have silently been fp32."""
    wanted = PRODUCT_TYPES[precision]
    wrong = {
        name: count for name, count in layers.items() if name.split(":")[0] in PRODUCTS and not name.endswith(wanted)
    }
    if wrong:
        raise BuildError(f"`{graph}` was asked for in {precision}, but it has {wrong}")
    if (precision == "int8") != any(name == "QUANTIZE:INT8" for name in layers):
        raise BuildError(f"`{graph}` was asked for in {precision}, but its layers are {dict(layers)}")


def engine_types(inspector_json: str) -> dict[str, int]:
    """Formats of the layers' outputs in a built engine, from its inspector: read back before an engine is accepted."""
    found: Counter[str] = Counter()
    for layer in json.loads(inspector_json)["Layers"]:
        if isinstance(layer, dict):  # without detailed verbosity a layer is but a name
            found.update(output["Format/Datatype"] for output in layer.get("Outputs", []))
    return dict(sorted(found.items()))


def check_engine_types(types: Mapping[str, int], precision: str) -> None:
    """Raises where no layer of a built engine computes in the precision that was asked for."""
    word = {"fp32": "FP32", "fp16": "FP16", "int8": "Int8"}[precision]
    other = {"fp32": "Float", "fp16": "Half", "int8": "Int8"}[precision]
    if not any(word.lower() in name.lower() or other.lower() in name.lower() for name in types):
        raise MachineError(
            f"the engine was asked for in {precision}, but its layers are {dict(types)}", hint="--precision fp32"
        )
