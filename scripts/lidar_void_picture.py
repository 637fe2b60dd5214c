"""Draw docs/sensors/lidar_void.png: photograph, nDSM with its voids, and the shipped CHM of IDTReeS plot OSBS_27.

python scripts/lidar_void_picture.py ../shared/data/open/idtrees/plots/OSBS_27
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import rasterio
from PIL import Image, ImageDraw

from mmedge.geo_io.lidar import LidarSource
from mmedge.grid import Grid

SIDE, GAP = 240, 8  # 20 x 20 cells of 1 m, drawn with 12 x 12 pixels each


def main(plot: Path) -> None:
    with rasterio.open(plot / "RGB.tif") as photo, rasterio.open(plot / "CHM.tif") as chm:
        rgb = Image.fromarray(np.moveaxis(photo.read(), 0, -1)).resize((SIDE, SIDE))
        grid = Grid(chm.height, chm.width, tuple(chm.transform)[:6], chm.crs.to_wkt())
        shipped = chm.read(1)
    with LidarSource(plot / "points.laz", grid, bands=["ndsm"], fill_cells=3) as source:
        height, valid = source.read(grid.window)
    top = max(float(shipped.max()), float(height.max()))
    panels = {
        "photograph": rgb,
        f"ndsm, 0 to {top:.0f} m; {(~valid).mean():.0%} void, hatched": cells(height[0] / top, valid),
        "CHM.tif as shipped: interpolated": cells(shipped / top, np.ones_like(valid)),
    }
    sheet = Image.new("RGB", (3 * SIDE + 4 * GAP, SIDE + 32), "white")
    draw = ImageDraw.Draw(sheet)
    for index, (title, panel) in enumerate(panels.items()):
        left = GAP + index * (SIDE + GAP)
        sheet.paste(panel, (left, 24))
        draw.text((left, 6), title, fill="black")
    target = Path(__file__).parents[1] / "docs" / "sensors" / "lidar_void.png"
    sheet.quantize(64).save(target, optimize=True)
    print(f"{target.name}: {target.stat().st_size} bytes, {(~valid).sum()} of {valid.size} cells void")


def cells(share: np.ndarray, valid: np.ndarray) -> Image.Image:
    """Cells as grey squares; voids are diagonal lines on white, so that no colour carries the meaning."""
    scale = SIDE // share.shape[0]
    grey = np.clip(share * 200 + 20, 0, 255).astype(np.uint8)
    large, known = (np.kron(a, np.ones((scale, scale), a.dtype)) for a in (grey, valid.astype(np.uint8)))
    rows, cols = np.indices(large.shape)
    lines = np.where((rows + cols) % 6 < 2, 0, 255)
    return Image.fromarray(np.where(known == 1, large, lines).astype(np.uint8)).convert("RGB")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
