"""What a figure was measured on: printed and stored beside every one."""

from __future__ import annotations

import platform
import subprocess
from importlib.metadata import version
from typing import Any

from mmedge.edge.device import cpu_flags, cpu_name, memory_gib, threads_available


def machine() -> dict[str, Any]:
    """CPU, its speed flags, memory, versions and the commit that was measured."""
    return {
        "cpu": cpu_name(),
        "flags": " ".join(cpu_flags()),
        "threads": threads_available(),
        "memory_gib": memory_gib(),
        "python": platform.python_version(),
        "openvino": version("openvino"),
        "rasterio": version("rasterio"),
        "commit": _git("rev-parse", "--short", "HEAD") + ("+changes" if _git("status", "--porcelain", "-uno") else ""),
    }


def _git(*arguments: str) -> str:
    return subprocess.run(["git", *arguments], capture_output=True, text=True, check=True).stdout.strip()
