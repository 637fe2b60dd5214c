"""What a scene gives for a window: data and validity per modality."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from mmedge.grid import Window

Data = npt.NDArray[np.float32]
Valid = npt.NDArray[np.bool_]
# Pixels that are not valid, by what took them (`nodata`, `SCL`, `dead_line`, ...); causes may overlap.
Lost = dict[str, Valid]


@dataclass(frozen=True, slots=True)
class Tile:
    """Pixels of one window. `data[name]` is (bands, rows, cols) float32 in model units.

    `valid[name]` is (rows, cols) bool, True = usable. A modality that the scene lacks is absent from both. Values under
    False are unspecified. `lost[name]` says what took the others.
    """

    window: Window
    data: dict[str, Data]
    valid: dict[str, Valid]
    lost: dict[str, Lost] = field(default_factory=dict)
