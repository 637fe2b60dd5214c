"""The machine: processor, memory, accelerators, and which of our dependencies are installed."""

from __future__ import annotations

import ctypes
import os
import platform
import subprocess
import sys
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
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

INT8_FLAGS = frozenset({"avx512_vnni", "avx_vnni", "amx_int8"})

PACKAGES = {
    "openvino": ("inference on CPUs", "pip install mmedge"),
    "onnxruntime": ("inference on CPUs", "pip install 'mmedge[onnxruntime]'"),
    "tensorrt": ("inference on NVIDIA GPUs", "pip install 'mmedge[tensorrt]'; on Jetson it comes with JetPack"),
    "tensorrt-rtx": ("engines for RTX GPUs", "pip install 'mmedge[tensorrt-rtx]'"),
    "torch-tensorrt": ("engines through PyTorch", "pip install 'mmedge[torch-tensorrt]'; Orin: 2.8, from the vendor"),
    "cuda-python": ("running TensorRT engines", "pip install cuda-python"),
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
        "memory_gib": memory_gib("MemTotal"),
        "free_memory_gib": memory_gib("MemAvailable"),
        "gpu": str(gpu() or "") or "none (no NVIDIA driver): the CPU is used",
        "tensorrt": tensorrt_version(),
        **jetson(),
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


def sums_int8() -> bool:
    """Whether this CPU sums up products of int8 without loss: x86 before VNNI adds two in 16 bits, which saturate."""
    x86 = platform.machine().lower() in ("x86_64", "amd64", "i686")
    return not x86 or not INT8_FLAGS.isdisjoint(cpu_flags())


def memory_gib(row: str = "MemTotal") -> float | None:
    """A row of /proc/meminfo. On a Jetson, CPU and GPU share this memory."""
    for line in _proc("meminfo"):
        if line.startswith(f"{row}:"):
            return round(int(line.split()[1]) / 2**20, 1)
    return None


def _proc(name: str) -> list[str]:
    path = Path("/proc") / name
    return path.read_text().splitlines() if path.exists() else []


# Where none of these is there, Linux has no NVIDIA driver: desktop, WSL, Jetson.
DRIVER_FILES = ("/dev/nvidiactl", "/dev/dxg", "/dev/nvhost-ctrl-gpu", "/dev/nvgpu")


@dataclass(frozen=True, slots=True)
class Gpu:
    """The first NVIDIA GPU: its name and its compute capability, such as `sm87`."""

    name: str
    sm: str

    def __str__(self) -> str:
        return f"{self.name} {self.sm}"


def gpu() -> Gpu | None:
    """The first NVIDIA GPU. The driver is asked in a child process: a broken one may crash who asks."""
    if sys.platform == "linux" and not any(Path(file).exists() for file in DRIVER_FILES):
        return None
    probe = "from mmedge.edge.device import ask_driver; print(ask_driver())"
    done = subprocess.run([sys.executable, "-c", probe], capture_output=True, text=True, timeout=30, check=False)
    name, tab, sm = done.stdout.strip().partition("\t")
    return Gpu(name, sm) if done.returncode == 0 and tab else None


def ask_driver() -> str:
    """Name and compute capability of device 0 from the CUDA driver, empty where there is none. For child processes."""
    try:
        cuda = ctypes.CDLL("libcuda.so.1")
    except OSError:
        return ""
    count, name, major, minor = ctypes.c_int(), ctypes.create_string_buffer(100), ctypes.c_int(), ctypes.c_int()
    if cuda.cuInit(0) or cuda.cuDeviceGetCount(ctypes.byref(count)) or not count.value:
        return ""
    # 75 and 76 are CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR and _MINOR of the driver's stable C interface.
    failed = (
        cuda.cuDeviceGetName(name, len(name), 0)
        or cuda.cuDeviceGetAttribute(ctypes.byref(major), 75, 0)
        or cuda.cuDeviceGetAttribute(ctypes.byref(minor), 76, 0)
    )
    return "" if failed else f"{name.value.decode()}\tsm{major.value}{minor.value}"


def jetson() -> dict[str, str]:
    """Power mode, clocks and release of a Jetson; empty elsewhere. What cannot be read says so."""
    release = Path("/etc/nv_tegra_release")
    if not release.exists():
        return {}
    return {
        "jetson": release.read_text().splitlines()[0].lstrip("# "),
        "power_mode": _say("nvpmodel", "-q"),
        "clocks": _clocks(),
    }


def _say(*command: str) -> str:
    """The output of a system tool in one line, or why there is none."""
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=10, check=False)
    except (OSError, subprocess.TimeoutExpired) as err:
        return f"unknown: {err}"
    said = " ".join(done.stdout.split())
    return said if done.returncode == 0 and said else f"unknown: `{' '.join(command)}` needs sudo, or is not there"


def _clocks(cpus: Path = Path("/sys/devices/system/cpu")) -> str:
    """Whether the CPU's clocks are pinned, as `jetson_clocks` does: least = largest frequency."""
    limits = [(cpu / "scaling_min_freq", cpu / "scaling_max_freq") for cpu in sorted(cpus.glob("cpu[0-9]*/cpufreq"))]
    if not limits:
        return "unknown"
    pinned = all(low.read_text() == high.read_text() for low, high in limits)
    return "pinned" if pinned else "not pinned: sudo jetson_clocks"


def tensorrt_version() -> str:
    """The version of TensorRT, asked in a child process: importing it without a driver may crash. Or the fix."""
    for module in ("tensorrt", "tensorrt_rtx"):
        if find_spec(module) is None:
            continue
        code = f"import {module} as trt; print(trt.__version__)"
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=False)
        if done.returncode == 0:
            return f"{done.stdout.strip()} ({module})"
        why = done.stderr.strip().splitlines()[-1] if done.stderr.strip() else f"it died with {done.returncode}"
        return f"{module} is installed, but cannot be loaded: {why}"
    if Path("/etc/nv_tegra_release").exists():
        return "not visible: python3 -m venv --system-site-packages"
    return "none"
