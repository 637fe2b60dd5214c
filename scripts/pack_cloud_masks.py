"""Pack the partly cloudy masks of eo-learn's test patch (MIT) into the package: 19 masks of 101 x 100 px, a few KB.

    python scripts/pack_cloud_masks.py ../shared/data/open/cloud_masks

The masks are those of `clm` with 0 < cloud fraction < 1, bit for bit; the licence is copied beside them.
"""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

import numpy as np

TARGET = Path(__file__).parents[1] / "mmedge" / "geo_io" / "clouds"


def main() -> None:
    source = Path(sys.argv[1])
    with np.load(source / "cloud_masks.npz") as masks:
        fraction = masks["cloud_fraction"]
        partly = masks["clm"][(fraction > 0) & (fraction < 1)]
    TARGET.mkdir(exist_ok=True)
    packed = np.packbits(partly, axis=2)
    np.savez_compressed(TARGET / "masks.npz", packed=packed, cols=np.array(partly.shape[2]))
    shutil.copy(source / "LICENSE", TARGET / "LICENSE")
    size = (TARGET / "masks.npz").stat().st_size
    print(f"{len(partly)} masks of {partly.shape[1]} x {partly.shape[2]} px, {size} bytes")


if __name__ == "__main__":
    main()
