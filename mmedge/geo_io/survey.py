"""How much of a scene each sensor saw, and what took the rest."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

from mmedge.geo_io.failure import KINDS, own, survey
from mmedge.geo_io.scene import Scene
from mmedge.grid import Grid, Window

# Windows looked at along each side of a scene, and their width: enough for a share within about a percent.
PLACES, PLACE_PX = 16, 256


def shares(scene: Scene) -> dict[str, tuple[float, dict[str, float]]]:
    """By sensor: the share of valid pixels, and the shares that each cause took (see `Tile.lost`), only what occurs.

    Exact for scenes up to 4096 pixels a side, else from an even scatter of windows.
    """
    seen, valid, lost = 0, Counter[str](), {name: Counter[str]() for name in scene.sources}
    for window in _windows(scene.grid):
        tile = scene.read(window)
        seen += window.height * window.width
        for name, usable in tile.valid.items():
            valid[name] += int(usable.sum())
            lost[name].update({cause: int(mask.sum()) for cause, mask in tile.lost[name].items()})
    return {
        name: (valid[name] / seen, {cause: n / seen for cause, n in lost[name].items() if n}) for name in scene.sources
    }


def failure_shares(scene: Scene) -> dict[str, dict[str, float]]:
    """Share of the scene that each kind of failure holds, per sensor; only what was found."""
    found = {
        name: survey(own(source), scene.grid.shape, kind=KINDS[source.info.unit])
        for name, source in scene.sources.items()
        if source.info.unit in KINDS
    }
    return {name: {cause: share for cause, share in shares.items() if share} for name, shares in found.items()}


def _windows(grid: Grid) -> Iterator[Window]:
    for row in _starts(grid.rows):
        for col in _starts(grid.cols):
            yield Window(row, col, PLACE_PX, PLACE_PX).intersect(grid.window)


def _starts(length: int) -> list[int]:
    every = range(0, length, PLACE_PX)
    if len(every) <= PLACES:
        return list(every)
    return [every[round(i * (len(every) - 1) / (PLACES - 1))] for i in range(PLACES)]
