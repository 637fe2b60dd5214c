"""Power meters of a machine: Jetson's INA3221 and INA238, NVIDIA's NVML, Intel's and AMD's RAPL.

A meter that cannot be read is left out, and why is said; no number is ever made up.
"""

from __future__ import annotations

import ctypes
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

RATE_HZ = 20.0


class Meter(Protocol):
    """Something that tells energy. `joules` counts up from any start; what it counts since two calls is what was used.

    It may raise OSError.
    """

    @property
    def name(self) -> str: ...

    def joules(self) -> float: ...


@dataclass(frozen=True, slots=True)
class Rail:
    """One supply rail of a board: power from a file in uW, or from files in mV and mA."""

    label: str
    files: tuple[Path, ...]

    def watts(self) -> float:
        values = [int(path.read_text()) for path in self.files]
        return values[0] / 1e6 if len(values) == 1 else values[0] * values[1] / 1e6


class RailMeter:
    """Power of a board's rails, integrated between readings (trapezoids). Fulfils `Meter`."""

    def __init__(self, chip: str, rails: Sequence[Rail], clock: Callable[[], float] = time.monotonic) -> None:
        self.name = f"{chip} ({' + '.join(rail.label for rail in rails)})"
        self._rails, self._clock, self._total = rails, clock, 0.0
        self._last = (clock(), self.watts())

    def watts(self) -> float:
        return sum(rail.watts() for rail in self._rails)

    def joules(self) -> float:
        now, watts = self._clock(), self.watts()
        self._total += (now - self._last[0]) * (watts + self._last[1]) / 2
        self._last = (now, watts)
        return self._total


class RaplMeter:
    """The energy counters of the CPU packages, in uJ; they wrap around. Fulfils `Meter`."""

    def __init__(self, zones: Sequence[Path]) -> None:
        self.name = f"RAPL ({' + '.join((zone / 'name').read_text().strip() for zone in zones)})"
        self._zones, self._total = zones, 0.0
        self._wraps = [int((zone / "max_energy_range_uj").read_text()) for zone in zones]
        self._last = self._read()

    def _read(self) -> list[int]:
        return [int((zone / "energy_uj").read_text()) for zone in self._zones]

    def joules(self) -> float:
        now = self._read()
        steps = [(b - a) % (wrap + 1) for a, b, wrap in zip(self._last, now, self._wraps, strict=True)]
        self._last, self._total = now, self._total + sum(steps) / 1e6
        return self._total


class NvmlMeter:
    """The energy counter of NVIDIA GPU 0 (Volta and newer), in mJ. Fulfils `Meter`."""

    name = "NVML (GPU 0)"

    def __init__(self) -> None:
        self._nvml = ctypes.CDLL("libnvidia-ml.so.1")
        self._gpu = ctypes.c_void_p()
        if self._nvml.nvmlInit_v2() or self._nvml.nvmlDeviceGetHandleByIndex_v2(0, ctypes.byref(self._gpu)):
            raise OSError("NVML finds no GPU")
        self.joules()

    def joules(self) -> float:
        energy = ctypes.c_ulonglong()
        if self._nvml.nvmlDeviceGetTotalEnergyConsumption(self._gpu, ctypes.byref(energy)):
            raise OSError("this GPU counts no energy")
        return energy.value / 1e3


@dataclass(frozen=True, slots=True)
class Meters:
    """The meters that together tell what a machine uses, and why others are missing."""

    found: tuple[Meter, ...]
    missing: tuple[str, ...]


def find_meters(root: Path = Path("/")) -> Meters:
    """The meters of this machine. A Jetson's board meter counts everything, so it stands alone."""
    missing: list[str] = []
    board = _attempt("INA3221/INA238", lambda: _board(root), missing)
    if board is not None:
        return Meters((board,), ())
    others = [_attempt("NVML", NvmlMeter, missing), _attempt("RAPL", lambda: _rapl(root), missing)]
    return Meters(tuple(meter for meter in others if meter is not None), tuple(missing))


def _attempt(what: str, find: Callable[[], Meter | None], missing: list[str]) -> Meter | None:
    try:
        meter = find()
        if meter is None:
            missing.append(f"{what}: not here")
        return meter
    except PermissionError as err:
        missing.append(f"{what}: `{err.filename}` may be read by root alone")
    except (OSError, ValueError) as err:
        missing.append(f"{what}: {err}")
    return None


def _board(root: Path) -> Meter | None:
    """The whole board where a rail says so (VDD_IN, VIN), else the sum of the rails."""
    rails: list[Rail] = []
    chip = ""
    for hwmon in sorted(root.glob("sys/class/hwmon/hwmon*")):
        name = (hwmon / "name").read_text().strip() if (hwmon / "name").is_file() else ""
        if name in ("ina3221", "ina238"):
            chip = name.upper()
            rails += _ina3221(hwmon) if name == "ina3221" else _ina238(hwmon)
    whole = [rail for rail in rails if rail.label in ("VDD_IN", "VIN")]
    return RailMeter(chip, whole or rails) if rails else None


def _ina3221(hwmon: Path) -> Iterator[Rail]:
    """Channels 1 to 3; NC is connected to nothing, and channel 7 is the sum of the others."""
    for n in (1, 2, 3):
        label, files = hwmon / f"in{n}_label", (hwmon / f"in{n}_input", hwmon / f"curr{n}_input")
        if label.is_file() and label.read_text().strip() != "NC" and all(path.is_file() for path in files):
            yield Rail(label.read_text().strip(), files)


def _ina238(hwmon: Path) -> Iterator[Rail]:
    label, power = hwmon / "in1_label", hwmon / "power1_input"
    if power.is_file():
        yield Rail(label.read_text().strip() if label.is_file() else "VIN", (power,))


def _rapl(root: Path) -> Meter | None:
    zones = [z for z in sorted(root.glob("sys/class/powercap/*-rapl:*")) if z.name.count(":") == 1]
    return RaplMeter(zones) if zones else None


@dataclass(frozen=True, slots=True, kw_only=True)
class Energy:
    """What was used, and how it was measured. `samples` at `rate_hz` fed the meters that know power alone."""

    meters: tuple[str, ...]
    joules: float
    seconds: float
    rate_hz: float
    samples: int

    @property
    def watts(self) -> float:
        return self.joules / max(1e-9, self.seconds)


class Metering:
    """A measurement that runs, or has ended: `result` is None where there is no meter, or one of them failed."""

    def __init__(self) -> None:
        self.result: Energy | None = None
        self.failure: str | None = None


@contextmanager
def metering(meters: Sequence[Meter], *, rate_hz: float = RATE_HZ) -> Iterator[Metering]:
    """Measure the energy that is used inside the `with` block."""
    measured, stop = Metering(), threading.Event()
    readings: list[tuple[float, float]] = []  # (when, joules since the counters' own starts)

    def read() -> bool:
        try:
            readings.append((time.monotonic(), sum(meter.joules() for meter in meters)))
        except OSError as err:
            measured.failure = str(err)
        return measured.failure is None

    def sample() -> None:
        while not stop.wait(1 / rate_hz) and read():
            pass

    if not meters or not read():
        yield measured
        return
    thread = threading.Thread(target=sample, name="power")
    thread.start()
    try:
        yield measured
    finally:
        stop.set()
        thread.join()
    if measured.failure is None and read():
        measured.result = Energy(
            meters=tuple(meter.name for meter in meters),
            joules=readings[-1][1] - readings[0][1],
            seconds=readings[-1][0] - readings[0][0],
            rate_hz=rate_hz,
            samples=len(readings),
        )
