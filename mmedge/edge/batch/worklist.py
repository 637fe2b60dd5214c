"""What a batch has to do: scenes found in folders, globs, lists and STAC documents, files of several sensors paired."""

from __future__ import annotations

import glob
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from hashlib import sha256
from pathlib import Path
from typing import TypeGuard

from mmedge.errors import UsageError
from mmedge.geo_io.bands import SENSOR_ALIASES, sensor_name
from mmedge.geo_io.catalog import find_items
from mmedge.geo_io.delivered import PRODUCTS
from mmedge.geo_io.gather import SceneOptions
from mmedge.geo_io.location import Location, RemoteFile, locate
from mmedge.geo_io.manifest import item_name, read_manifest
from mmedge.geo_io.maps.outputs import plan_outputs
from mmedge.geo_io.pointclouds.ept import NAME as EPT
from mmedge.geo_io.pointclouds.point_cloud import cloud_name

RASTERS = (".tif", ".tiff", ".jp2")
LISTS = (".txt", ".lst", ".list")
STAC = (".json", ".geojson")
PRODUCT = ".SAFE"  # a folder that is one scene
# What a GeoTIFF's georeference, masks and statistics may lie in.
SIDECARS = (".aux.xml", ".msk")

Rule = tuple[str | None, re.Pattern[str]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Work:
    """One scene of a batch: a file or product, an item of a STAC document, or files for each of several sensors."""

    id: str
    scene: Location | None = None
    item: str | None = None
    sources: Mapping[str, tuple[Path, ...]] = field(default_factory=dict)

    def files(self, options: SceneOptions) -> list[Path]:
        """Every file on this disk that decides the pixels: products whole, what an item names, masks, sidecars.

        Raises SceneError where an item or a product cannot be read.
        """
        named: list[Location] = [file for files in self.sources.values() for file in files]
        if self.scene is not None:
            named.append(self.scene)
        if _is_stac(self.scene):
            item = read_manifest(self.scene, allow_remote=options.allow_remote, item=self.item)
            named += [asset.path for asset in item.assets]
        named += [mask for masks in options.masks.values() for mask in masks]
        whole = [file for place in named if isinstance(place, Path) for file in _whole(place)]
        sidecars = [path.with_name(path.name + suffix) for path in whole for suffix in SIDECARS]
        return list(dict.fromkeys([*whole, *(path for path in sidecars if path.exists())]))


@dataclass(frozen=True, slots=True)
class Shard:
    """Part `index` of `count`, counted from 1. A scene's part depends on its id alone, not on the other scenes."""

    index: int = 1
    count: int = 1

    def __contains__(self, scene: str) -> bool:
        return int.from_bytes(sha256(scene.encode()).digest()[:8], "big") % self.count == self.index - 1

    def __str__(self) -> str:
        return f"{self.index}-of-{self.count}"


@dataclass(frozen=True, slots=True)
class Worklist:
    """Scenes in the order of their ids, and the files that belong to none."""

    works: tuple[Work, ...]
    ignored: tuple[Path, ...] = ()


def find_work(inputs: Sequence[str], *, patterns: Sequence[str] = (), sensors: Sequence[str] = ()) -> Worklist:
    """The scenes of `inputs`: folders, globs, rasters, STAC documents, lists of these (`*.txt`, one a line).

    `patterns` pair files of several sensors: `{id}_{sensor}.tif`, or `optical={id}/S2*.tif` for names that do not say
    the sensor; they are matched to the end of a path, `*` is anything. `sensors` are the names that the model knows.
    Raises UsageError where nothing is found, or two scenes have one id.
    """
    rules = [_rule(pattern, sensors) for pattern in patterns]
    depth = max([pattern.count("/") for pattern in patterns], default=0)
    found = [path for given in inputs for path in _expand(given, depth, every=bool(patterns))]
    works, ignored = _paired(found, rules) if rules else (list(_single(found)), [])
    if not works:
        what = f"{len(found)} files, none of which fits {' or '.join(patterns)}" if found and patterns else "no scene"
        raise UsageError(f"`{' '.join(inputs)}` holds {what}", hint="mmedge batch 'scenes/*.tif' --out maps --dry-run")
    return Worklist(tuple(_unique(works)), tuple(ignored))


def without_maps(works: Iterable[Work], out: Path) -> tuple[Work, ...]:
    """The scenes that are no maps of the others: an output folder may be an input folder too."""
    works = tuple(works)
    maps = {path.absolute() for work in works for path in plan_outputs(out / f"{work.id}_map.tif", probs=True).paths}
    return tuple(work for work in works if not isinstance(work.scene, Path) or work.scene.absolute() not in maps)


def _is_stac(place: Location | None) -> TypeGuard[Path]:
    return isinstance(place, Path) and place.suffix.lower() in STAC and place.name != EPT


def _whole(path: Path) -> list[Path]:
    """The files of a product that `path` is or belongs to; else itself."""
    inside = path.name == EPT or any(read(path) for read in PRODUCTS)
    folder = path if path.is_dir() else path.parent if inside else None
    return sorted(file for file in folder.rglob("*") if file.is_file()) if folder else [path]


def _expand(given: str, depth: int, *, every: bool) -> Iterator[Location]:
    path = Path(given)
    if isinstance(place := locate(given), RemoteFile):
        yield place
    elif path.is_dir() and path.suffix.upper() != PRODUCT:
        yield from _listed(path, depth, every=every)
    elif path.suffix.lower() in LISTS:
        for line in _lines(path):
            yield from _expand(line, depth, every=every)
    elif glob.has_magic(given) and not path.exists():
        matches = [Path(match) for match in sorted(glob.glob(given, recursive=True))]
        if not matches:
            raise UsageError(f"nothing matches `{given}`", hint="quote the pattern, so that the shell leaves it alone")
        for match in matches:
            folder = match.is_dir() and match.suffix.upper() != PRODUCT
            yield from _listed(match, depth, every=every) if folder else [match]
    elif path.exists() or path.suffix.lower() in RASTERS:
        yield path  # a raster that is not there fails on its own, and the others are mapped
    else:
        raise UsageError(f"no such file or folder: `{given}`", hint="mmedge batch FOLDER --out maps")


def _listed(folder: Path, depth: int, *, every: bool) -> list[Path]:
    """Rasters and products, `depth` levels below a folder; STAC documents where it has none. `every`: all files."""
    found = sorted(folder.glob("*/" * depth + "*"))
    files = [path for path in found if path.is_file() or path.suffix.upper() == PRODUCT]
    if every:
        return files
    rasters = [path for path in files if path.suffix.lower() in RASTERS or path.suffix.upper() == PRODUCT]
    return rasters or [path for path in files if path.suffix.lower() in STAC]


def _lines(path: Path) -> list[str]:
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as err:
        raise UsageError(f"cannot read the list `{path}`: {err}", hint="one path a line, in UTF-8") from None
    return [line.strip() for line in lines if line.strip() and not line.startswith("#")]


def _single(paths: Iterable[Location]) -> Iterator[Work]:
    for path in dict.fromkeys(paths):
        if _is_stac(path):
            for name, file in find_items(path):
                yield Work(id=item_name(name), scene=file, item=name)
        else:
            yield Work(id=cloud_name(path) if isinstance(path, Path) else path.stem, scene=path)


def _paired(paths: Iterable[Location], rules: Sequence[Rule]) -> tuple[list[Work], list[Path]]:
    scenes: dict[str, dict[str, list[Path]]] = {}
    ignored = []
    for path in dict.fromkeys(path for path in paths if isinstance(path, Path)):
        matches = [(sensor, found) for sensor, rule in rules if (found := rule.search(path.as_posix()))]
        if not matches:
            ignored.append(path)
            continue
        sensor, found = matches[0]
        name = sensor or sensor_name(found["sensor"])
        scenes.setdefault(found["id"], {}).setdefault(name, []).append(path)
    works = [
        Work(id=scene, sources={name: tuple(files) for name, files in sorted(sensors.items())})
        for scene, sensors in scenes.items()
    ]
    return works, ignored


def _rule(pattern: str, sensors: Sequence[str]) -> Rule:
    """The fixed sensor of a pattern, if it has one, and the regular expression of its paths."""
    said, equals, rest = pattern.partition("=")
    sensor, shape = (sensor_name(said), rest) if equals and "{" not in said else (None, pattern)
    names = re.findall(r"\{(.*?)\}", shape)
    if names.count("id") != 1 or (names.count("sensor") == 1) == bool(sensor) or set(names) - {"id", "sensor"}:
        raise UsageError(
            f"`--pattern {pattern}` does not say which part of a name is the scene and which the sensor",
            hint="--pattern '{id}_{sensor}.tif', or --pattern 'optical={id}/S2*.tif' --pattern 'sar={id}/S1*.tif'",
        )
    parts = {"{id}": r"(?P<id>[^/]+)", "{sensor}": f"(?P<sensor>{_sensor_names(sensors)})", "*": "[^/]*"}
    body = "".join(parts.get(piece, re.escape(piece)) for piece in re.split(r"(\{id\}|\{sensor\}|\*)", shape))
    return sensor, re.compile(f"(?:^|/){body}$", re.IGNORECASE)


def _sensor_names(sensors: Sequence[str]) -> str:
    """Every way to write a sensor's name, the longest first."""
    known = {*sensors, *SENSOR_ALIASES, *(alias for names in SENSOR_ALIASES.values() for alias in names.split())}
    ordered = sorted(known, key=lambda name: (-len(name), name))
    return "|".join(re.escape(name).replace("_", r"[\s\-._]+") for name in ordered)


def _unique(works: Iterable[Work]) -> list[Work]:
    found: dict[str, Work] = {}
    for work in works:
        if not work.id or work.id.startswith("."):
            raise UsageError(f"`{_where(work)}`: `{work.id}` cannot be the name of a map", hint="rename it")
        if (other := found.setdefault(work.id, work)) is not work:
            raise UsageError(
                f"two scenes are called `{work.id}`: {_where(other)} and {_where(work)}",
                hint="give the folders one by one, or --pattern '{id}/...' to name scenes by their folder",
            )
    return [found[name] for name in sorted(found)]


def _where(work: Work) -> str:
    files = [work.scene] if work.scene else [file for files in work.sources.values() for file in files]
    return f"`{files[0]}`"
