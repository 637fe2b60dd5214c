"""How far a scene lies from what a model was trained on: the share of its pixels that look like nothing in training.

Means of squares of 8 px, in the network's own units, are compared with 64 points that stand for those of training
(their cluster centres). A square is strange if it lies farther from the nearest point than 99 % of the training
squares do. A normal distribution (Mahalanobis) was tried: it misses the +1000 offset of Sentinel-2, see
docs/results/domain.md.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from mmedge.bundle import Bundle
from mmedge.edge.windows import derived
from mmedge.extras import need
from mmedge.geo_io.ground import gsd_m
from mmedge.geo_io.scene import Scene
from mmedge.grid import Window
from mmedge.tile import Data, Valid

Floats = npt.NDArray[np.float64]
SQUARE_PX = 8
POINTS = 64
QUANTILE = 0.99
LIMIT = 0.2  # share of strange squares above which a scene is out of domain: measured, docs/results/domain.md
PLACES = 6  # windows looked at along each side of a scene
ONE_READ_PX = 512 * 512  # a small scene is read once, not a window at a time
MOST_SQUARES = 20_000  # that points are fitted to


@dataclass(frozen=True, slots=True, kw_only=True)
class Domain:
    """What training looked like to one sensor: `points` (n, C) in units of `scale` around `centre` (C,)."""

    centre: Floats
    scale: Floats
    points: Floats
    reach: float

    def strange(self, squares: Floats) -> npt.NDArray[np.bool_]:
        """Which squares (N, C) lie farther than `reach` from every point."""
        return _distance((squares - self.centre) / self.scale, self.points) > self.reach

    def document(self) -> dict[str, Any]:
        """As JSON, rounded to what the figures are worth."""
        arrays = {"centre": self.centre, "scale": self.scale, "points": self.points}
        rounded = {key: np.array([float(f"{v:.5g}") for v in a.ravel()]).reshape(a.shape) for key, a in arrays.items()}
        return {**{key: a.tolist() for key, a in rounded.items()}, "reach": float(f"{self.reach:.5g}")}

    @classmethod
    def parse(cls, document: Mapping[str, Any]) -> Domain:
        """The inverse of `document`."""
        arrays = {key: np.array(document[key], np.float64) for key in ("centre", "scale", "points")}
        return cls(**arrays, reach=document["reach"])


def fit_domain(squares: Floats) -> Domain:
    """From the squares (N, C) of the training data. Needs scikit-learn."""
    some = squares[:: max(1, -(-len(squares) // MOST_SQUARES))].astype(np.float64)
    centre = np.median(some, axis=0)
    spread = 1.4826 * np.median(np.abs(some - centre), axis=0)
    scale = np.maximum(spread, np.maximum(0.1 * some.std(0), 1e-6))  # most of a sensor's values may be one value
    z = (some - centre) / scale
    number = min(POINTS, len(np.unique(z, axis=0)))
    means = need("sklearn.cluster").KMeans(number, n_init=1, random_state=0).fit(z)
    centres: Floats = means.cluster_centers_
    return Domain(centre=centre, scale=scale, points=centres, reach=float(np.quantile(_distance(z, centres), QUANTILE)))


def squares_of(x: npt.NDArray[np.float32], valid: npt.NDArray[np.bool_]) -> Floats:
    """Means (N, C) of the squares of x (B, C, H, W) over their valid pixels (B, 1, H, W), at least half of each."""
    rows, cols = (n // SQUARE_PX * SQUARE_PX for n in x.shape[2:])
    x, valid = x[..., :rows, :cols], valid[..., :rows, :cols]
    split = (rows // SQUARE_PX, SQUARE_PX, cols // SQUARE_PX, SQUARE_PX)
    v = valid.reshape(*valid.shape[:2], *split)
    total = np.where(v, x.reshape(*x.shape[:2], *split), 0).sum((3, 5), dtype=np.float64)
    count = v.sum((3, 5))
    some = count[:, 0] * 2 >= SQUARE_PX**2
    means: Floats = np.moveaxis(total / np.maximum(count, 1), 1, -1)[some]
    return means


def strange_shares(scene: Scene, bundle: Bundle, region: Window | None = None) -> dict[str, float]:
    """Share of strange squares of each sensor, from windows scattered evenly over a region (None: the whole scene).

    {} where the bundle does not say what it was trained on. The windows are some of those that a map is made from. A
    sensor that saw none of them is left out.
    """
    documents = bundle.item["properties"].get("mmedge:domain", {})
    domains = {m: Domain.parse(d) for m, d in documents.items() if m in scene.sources}
    if not domains:
        return {}
    tiling, pixel_m = bundle.tiling, gsd_m(scene.grid)
    seen, strange = dict.fromkeys(domains, 0), dict.fromkeys(domains, 0)
    region = region or scene.grid.window
    rows = _starts(region.row, region.height, scene.grid.origin_px[0], tiling.stride_px)
    cols = _starts(region.col, region.width, scene.grid.origin_px[1], tiling.stride_px)
    core = slice(tiling.halo_px, tiling.halo_px + tiling.stride_px)
    cells = [Window(row, col, tiling.stride_px, tiling.stride_px).grow(tiling.halo_px) for row in rows for col in cols]
    for data, valid in _read(scene, cells):
        for name, domain in domains.items():
            x = derived(bundle.modality(name), data[name], valid[name], pixel_m)
            squares = squares_of(x[..., core, core], valid[name][..., core, core])
            seen[name] += len(squares)
            strange[name] += int(domain.strange(squares).sum())
    return {name: strange[name] / seen[name] for name in domains if seen[name]}


def _read(scene: Scene, windows: Sequence[Window]) -> Iterator[tuple[dict[str, Data], dict[str, Valid]]]:
    """Data (1, C, H, W) and validity (1, 1, H, W) of each window; those that lie close together are read as one."""
    first, last = windows[0], windows[-1]  # top left, bottom right
    around = Window(first.row, first.col, last.row - first.row + last.height, last.col - first.col + last.width)
    whole = scene.read(around) if around.height * around.width <= ONE_READ_PX else None
    for window in windows:
        tile = whole or scene.read(window)
        rows, cols = window.within(tile.window)
        data = {name: x[None, :, rows, cols] for name, x in tile.data.items()}
        yield data, {name: v[None, None, rows, cols] for name, v in tile.valid.items()}


def warnings_of(shares: Mapping[str, float], model: str) -> list[str]:
    """What to tell about the sensors that are out of domain."""
    return [
        f"`{name}` is out of domain: {share:.0%} of it looks like nothing that `{model}` was trained on; "
        "check its units, scale and offset, or leave it out with `--available`"
        for name, share in shares.items()
        if share > LIMIT
    ]


def _distance(z: Floats, points: Floats) -> Floats:
    """Root mean square distance (N,) to the nearest point, in standard units."""
    squared = (z**2).sum(1)[:, None] - 2 * z @ points.T + (points**2).sum(1)
    nearest: Floats = np.sqrt(np.maximum(squared, 0).min(1) / z.shape[1])
    return nearest


def _starts(start: int, length: int, origin: int, step: int) -> list[int]:
    """First pixels of at most `PLACES` cores of the lattice, evenly over `length` pixels from `start`."""
    every = range(start - (start + origin) % step, start + length, step)
    number = min(PLACES, len(every))
    return [every[int(i)] for i in np.linspace(0, len(every) - 1, number).round()]
