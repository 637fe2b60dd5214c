"""The machine: processor, memory, accelerators, and which of our dependencies are installed."""

from __future__ import annotations

import ctypes
import os
import platform
import subprocess
import sys
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from mmedge import __version__

# Instruction sets that decide how fast fp32, bf16 and int8 run.
SPEED_FLAGS = (
    "avx2",
    "avx512f",
    "avx512_vnni",
    "avx_vnni",
    "avx512_bf16",
    "amx_bf16",
    "amx_int8",
    "asimd",
    "asimddp",
    "bf16",
)

PACKAGES = {
    "openvino": ("inference on CPUs", "pip install mmedge"),
    "onnxruntime": ("inference on CPUs", "pip install 'mmedge[onnxruntime]'"),
    "tensorrt": ("inference on NVIDIA GPUs", "pip install 'mmedge[tensorrt]'; on Jetson it comes with JetPack"),
    "torch": ("training, eager inference", "pip install 'mmedge[train]'"),
    "onnx": ("exporting models", "pip install 'mmedge[export]'"),
    "laspy": ("LiDAR clouds", "pip install 'mmedge[lidar]'"),
    "pyogrio": ("--aoi from other files than GeoJSON, vectorize", "pip install 'mmedge[vector]'"),
    "ray": ("batches on a cluster", "pip install 'mmedge[batch]'"),
}


def threads_available() -> int:
    """Cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def examine() -> dict[str, Any]:
    """Facts for `doctor`."""
    return {
        "schema": "mmedge.doctor/1",
        "mmedge": __version__,
        "python": platform.python_version(),
        "machine": f"{platform.machine()} {platform.system()}",
        "cpu": cpu_name(),
        "cpu_flags": " ".join(cpu_flags()) or "unknown",
        "threads": threads_available(),
        "memory_gib": memory_gib(),
        "gpu": gpu_name() or "none (no NVIDIA driver): the CPU is used",
        "packages": {
            name: {"version": _version(name), "for": what, "fix": fix} for name, (what, fix) in PACKAGES.items()
        },
    }


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def cpu_name() -> str:
    for line in _proc("cpuinfo"):
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def cpu_flags() -> list[str]:
    """The instruction sets of `SPEED_FLAGS` that this CPU has."""
    for line in _proc("cpuinfo"):
        if line.lower().startswith(("flags", "features")):
            have = set(line.partition(":")[2].split())
            return [flag for flag in SPEED_FLAGS if flag in have]
    return []


def memory_gib() -> float | None:
    for line in _proc("meminfo"):
        if line.startswith("MemTotal"):
            return round(int(line.split()[1]) / 2**20, 1)
    return None


def _proc(name: str) -> list[str]:
    path = Path("/proc") / name
    return path.read_text().splitlines() if path.exists() else []


# Where none of these is there, Linux has no NVIDIA driver: desktop, WSL, Jetson.
DRIVER_FILES = ("/dev/nvidiactl", "/dev/dxg", "/dev/nvhost-ctrl-gpu", "/dev/nvgpu")


def gpu_name() -> str | None:
    """Name of the first NVIDIA GPU. The driver is asked in a child process: a broken one may crash who asks."""
    if sys.platform == "linux" and not any(Path(file).exists() for file in DRIVER_FILES):
        return None
    probe = "from mmedge.edge.device import ask_driver; print(ask_driver())"
    done = subprocess.run([sys.executable, "-c", probe], capture_output=True, text=True, timeout=30, check=False)
    name = done.stdout.strip()
    return name if done.returncode == 0 and name else None


def ask_driver() -> str:
    """Name of device 0 from the CUDA driver, empty where there is none. Call it in a child process only."""
    try:
        cuda = ctypes.CDLL("libcuda.so.1")
    except OSError:
        return ""
    count, name = ctypes.c_int(), ctypes.create_string_buffer(100)
    if cuda.cuInit(0) or cuda.cuDeviceGetCount(ctypes.byref(count)) or not count.value:
        return ""
    failed = cuda.cuDeviceGetName(name, len(name), 0)
    return "" if failed else name.value.decode()
