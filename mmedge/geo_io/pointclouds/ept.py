"""Entwine Point Tiles (EPT 1.x): a cloud as a folder, `ept.json`, an octree in `ept-hierarchy`, a LAZ file a node.

Names of files are made from the keys of nodes, which are numbers: nothing in the JSON can name another place, and what
a link leads out of the folder is refused. Node files are checked as any LAZ file is.
"""

from __future__ import annotations

import json
import math
import stat
from collections import deque
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

import numpy as np
import numpy.typing as npt

from mmedge.errors import SceneError
from mmedge.geo_io.pointclouds.cloud import SAMPLE_CHUNKS, SAMPLE_POINTS, Cloud, Rect, open_cloud
from mmedge.geo_io.pointclouds.las_chunks import Points
from mmedge.geo_io.pointclouds.las_crs import CloudCrs, crs_from_wkt, given_crs

NAME = "ept.json"
MAX_JSON = 16 << 20  # bytes of one JSON document; Entwine cuts a hierarchy long before
MAX_NODES = 500_000
MAX_LEVEL = 40

Key = tuple[int, int, int, int]  # level, x, y, z


@dataclass(frozen=True, slots=True, kw_only=True)
class EptCloud:
    """An EPT data set whose hierarchy was read. Fulfils `PointCloud`.

    `nodes` are (key, points) in order of their level, `boxes` (n, 4) their rectangles in the cloud's CRS; `pages` the
    JSON files.
    """

    path: Path
    count: int
    crs: CloudCrs
    rect: Rect | None
    warnings: tuple[str, ...]
    nodes: tuple[tuple[Key, int], ...]
    boxes: npt.NDArray[np.float64]
    pages: tuple[Path, ...]
    swap_xy: bool
    windowed: bool = True

    @property
    def files(self) -> tuple[Path, ...]:
        return (*self.pages, *(self._file(key) for key, _ in self.nodes))

    def points(self, crs: str, rect: Rect | None = None) -> Iterator[Points]:
        """See `PointCloud.points`."""
        for i in range(len(self.nodes)) if rect is None else np.flatnonzero(_touching(self.boxes, rect)):
            yield from self._node(int(i)).points(crs, rect)

    def has_ground(self) -> bool:
        """See `PointCloud.has_ground`."""
        step = 1 if self.count <= SAMPLE_POINTS else -(-len(self.nodes) // SAMPLE_CHUNKS)
        return any(self._node(i).has_ground() for i in range(0, len(self.nodes), step))

    def acquired(self) -> str | None:
        """See `PointCloud.acquired`."""
        return self._node(0).acquired() if self.nodes else None

    def _file(self, key: Key) -> Path:
        return _inside(self.path.parent, f"ept-data/{_text(key)}.laz")

    def _node(self, number: int) -> Cloud:
        key, count = self.nodes[number]
        wkt, unit = self.crs.wkt, self.crs.z_unit_m
        cloud = open_cloud(self._file(key), crs=wkt, z_unit_m=unit, swap_xy=self.swap_xy)
        if cloud.count != count:
            _damaged(self.path, f"node {_text(key)} holds {cloud.count} points, the hierarchy says {count}")
        return cloud


def open_ept(path: Path, *, crs: str | None, z_unit_m: float | None, swap_xy: bool) -> EptCloud:
    """Check an `ept.json` and read its whole hierarchy. Raises SceneError, GeoreferenceError."""
    facts = _json(path)
    if facts.get("dataType") != "laszip" or facts.get("hierarchyType", "json") != "json":
        what = f"dataType {facts.get('dataType')!r}, hierarchyType {facts.get('hierarchyType')!r}"
        raise SceneError(f"`{path}`: {what} is not read", hint=f"pdal translate `{path}` points.copc.laz")
    cube, conforming = (_bounds(path, facts, name) for name in ("bounds", "boundsConforming"))
    nodes, pages = _hierarchy(path)
    total = sum(nodes.values())
    if total != facts.get("points"):
        _damaged(path, f"its hierarchy holds {total} points, it claims {facts.get('points')}")
    srs = facts.get("srs")
    found = given_crs(crs) if crs else _wkt(srs if isinstance(srs, dict) else {})
    boxes = _boxes(cube, list(nodes))
    rect = (conforming[0], conforming[1], conforming[3], conforming[4])
    if swap_xy:
        boxes, rect = boxes[:, [1, 0, 3, 2]], (rect[1], rect[0], rect[3], rect[2])
    return EptCloud(
        path=path,
        count=total,
        crs=crs_from_wkt(path, found, z_unit_m=z_unit_m, note="CRS as given, not as in the file" if crs else ""),
        rect=rect if total else None,
        warnings=(),
        nodes=tuple(nodes.items()),
        boxes=boxes,
        pages=(path, *pages),
        swap_xy=swap_xy,
    )


def _hierarchy(path: Path) -> tuple[dict[Key, int], list[Path]]:
    """Points of the nodes that hold some, by level, and the pages of the hierarchy. A page named twice is a loop."""
    nodes: dict[Key, int] = {}
    pages: list[Path] = []
    todo: deque[Key] = deque([(0, 0, 0, 0)])
    seen = set(todo)
    while todo:
        root = todo.popleft()
        pages.append(_inside(path.parent, f"ept-hierarchy/{_text(root)}.json"))
        for text, count in _json(pages[-1]).items():
            key = _key(pages[-1], text)
            if type(count) is not int or count < -1:
                _damaged(pages[-1], f"node {text} has {count!r} points")
            if count == -1 and key not in seen:
                seen.add(key)
                todo.append(key)
            elif count == -1:
                _damaged(pages[-1], f"page {text} is named twice")
            elif count:
                nodes[key] = count
        if len(nodes) > MAX_NODES:
            _damaged(path, f"its hierarchy has more than {MAX_NODES} nodes")
    return dict(sorted(nodes.items())), pages


def _key(page: Path, text: str) -> Key:
    parts = text.split("-")
    if len(parts) != 4 or not all(part.isascii() and part.isdigit() and len(part) <= 13 for part in parts):
        _damaged(page, f"`{text[:40]}` is no node")
    level, *place = map(int, parts)
    if level > MAX_LEVEL or max(place) >= 1 << level:
        _damaged(page, f"node {text} lies outside its octree")
    return level, place[0], place[1], place[2]


def _text(key: Key) -> str:
    return "-".join(map(str, key))


def _boxes(cube: tuple[float, ...], keys: list[Key]) -> npt.NDArray[np.float64]:
    level, x, y = np.array(keys, np.float64).reshape(-1, 4).T[:3]
    width, height = ((cube[i + 3] - cube[i]) / 2.0**level for i in (0, 1))
    west, south = cube[0] + x * width, cube[1] + y * height
    return np.stack([west, south, west + width, south + height], axis=1)


def _touching(boxes: npt.NDArray[np.float64], rect: Rect) -> npt.NDArray[np.bool_]:
    west, south, east, north = boxes.T
    found: npt.NDArray[np.bool_] = (west <= rect[2]) & (east >= rect[0]) & (south <= rect[3]) & (north >= rect[1])
    return found


def _bounds(path: Path, facts: Mapping[str, Any], name: str) -> tuple[float, ...]:
    values = facts.get(name)
    if not isinstance(values, list) or len(values) != 6 or not all(type(v) in (int, float) for v in values):
        _damaged(path, f"{name} is not six numbers")
    found = tuple(map(float, values))
    if not all(map(math.isfinite, found)) or any(found[i] > found[i + 3] for i in range(3)):
        _damaged(path, f"{name} is no box")
    return found


def _wkt(srs: Mapping[str, Any]) -> str | None:
    """The CRS of an `srs` object: its WKT, else its codes."""
    if isinstance(wkt := srs.get("wkt"), str) and wkt.strip():
        return wkt
    authority, horizontal, vertical = (srs.get(name) for name in ("authority", "horizontal", "vertical"))
    if not authority or not horizontal:
        return None
    return given_crs(f"{authority}:{horizontal}" + (f"+{vertical}" if vertical else ""))


def _inside(folder: Path, name: str) -> Path:
    path = folder / name
    if not path.resolve().is_relative_to(folder.resolve()):
        raise SceneError(f"`{path}` is a link that leads out of `{folder}`", hint="copy the data set as a whole")
    return path


def _json(path: Path) -> dict[str, Any]:
    """A JSON object of bounded size. Raises SceneError."""
    try:
        facts = path.stat()
        if not stat.S_ISREG(facts.st_mode) or facts.st_size > MAX_JSON:
            _damaged(path, f"no file of at most {MAX_JSON} bytes")
        document = json.loads(path.read_bytes())
    except OSError as err:
        raise SceneError(f"`{path}`: {err.strerror or err}", hint="copy the data set as a whole") from err
    except (ValueError, RecursionError) as err:
        raise SceneError(f"`{path}` is no JSON: {err}", hint="copy the data set again") from err
    if not isinstance(document, dict):
        _damaged(path, "no JSON object")
    return document


def _damaged(path: Path, what: str) -> NoReturn:
    raise SceneError(f"`{path}`: {what}", hint="copy the data set again")
