"""Which pixels train, validate and test: fixed blocks of 56 px, so that no training window touches a test block.

Training blocks come in squares of two by two, so that windows of 64 px fit. Chosen once, by the share of each class
in each part. The only flooded vegetation (90 px, Chile) lies in one block, which trains. The snow scene 609U stays out.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

BLOCK_PX = 56
TRAIN, VALIDATE, TEST = 0, 1, 2

# One letter a block, rows from the north: T train, V validate, E test.
BLOCKS: dict[str, tuple[str, ...]] = {
    "282D_485L_3_3": ("EVEE", "TTTT", "TTTT", "EVVE"),  # Brazil, coast
    "38D_378R_2_3": ("EVEE", "ETTT", "ETTT", "VTTT"),  # Tanzania
    "433D_629L_3_1": ("ETTE", "VTTE", "TTVV", "TTEE"),  # Chile, the demo scene
}


def part_of_pixels(scene: str) -> npt.NDArray[np.uint8]:
    """TRAIN, VALIDATE or TEST for each pixel of a scene (224, 224)."""
    letters = np.array([["TVE".index(b) for b in row] for row in BLOCKS[scene]], np.uint8)
    return letters.repeat(BLOCK_PX, axis=0).repeat(BLOCK_PX, axis=1)


def windows_inside(mask: npt.NDArray[np.bool_], size: int) -> npt.NDArray[np.int64]:
    """Origins (N, 2) of every `size` x `size` window that lies in `mask` entirely."""
    total = np.pad(mask.astype(np.int64).cumsum(0).cumsum(1), ((1, 0), (1, 0)))
    inside = total[size:, size:] - total[:-size, size:] - total[size:, :-size] + total[:-size, :-size]
    return np.argwhere(inside == size * size)
