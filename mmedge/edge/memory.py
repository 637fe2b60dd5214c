"""Peak memory of this process."""

from __future__ import annotations

import re
import sys
from pathlib import Path

STATUS, CLEAR = Path("/proc/self/status"), Path("/proc/self/clear_refs")


def reset_peak() -> bool:
    """Begin a new peak; False where the kernel has no such thing."""
    try:
        CLEAR.write_text("5")
    except OSError:
        return False
    return True


def peak_mib() -> float | None:
    """Peak resident memory in MiB since the start or the last reset; None where nobody tells."""
    if STATUS.is_file():
        found = re.search(r"VmHWM:\s+(\d+) kB", STATUS.read_text())
        return int(found[1]) / 1024 if found else None
    if sys.platform == "win32":
        return None
    import resource

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss  # bytes on macOS
    return peak / 2**20
