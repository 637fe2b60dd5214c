"""The files of one map appear all or none, and one run at a time writes them.

They are written and renamed as `mmedge.files` says, the map last. A killed process leaves only `*.part` files, which
the next run for the same target removes; one that was killed between two renames had done its work, and the next run
does the other renames.
"""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

from mmedge.bundle import checksum
from mmedge.errors import OutputError
from mmedge.files import kept_part_of, part_of, publish
from mmedge.geo_io.maps.outputs import Outputs, plan_outputs, raw_part_of


def _lock_of(outputs: Outputs) -> Path:
    return outputs.map.with_name(outputs.map.name + ".lock.part")


@contextmanager
def claimed(outputs: Outputs) -> Iterator[None]:
    """Inside the block nobody else writes this target: OutputError where somebody does. Parts go before and after it.

    The kernel's lock (flock) ends with the process that holds it, however it ends.
    """
    with _locked(_lock_of(outputs)):
        _remove_written(outputs)
        try:
            yield
        finally:
            _remove_written(outputs)


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    fd = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
    try:
        if not _take(fd, path):
            raise OutputError(
                f"`{path.name.removesuffix('.lock.part')}` is being written by another run",
                hint="wait for it, or -o another_map.tif",
            )
        try:
            yield
        finally:
            path.unlink(missing_ok=True)
    finally:
        os.close(fd)


def _take(fd: int, path: Path) -> bool:
    """Lock an open file. One that its last holder has removed is no lock: somebody else may hold its successor."""
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        return os.path.samestat(os.stat(path), os.fstat(fd))
    except (BlockingIOError, FileNotFoundError):
        return False


def finish_killed(outputs: Outputs) -> None:
    """Bring a publication to its end in whose midst a process was killed; touch nothing else.

    The part of the first file is gone, and that of the map, the last one, still there, only between the first rename
    and the last: then all parts are complete.
    """
    if not part_of(outputs.map).is_file():
        return
    everything = plan_outputs(outputs.map, probs=True).paths
    with _locked(_lock_of(outputs)):
        if part_of(outputs.map).is_file() and not part_of(everything[0]).exists():
            for target in everything:
                if part_of(target).is_file():
                    os.replace(part_of(target), target)
            _remove_written(outputs)


def remove_parts(outputs: Outputs) -> None:
    """Remove every `*.part` file of this target, of which nobody writes any more."""
    _remove_written(outputs)
    _lock_of(outputs).unlink(missing_ok=True)


def _remove_written(outputs: Outputs) -> None:
    everything = plan_outputs(outputs.map, probs=True)
    for path in {*everything.paths, *outputs.paths}:
        for part in (part_of(path), raw_part_of(path), kept_part_of(path)):
            part.unlink(missing_ok=True)


def finish_publication(targets: Sequence[Path], checksums: Mapping[str, str]) -> bool:
    """Bring a publication to its end that was killed on its way; True where every target is in place now.

    `checksums` (by file name) are those of the complete parts. Where a file is neither in place nor a part, nothing is
    touched.
    """
    left = [target for target in targets if not _is(target, checksums[target.name])]
    if not all(_is(part_of(target), checksums[target.name]) for target in left):
        return False
    for target in targets:
        kept_part_of(target).unlink(missing_ok=True)
    if left:
        publish(left)
    return True


def _is(path: Path, expected: str) -> bool:
    return path.is_file() and checksum(path) == expected
