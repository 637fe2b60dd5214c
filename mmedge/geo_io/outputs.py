"""The files of one map: their names, the check before any work starts, and their publication, all or none.

Every file is written beside its final name as `<name>.part` and renamed when the whole set is complete, the map last.
A killed process leaves only `*.part` files; the next run for the same target removes them.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from mmedge.bundle import checksum
from mmedge.errors import OutputError

TIFF_SUFFIXES = (".tif", ".tiff")


@dataclass(frozen=True, slots=True, kw_only=True)
class Outputs:
    """Final names of the files of one map. None: not wanted."""

    map: Path
    confidence: Path
    sensors: Path
    probs: Path | None
    item: Path | None
    quicklook: Path | None

    @property
    def paths(self) -> tuple[Path, ...]:
        """The wanted files in the order in which they are published: the map last."""
        found = (self.confidence, self.sensors, self.probs, self.item, self.quicklook, self.map)
        return tuple(path for path in found if path is not None)


def plan_outputs(map_path: str | Path, *, probs: bool = False, json: bool = True, png: bool = True) -> Outputs:
    """Name the files that go with `map_path`: `scene_map.tif` brings `scene_map_confidence.tif`, `scene_map.json`...

    Raises OutputError where `map_path` is not called `*.tif`.
    """
    path = Path(map_path)
    if path.suffix.lower() not in TIFF_SUFFIXES:
        raise OutputError(f"a map is a GeoTIFF, `{path.name}` is not one", hint=f"-o {path.with_suffix('.tif')}")
    beside = {key: path.with_name(f"{path.stem}_{key}{path.suffix}") for key in ("confidence", "sensors", "probs")}
    return Outputs(
        map=path,
        confidence=beside["confidence"],
        sensors=beside["sensors"],
        probs=beside["probs"] if probs else None,
        item=path.with_suffix(".json") if json else None,
        quicklook=path.with_suffix(".png") if png else None,
    )


def refuse_existing(outputs: Outputs, *, overwrite: bool, inputs: Iterable[str | Path] = ()) -> None:
    """Raise OutputError where the outputs cannot be written: before any work starts, touching nothing.

    An output that exists needs `overwrite`; an output that is one of `inputs` is refused always.
    """
    folder = outputs.map.parent
    if not folder.is_dir():
        what = "is not a folder" if folder.exists() else "does not exist"
        raise OutputError(f"cannot write `{outputs.map}`: `{folder}` {what}", hint=f"mkdir -p {folder}")
    if not os.access(folder, os.W_OK | os.X_OK):
        raise OutputError(f"cannot write `{outputs.map}`: no right to write in `{folder}`", hint="-o FOLDER/map.tif")
    _refuse_inputs(outputs, [Path(path) for path in inputs])
    for path in outputs.paths:
        if path.is_dir():
            raise OutputError(f"output `{path}` is a folder", hint="-o another_map.tif")
        if not overwrite and os.path.lexists(path):
            raise OutputError(f"output `{path}` exists already", hint="--overwrite replaces it, -o names another")


def _refuse_inputs(outputs: Outputs, inputs: Sequence[Path]) -> None:
    for path in outputs.paths:
        for source in inputs:
            if path.exists() and source.exists() and path.samefile(source):
                raise OutputError(f"output `{path}` is an input of this run", hint="-o another_map.tif")


def part_of(path: Path) -> Path:
    """Where a file is written until its set is published."""
    return path.with_name(path.name + ".part")


def raw_part_of(path: Path) -> Path:
    """Where the tiles of a raster are gathered before the pass that compresses them."""
    return path.with_name(path.name + ".raw.part")


def _kept_part_of(path: Path) -> Path:
    return path.with_name(path.name + ".old.part")


def remove_parts(outputs: Outputs) -> None:
    """Remove every `*.part` file of this target: what a failed run wrote, or what a killed one left."""
    everything = plan_outputs(outputs.map, probs=True)
    for path in {*everything.paths, *outputs.paths}:
        for part in (part_of(path), raw_part_of(path), _kept_part_of(path)):
            part.unlink(missing_ok=True)


def publish(targets: Sequence[Path]) -> None:
    """Give the parts of `targets` their final names, in this order. All or none.

    What already stands under a final name is kept aside until the last rename, and put back if one fails. Raises
    ValueError where a part was never written.
    """
    for target in targets:
        if not part_of(target).is_file():
            raise ValueError(f"`{target.name}` was planned, but nobody wrote its part")
    for target in targets:
        _sync(part_of(target))
    begun: list[Path] = []
    try:
        for target in targets:
            _keep(target)
        for target in targets:
            begun.append(target)
            os.replace(part_of(target), target)
    except BaseException:
        for target in begun:
            _put_back(target)
        raise
    finally:
        for target in targets:
            _kept_part_of(target).unlink(missing_ok=True)
    _sync_folder(targets[-1].parent)


def finish_publication(targets: Sequence[Path], checksums: Mapping[str, str]) -> bool:
    """Bring a publication to its end that was killed on its way; True where every target is in place now.

    `checksums` (by file name) are those of the complete parts. Where a file is neither in place nor a part, nothing is
    touched.
    """
    left = [target for target in targets if not _is(target, checksums[target.name])]
    if not all(_is(part_of(target), checksums[target.name]) for target in left):
        return False
    for target in targets:
        _kept_part_of(target).unlink(missing_ok=True)
    if left:
        publish(left)
    return True


def _is(path: Path, expected: str) -> bool:
    return path.is_file() and checksum(path) == expected


def _keep(target: Path) -> None:
    """A second name for a file that is to be replaced, so that its first one is never without a file."""
    if not target.exists():
        return
    try:
        os.link(target, _kept_part_of(target))
    except OSError:  # file systems without hard links (exFAT, some network mounts)
        shutil.copy2(target, _kept_part_of(target))


def _put_back(target: Path) -> None:
    if part_of(target).exists():
        return  # was not renamed
    if _kept_part_of(target).exists():
        os.replace(_kept_part_of(target), target)
    else:
        target.unlink(missing_ok=True)


def _sync(path: Path) -> None:
    with path.open("r+b") as file:
        os.fsync(file.fileno())


def _sync_folder(folder: Path) -> None:
    """Make renames durable; only POSIX systems can open a folder."""
    if os.name != "posix":
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
