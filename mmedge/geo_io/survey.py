"""How much of a scene each sensor saw, and what was lost to which failure."""

from __future__ import annotations

from mmedge.geo_io.failure import KINDS, survey
from mmedge.geo_io.scene import Scene
from mmedge.grid import Window

# Windows looked at along each side of a scene, and their width: enough for a share within about a percent.
PLACES, PLACE_PX = 16, 256


def valid_shares(scene: Scene) -> dict[str, float]:
    """Share of valid pixels of each sensor: exact for scenes up to 4096 pixels a side, else from an even scatter."""
    seen, valid = 0, dict.fromkeys(scene.sources, 0)
    for row in _starts(scene.grid.rows):
        for col in _starts(scene.grid.cols):
            tile = scene.read(Window(row, col, PLACE_PX, PLACE_PX).intersect(scene.grid.window))
            seen += tile.window.height * tile.window.width
            for name in valid:
                valid[name] += int(tile.valid[name].sum())
    return {name: count / seen for name, count in valid.items()}


def failure_shares(scene: Scene) -> dict[str, dict[str, float]]:
    """Share of the scene that each kind of failure holds, per sensor; only what was found."""
    found = {
        name: survey(source.read, scene.grid.shape, kind=KINDS[source.info.unit])
        for name, source in scene.sources.items()
        if source.info.unit in KINDS
    }
    return {name: {cause: round(v, 5) for cause, v in shares.items() if v} for name, shares in found.items()}


def _starts(length: int) -> list[int]:
    every = range(0, length, PLACE_PX)
    if len(every) <= PLACES:
        return list(every)
    return [every[round(i * (len(every) - 1) / (PLACES - 1))] for i in range(PLACES)]
