"""Temperature, clocks, throttling and power mode of a machine, as its kernel tells them; absent where it does not."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path
from typing import Any

ROOT = Path("/")


def temperatures_c(root: Path = ROOT) -> dict[str, float]:
    """Degrees Celsius of each thermal zone that can be read; an unpowered zone of a Jetson cannot."""
    found = {}
    for zone in sorted(root.glob("sys/class/thermal/thermal_zone*")):
        value = _number(zone / "temp")
        if value is not None:
            kind = _text(zone / "type") or zone.name
            found[kind] = value / 1000
    return found


def clocks_mhz(root: Path = ROOT) -> dict[str, float]:
    """Current clocks: the fastest core of the CPU, and each device with frequencies of its own (a Jetson's GPU)."""
    cores = [_number(p) for p in root.glob("sys/devices/system/cpu/cpu[0-9]*/cpufreq/scaling_cur_freq")]
    known = [value for value in cores if value is not None]
    found = {"cpu": max(known) / 1000} if known else {}
    for device in sorted(root.glob("sys/class/devfreq/*")):
        value = _number(device / "cur_freq")
        if value is not None:
            found[device.name] = value / 1e6
    return found


def throttle_events(root: Path = ROOT) -> int | None:
    """How often cores were slowed down for heat, or a Jetson's rails for their current; None where nobody counts."""
    patterns = (
        "sys/devices/system/cpu/cpu[0-9]*/thermal_throttle/*_throttle_count",
        "sys/class/hwmon/hwmon*/oc*_event_cnt",
    )
    counts = [_number(path) for pattern in patterns for path in root.glob(pattern)]
    known = [int(count) for count in counts if count is not None]
    return sum(known) if known else None


def power_mode() -> str | None:
    """What `nvpmodel -q` says on a Jetson; None elsewhere."""
    tool = shutil.which("nvpmodel")
    if tool is None:
        return None
    done = subprocess.run([tool, "-q"], capture_output=True, text=True, timeout=10, check=False)
    lines = [line.partition(":")[2].strip() for line in done.stdout.splitlines() if line.startswith("NV Power Mode")]
    return lines[0] if lines else None


def health(root: Path = ROOT) -> dict[str, Any]:
    """All of it, for a report."""
    return {
        "power_mode": power_mode(),
        "temperatures_c": temperatures_c(root),
        "clocks_mhz": clocks_mhz(root),
        "throttle_events": throttle_events(root),
    }


def _text(path: Path) -> str | None:
    try:
        return path.read_text().strip()
    except OSError:
        return None


def _number(path: Path) -> float | None:
    text = _text(path)
    try:
        return None if text is None else float(text)
    except ValueError:
        return None
