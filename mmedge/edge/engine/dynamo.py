"""Network -> TensorRT through torch-TensorRT 2.8 to 2.14, saved as an exported program that has the engines inside.

One strongly typed path, as in `build.py`: precision lies in the program's dtypes. `enabled_precisions`, which 2.13
removed, is left at its fp32 in every version; 2.8 to 2.12 are told to obey the dtypes. `ttrt` is `torch_tensorrt`.
"""

from __future__ import annotations

import inspect
import sys
import time
from collections.abc import Mapping
from contextlib import redirect_stdout
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from tempfile import TemporaryDirectory
from types import ModuleType
from typing import Any

import torch
from torch import nn
from torch.export import ExportedProgram

from mmedge.bundle import Bundle
from mmedge.edge.engine.build import BuildError, Say
from mmedge.edge.engine.key import BuildOptions
from mmedge.edge.engine.program import export_program, product_types
from mmedge.edge.runtime.session import GraphKey, input_shapes
from mmedge.errors import MachineError, MissingExtraError
from mmedge.extras import need

NAME = "torch-tensorrt"
# How torch-TensorRT names the parts of a compiled graph that TensorRT and PyTorch run.
IN_TENSORRT, IN_TORCH = "_run_on_acc", "_run_on_gpu"


def load_torch_tensorrt() -> ModuleType:
    """The module; MachineError where it, TensorRT or CUDA's libraries are missing."""
    try:
        with redirect_stdout(sys.stderr):  # it prints what it misses
            return need("torch_tensorrt")
    except MissingExtraError:
        raise
    except Exception as err:  # without TensorRT it raises a bare Exception
        raise MachineError(f"torch-TensorRT is installed, but cannot be loaded: {err}", hint="mmedge doctor") from err


def versions(ttrt: ModuleType) -> str:
    """All that an engine in a program depends on: torch-TensorRT, PyTorch and TensorRT."""
    tensorrt = import_module("tensorrt").__version__  # torch-TensorRT has brought it, whatever its package is called
    return f"{ttrt.__version__} torch {torch.__version__} tensorrt {tensorrt}"


@dataclass(frozen=True, slots=True)
class Compiled:
    """A saved program, products by kind and dtype as exported, parts in TensorRT and in PyTorch, and seconds."""

    content: bytes
    products: Mapping[str, int]
    in_tensorrt: int
    in_torch: int
    seconds: float


def compile_graph(
    ttrt: ModuleType,
    bundle: Bundle,
    key: GraphKey,
    precision: str,
    options: BuildOptions,
    *,
    timing_cache: Path,
    device: torch.device | None = None,
    say: Say = lambda _: None,
) -> Compiled:
    """Export, compile and save one graph; `device` is CUDA's where it is compiled for good.

    Raises BuildError where torch-TensorRT refuses the program or runs none of it.
    """
    start = time.perf_counter()
    say("exporting the program")
    program = export_program(bundle, key, precision, options.batch, device or torch.device("cuda"))
    say("compiling: minutes without a word are possible")
    module = _compile(ttrt, program, inputs(ttrt, bundle, key, options), options, timing_cache)
    parts = [name for name, _ in module.named_children()]
    in_tensorrt, in_torch = (sum(word in part for part in parts) for word in (IN_TENSORRT, IN_TORCH))
    if not in_tensorrt:
        raise BuildError(f"torch-TensorRT leaves all of `{key}` to PyTorch")
    with TemporaryDirectory() as folder:
        path = Path(folder) / "program.pt2"
        ttrt.save(module, str(path), output_format="exported_program", retrace=False)
        content = path.read_bytes()
    return Compiled(content, product_types(program), in_tensorrt, in_torch, time.perf_counter() - start)


def _compile(
    ttrt: ModuleType, program: ExportedProgram, shapes: list[Any], options: BuildOptions, timing_cache: Path
) -> nn.Module:
    try:
        compiled: nn.Module = ttrt.dynamo.compile(
            program, arg_inputs=shapes, **settings(ttrt.dynamo.compile, options, timing_cache)
        )
    except Exception as err:  # whatever stops a converter or the builder
        raise BuildError(
            f"torch-TensorRT cannot compile the network: {type(err).__name__}: {err}", hint="--backend tensorrt"
        ) from err
    return compiled


def settings(compile_function: Any, options: BuildOptions, timing_cache: Path) -> dict[str, Any]:
    """Keyword arguments of `torch_tensorrt.dynamo.compile` in the version that is installed."""
    chosen: dict[str, Any] = {
        "workspace_size": options.workspace_mib << 20,
        "optimization_level": options.optimization,
        "version_compatible": options.version_compatible,
        "hardware_compatible": options.same_family,
        "timing_cache_path": str(timing_cache),
    }
    if "use_explicit_typing" in inspect.signature(compile_function).parameters:  # 2.13 knows no other way
        chosen["use_explicit_typing"] = True
    return chosen


def inputs(ttrt: ModuleType, bundle: Bundle, key: GraphKey, options: BuildOptions) -> list[Any]:
    """The profile of each input: its least, usual and largest batch, or its one shape."""
    found = []
    for name, shape in input_shapes(bundle, key, 1).items():
        dtype = torch.bool if name.endswith("_valid") else torch.float32
        least, usual, largest = ((batch, *shape[1:]) for batch in options.batch)
        if least == largest:
            found.append(ttrt.Input(shape=least, dtype=dtype))
        else:
            found.append(ttrt.Input(min_shape=least, opt_shape=usual, max_shape=largest, dtype=dtype))
    return found
