"""Cut the crops that tests of failure detection run on without the shared data.

python scripts/cut_failure_crops.py ../shared/data/open tests/data/failure
"""

from __future__ import annotations

import sys
from pathlib import Path

import rasterio
from rasterio.windows import Window

CROPS = {
    "s2.tif": ("terramesh/433D_629L_3_1/S2L2A.tif", Window(0, 0, 160, 160), [2, 3, 4, 8]),
    "s1.tif": ("terramesh/433D_629L_3_1/S1RTC.tif", Window(0, 0, 160, 160), [1, 2]),
    "dem.tif": ("terramesh/433D_629L_3_1/DEM.tif", Window(0, 0, 160, 160), [1]),
    "slc_off.tif": ("readers/landsat7_slcoff/LS7_ETM_095_082_20100116_B40.nc", Window(100, 100, 256, 256), [1]),
}


def main() -> None:
    source, target = Path(sys.argv[1]), Path(sys.argv[2])
    target.mkdir(parents=True, exist_ok=True)
    for name, (path, window, bands) in CROPS.items():
        with rasterio.open(source / path) as scene:
            data = scene.read(bands, window=window)
            profile = {
                "driver": "GTiff",
                "dtype": data.dtype,
                "count": len(bands),
                "height": window.height,
                "width": window.width,
                "crs": scene.crs,
                "transform": scene.window_transform(window),
                "nodata": scene.nodata,
                "compress": "zstd",
                "predictor": 3 if data.dtype.kind == "f" else 2,
            }
            names = [scene.descriptions[b - 1] for b in bands]
        with rasterio.open(target / name, "w", **profile) as crop:
            crop.write(data)
            crop.descriptions = names
        print(name, data.shape, (target / name).stat().st_size, "bytes")


if __name__ == "__main__":
    main()
