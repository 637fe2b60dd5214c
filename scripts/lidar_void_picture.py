"""Draw docs/sensors/lidar_void.png: photograph, highest return and valid mask of IDTReeS plot OSBS_22.

python scripts/lidar_void_picture.py ../shared/data/open/idtrees/plots/OSBS_22
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import rasterio
from PIL import Image, ImageDraw

from mmedge.geo_io.lidar import LidarSource
from mmedge.grid import Grid

CELL_M, SIDE = 0.5, 240  # 40 x 40 cells, drawn with 6 x 6 pixels each


def main(plot: Path) -> None:
    with rasterio.open(plot / "RGB.tif") as photo:
        rgb = Image.fromarray(np.moveaxis(photo.read(), 0, -1)).resize((SIDE, SIDE))
        bounds, crs = photo.bounds, photo.crs.to_wkt()
    grid = Grid(40, 40, (CELL_M, 0.0, bounds.left, 0.0, -CELL_M, bounds.top), crs)
    with LidarSource(plot / "points.laz", grid, bands=["ndsm"], fill_cells=6) as source:
        height, valid = source.read(grid.window)
    grey = np.clip(height[0] / height[0].max() * 200 + 55, 0, 255).astype(np.uint8)
    panels = [rgb, hatch(grey, valid), hatch(np.full_like(grey, 255), valid)]
    sheet = Image.new("RGB", (3 * SIDE + 4 * 8, SIDE + 32), "white")
    titles = ("photograph", f"ndsm, 0..{height[0].max():.0f} m", f"valid: {valid.mean():.0%}, void hatched")
    draw = ImageDraw.Draw(sheet)
    for index, (panel, title) in enumerate(zip(panels, titles, strict=True)):
        left = 8 + index * (SIDE + 8)
        sheet.paste(panel, (left, 24))
        draw.text((left, 6), title, fill="black")
    target = Path(__file__).parents[1] / "docs" / "sensors" / "lidar_void.png"
    sheet.quantize(128).save(target, optimize=True)
    print(f"{target.name}: {target.stat().st_size} bytes, {(~valid).mean():.1%} void")


def hatch(grey: np.ndarray, valid: np.ndarray) -> Image.Image:
    """Cells as squares; voids are diagonal lines, so that no colour carries the meaning."""
    scale = SIDE // grey.shape[0]
    large, known = (np.kron(a, np.ones((scale, scale), a.dtype)) for a in (grey, valid.astype(np.uint8)))
    rows, cols = np.indices(large.shape)
    return Image.fromarray(
        np.where(known == 1, large, np.where((rows + cols) % 6 < 2, 0, 255)).astype(np.uint8)
    ).convert("RGB")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
