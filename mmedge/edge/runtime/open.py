"""Which backend runs a model on this machine, and why."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from importlib.util import find_spec

from mmedge.edge.device import gpu as probe_gpu
from mmedge.edge.device import memory_gib, sums_int8
from mmedge.edge.engine.key import cache_folder, engines_for
from mmedge.edge.runtime.session import Runtime
from mmedge.errors import MachineError, UsageError
from mmedge.extras import need

SCARCE_GIB = 4.0  # where less memory is free, threads share what takes much of it


def _openvino(precision: str, threads: int, frugal: bool) -> Runtime:
    try:
        from mmedge.edge.runtime.openvino import OpenVinoRuntime
    except ImportError as err:
        raise MachineError(f"OpenVINO cannot be loaded: {err}", hint="pip install openvino") from None
    scarce = (memory_gib("MemAvailable") or SCARCE_GIB) < SCARCE_GIB
    return OpenVinoRuntime(precision=precision, threads=threads, frugal=frugal or scarce)


def _onnxruntime(precision: str, *_: object) -> Runtime:
    need("onnxruntime")
    from mmedge.edge.runtime.onnxruntime import OnnxRuntime

    return OnnxRuntime(precision=precision)


def _eager(precision: str, *_: object) -> Runtime:
    for module in ("torch", "onnx"):
        need(module)
    from mmedge.edge.runtime.eager import EagerRuntime

    return EagerRuntime(precision=precision)


def _tensorrt(precision: str, backend: str) -> Runtime:
    from mmedge.edge.engine.build import load_tensorrt
    from mmedge.edge.runtime.tensorrt import TensorRtRuntime

    found = probe_gpu()
    if found is None:
        raise MachineError(
            f"{backend} needs an NVIDIA GPU, and there is none", hint="--backend openvino; mmedge doctor"
        )
    cuda = need("cuda.bindings.runtime")
    return TensorRtRuntime(
        load_tensorrt(backend), cuda, backend=backend, precision=precision, device=str(found), folder=cache_folder()
    )


def _torch_tensorrt(precision: str, *_: object) -> Runtime:
    found = probe_gpu()
    if found is None:
        raise MachineError(
            "torch-tensorrt needs an NVIDIA GPU, and there is none", hint="--backend openvino; mmedge doctor"
        )
    for module in ("torch", "onnx"):
        need(module)
    from mmedge.edge.engine.dynamo import load_torch_tensorrt
    from mmedge.edge.runtime.torch_tensorrt import TorchTensorRtRuntime

    return TorchTensorRtRuntime(load_torch_tensorrt(), precision=precision, device=str(found), folder=cache_folder())


_OPENERS: dict[str, Callable[[str, int, bool], Runtime]] = {
    "openvino": _openvino,
    "onnxruntime": _onnxruntime,
    "eager": _eager,
    "tensorrt": lambda precision, *_: _tensorrt(precision, "tensorrt"),
    "tensorrt-rtx": lambda precision, *_: _tensorrt(precision, "tensorrt-rtx"),
    "torch-tensorrt": _torch_tensorrt,
}
# What each backend computes in. ONNX Runtime has no bf16 on CPUs, and a network in PyTorch has no Q/DQ.
PRECISIONS = {
    "openvino": ("fp32", "bf16", "int8"),
    "onnxruntime": ("fp32", "int8"),
    "eager": ("fp32", "bf16"),
    "tensorrt": ("fp32", "fp16", "int8"),
    "tensorrt-rtx": ("fp32", "fp16", "int8"),
    "torch-tensorrt": ("fp32", "fp16"),
}
BACKENDS = ("auto", *_OPENERS)


@dataclass(frozen=True, slots=True)
class Choice:
    """A backend and the reason for it. `fallback`: the machine has a GPU that this backend does not use."""

    backend: str
    why: str
    fallback: bool = False


def choose_backend(precision: str, *, gpu: str | None, torch_uses_it: bool, engines: str | None = None) -> Choice:
    """What `--backend auto` takes: the GPU where something here can use it, else the fastest CPU backend.

    `engines`: the backend for which `mmedge compile` has built some in this precision on this GPU.
    """
    if gpu is None:
        return Choice("openvino", "no NVIDIA GPU here, and OpenVINO is the fastest backend on a CPU")
    if engines:
        return Choice(engines, f"{gpu} is here, and so are engines that were built on it")
    if not torch_uses_it:
        return Choice("openvino", f"{gpu} is here, but no backend that can use it is installed", fallback=True)
    if precision not in PRECISIONS["eager"]:
        return Choice("openvino", f"{gpu} is here, but it runs {precision} through TensorRT alone", fallback=True)
    return Choice("eager", f"{gpu} is here and PyTorch can use it")


def check_choice(choice: Choice, precision: str, *, strict_device: bool) -> None:
    """Raises where the backend lacks the precision, and, if `strict_device`, where a GPU would be left idle."""
    if strict_device and choice.fallback:
        raise MachineError(choice.why, hint="mmedge doctor; or leave --strict-device out")
    if precision not in PRECISIONS[choice.backend]:
        able = [name for name, some in PRECISIONS.items() if precision in some]
        hint = f"--backend {'|'.join(able)}" if able else f"one of {', '.join(PRECISIONS[choice.backend])}"
        raise UsageError(f"{choice.backend} has no {precision}", hint=hint)


def open_runtime(
    backend: str, *, precision: str, threads: int, strict_device: bool = False, frugal: bool = False
) -> tuple[Runtime, Choice]:
    """The backend of that name and why it was taken.

    `strict_device`: rather fail than leave a GPU idle. `frugal`: rather less memory than the last percents of speed.
    `auto` leaves int8 to ONNX Runtime on CPUs without VNNI. Raises UsageError or MachineError where a backend fails.
    """
    if backend not in BACKENDS:
        raise UsageError(f"no backend `{backend}`", hint=f"--backend {'|'.join(BACKENDS)}")
    if backend == "auto":
        found = probe_gpu()
        choice = choose_backend(
            precision,
            gpu=str(found) if found else None,
            torch_uses_it=found is not None and _cuda_in_torch(),
            engines=engines_for(cache_folder(), precision, str(found)) if found else None,
        )
    else:
        choice = Choice(backend, "it was asked for")
    check_choice(choice, precision, strict_device=strict_device)
    if precision == "int8" and choice.backend == "openvino" and not sums_int8():
        choice = _without_vnni(backend)
    return _OPENERS[choice.backend](precision, threads, frugal), choice


def _without_vnni(asked: str) -> Choice:
    """What computes int8 where OpenVINO's sums would saturate; MachineError where nothing does."""
    if asked != "auto" or find_spec("onnxruntime") is None:
        raise MachineError(
            "this CPU has no VNNI: in OpenVINO sums of int8 products saturate, and maps are wrong",
            hint="--precision fp32, which is as fast here; or --backend onnxruntime",
        )
    return Choice("onnxruntime", "this CPU has no VNNI, without which OpenVINO's int8 saturates")


def _cuda_in_torch() -> bool:
    if find_spec("torch") is None or find_spec("onnx") is None:
        return False
    import torch

    return torch.cuda.is_available()
