"""Make examples/chile from TerraMesh scene 433D_629L_3_1 (CC-BY-SA-4.0).

    python scripts/make_example.py --data ../shared/data

Pixel values are unchanged. What is added: band names, the dates, and for the optical bands the scale 1e-4 and the
offset -0.1, because this scene still carries the +1000 DN of Sentinel-2 processing baseline 04.00.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import rasterio

from mmedge.geo_io.gather import SceneOptions
from mmedge.geo_io.scene import open_scene
from mmedge.geo_io.stack import stack

SCENE = "433D_629L_3_1"
OPTICAL = ["B01", "B02", "B03", "B04", "B05", "B06", "B07", "B08", "B8A", "B09", "B11", "B12"]
FILES = {
    "optical": ("S2L2A.tif", OPTICAL, 1e-4, -0.1),
    "sar": ("S1RTC.tif", ["VV", "VH"], 1.0, 0.0),
    "elevation": ("DEM.tif", ["DEM"], 1.0, 0.0),
    "landcover": ("LULC.tif", ["LULC"], 1.0, 0.0),
}
# The only date that TerraMesh gives for this scene is that of the radar pass.
ACQUIRED = {"sar": "2020-04-11"}


def name_bands(source: Path, target: Path, sensor: str) -> None:
    """Copy a file, compressed the same way for every reader, with band names, scale and date."""
    _, names, scale, offset = FILES[sensor]
    with rasterio.open(source) as src:
        profile = {**src.profile, "compress": "deflate", "predictor": 3 if src.dtypes[0] == "float32" else 2}
        profile |= {"tiled": True, "blockxsize": 128, "blockysize": 128, "interleave": "band"}
        with rasterio.open(target, "w", **profile) as out:
            out.write(src.read())
            out.descriptions = [f"{sensor}:{name}" for name in names]
            out.scales, out.offsets = [scale] * src.count, [offset] * src.count
            if sensor in ACQUIRED:
                out.update_tags(ACQUISITION_DATE=ACQUIRED[sensor])
            if src.colorinterp[0].name == "palette":
                out.write_colormap(1, src.colormap(1))
                out.update_tags(**{k: v for k, v in src.tags().items() if k.startswith("CLASS_")})


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="folder that holds open/terramesh")
    parser.add_argument("--out", type=Path, default=Path("examples/chile"))
    args = parser.parse_args()
    args.out.mkdir(parents=True, exist_ok=True)
    for sensor, (file, *_) in FILES.items():
        name_bands(args.data / "open/terramesh" / SCENE / file, args.out / f"{sensor}.tif", sensor)
    sources = {sensor: [args.out / f"{sensor}.tif"] for sensor in ("optical", "sar", "elevation")}
    with open_scene(None, None, SceneOptions(sources=sources)) as scene:
        stack(scene, args.out / "scene.tif", overwrite=True)


if __name__ == "__main__":
    main()
