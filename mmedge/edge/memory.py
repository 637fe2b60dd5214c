"""Peak memory of this process, and what it looks like when there is none left."""

from __future__ import annotations

import ctypes
import errno
import re
import sys
from pathlib import Path

M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3  # malloc.h
# How C++ runtimes, threads and GDAL say it, who have no MemoryError.
RAN_OUT = re.compile(r"bad_?alloc|start new thread|cannot allocate|out of memory", re.IGNORECASE)
STATUS, CLEAR = Path("/proc/self/status"), Path("/proc/self/clear_refs")


def reset_peak() -> bool:
    """Begin a new peak; False where the kernel has no such thing."""
    try:
        CLEAR.write_text("5")
    except OSError:
        return False
    return True


def resident_mib() -> float:
    """Resident memory in MiB now; the peak where the kernel does not tell."""
    found = re.search(r"VmRSS:\s+(\d+) kB", STATUS.read_text()) if STATUS.is_file() else None
    return int(found[1]) / 1024 if found else peak_mib() or 0.0


def give_back() -> None:
    """Let glibc give large arrays back to the system at once, and keep little for later. Once for a process.

    By itself it learns to keep blocks of up to 32 MiB, in a heap for each thread: a tenth of the memory of large
    windows, for no more processor time (tried with the U-Net of the benchmarks, 2 cores).
    """
    if not sys.platform.startswith("linux"):
        return
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (OSError, AttributeError):  # musl has none, and needs none
        return
    for option, size in ((M_MMAP_THRESHOLD, 8 << 20), (M_TRIM_THRESHOLD, 32 << 20)):
        mallopt(option, size)


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


def ran_out(err: BaseException) -> bool:
    """Whether an error, or one that it comes from, says that there was no memory, in whose words ever."""
    if isinstance(err, MemoryError) or (isinstance(err, OSError) and err.errno == errno.ENOMEM):
        return True
    origin = err.__cause__ or err.__context__
    return bool(RAN_OUT.search(str(err))) or (origin is not None and ran_out(origin))
