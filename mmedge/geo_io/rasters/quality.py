"""Quality layers that products deliver beside their bands, and which of their values make a pixel unusable.

==============  ==========================================================  =========================================
layer           unusable                                                    stays usable
==============  ==========================================================  =========================================
SCL             0 no data, 1 saturated or defective, 3 cloud shadow,        2 dark area (topographic shade), 4..7, 11
                8 and 9 cloud, 10 thin cirrus                               snow
QA60            bits 10 (opaque cloud) and 11 (cirrus)
MSK_CLASSI      layers 1 (opaque cloud) and 2 (cirrus)                      layer 3 (snow or ice)
MSK_QUALIT      layers 1 and 3 (lost packets), 5 (defective), 6 (no data),  2 and 4 (degraded), 7 (cross-talk partly
                8 (saturated)                                               corrected)
QA_PIXEL        bits 0 (fill), 1 (dilated cloud), 2 (cirrus), 3 (cloud),    5 snow, 6 clear, 7 water
                4 (cloud shadow)
QA_RADSAT       the bit of the band, bit 9 (dropped pixel)                  bit 11 (hidden behind terrain): shade
==============  ==========================================================  =========================================

SCL: Sen2Cor, Sentinel-2 Products Specification Document (S2-PDGS-TAS-DI-PSD); MSK_*: the same, from baseline 04.00 on.
QA_*: Landsat 8-9 (LSDS-1619) and Landsat 4-7 (LSDS-1618) Collection 2 Level 2 Science Product Guides.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from mmedge.tile import Valid


@dataclass(frozen=True, slots=True, kw_only=True)
class Rule:
    """Which values of a quality layer make a pixel unusable: any of `bits` set, or one of `classes`."""

    bits: int = 0
    classes: tuple[int, ...] = ()

    def usable(self, values: npt.NDArray[np.integer]) -> Valid:
        """True where a value of the layer (any shape, integers) says that the pixel may be used."""
        return np.asarray((values & self.bits == 0) & ~np.isin(values, self.classes))


def bits(*numbers: int) -> int:
    """An integer with these bits set."""
    return sum(1 << n for n in set(numbers))


SCL = Rule(classes=(0, 1, 3, 8, 9, 10))
QA60 = Rule(bits=bits(10, 11))
FLAGGED = Rule(bits=-1)  # whatever is not 0
QA_PIXEL = Rule(bits=bits(0, 1, 2, 3, 4))
MSK_CLASSI_LAYERS = (1, 2)
MSK_QUALIT_LAYERS = (1, 3, 5, 6, 8)
RADSAT_DROPPED = 9
# Every spectral band of every Landsat; a product's reader narrows it to the band at hand.
QA_RADSAT = Rule(bits=bits(*range(9), RADSAT_DROPPED))

# Layers that are recognised by the name of a band, wherever they come from.
NAMED_RULES = {"SCL": SCL, "QA60": QA60, "QA_PIXEL": QA_PIXEL, "QA_RADSAT": QA_RADSAT}
