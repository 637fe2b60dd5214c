"""What can be wrong with a sensor, by name: what is simulated, and what is found."""

from __future__ import annotations

from typing import Literal, get_args

Cause = Literal[
    "dead_line",
    "dead_column",
    "striping",
    "slc_off",
    "dropped_band",
    "stuck",
    "saturated",
    "bit_flip",
    "border_noise",
    "missing_swath",
    "lidar_void",
    "cloud",
]
CAUSES: tuple[Cause, ...] = get_args(Cause)
DETECTED: tuple[Cause, ...] = tuple(cause for cause in CAUSES if cause != "cloud")  # clouds take a mask or a detector
DECLARED: frozenset[Cause] = frozenset({"slc_off", "missing_swath", "lidar_void", "cloud"})  # come as nodata
