"""Files that appear whole or not at all, alone or several together.

Each is written beside its final name as `<name>.part` and renamed when everything is complete. After a kill only parts
remain; a reader never sees half a file.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

from mmedge.errors import OutputError

Errors = tuple[type[Exception], ...]


def refuse_unwritable(targets: Sequence[Path], *, overwrite: bool) -> None:
    """Raise OutputError where files cannot be written: before any work starts, touching nothing."""
    for target in targets:
        folder = target.parent
        if not folder.is_dir():
            what = "is not a folder" if folder.exists() else "does not exist"
            raise OutputError(f"cannot write `{target}`: `{folder}` {what}", hint=f"mkdir -p {folder}")
        if not os.access(folder, os.W_OK | os.X_OK):
            raise OutputError(f"cannot write `{target}`: no right to write in `{folder}`", hint=f"ls -ld {folder}")
        if target.is_dir():
            raise OutputError(f"output `{target}` is a folder", hint=f"name a file: {target / 'NAME'}")
        if not overwrite and os.path.lexists(target):
            raise OutputError(f"output `{target}` exists already", hint="--overwrite replaces it, or name another")
    if len(set(targets)) < len(targets):
        raise OutputError("one file is to be two outputs", hint="give each a name of its own")


@contextmanager
def written_whole(target: Path, *, also: Errors = ()) -> Iterator[Path]:
    """The part to write inside the block: it becomes `target` at the end, and goes away where something fails.

    Raises OutputError for an OSError, or one of `also`, that leaves the block.
    """
    with written_together([target], also=also) as (part,):
        yield part


@contextmanager
def written_together(targets: Sequence[Path], *, also: Errors = ()) -> Iterator[tuple[Path, ...]]:
    """The same for several files: they get their names in this order, all or none."""
    parts = tuple(map(part_of, targets))
    failures: Errors = (OSError, *also)
    try:
        for path in (*parts, *map(kept_part_of, targets)):
            path.unlink(missing_ok=True)  # of a run that was killed
        yield parts
        if targets:
            publish(targets)
    except failures as err:
        folder = targets[-1].absolute().parent
        reason = getattr(err, "strerror", None) or err
        raise OutputError(f"cannot write `{targets[-1]}`: {reason}", hint=f"df -h {folder}; ls -ld {folder}") from err
    finally:
        for part in parts:
            with suppress(OSError):
                part.unlink()


def part_of(path: Path) -> Path:
    """Where a file is written until its set is published."""
    return path.with_name(path.name + ".part")


def kept_part_of(path: Path) -> Path:
    """Where the file that `path` replaces waits until the last rename."""
    return path.with_name(path.name + ".old.part")


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
            kept_part_of(target).unlink(missing_ok=True)
    for folder in {target.parent for target in targets}:
        _sync_folder(folder)


def _keep(target: Path) -> None:
    """A second name for a file that is to be replaced, so that its first one is never without a file."""
    if not target.exists():
        return
    try:
        os.link(target, kept_part_of(target))
    except OSError:  # file systems without hard links (exFAT, some network mounts)
        shutil.copy2(target, kept_part_of(target))


def _put_back(target: Path) -> None:
    if part_of(target).exists():
        return  # was not renamed
    if kept_part_of(target).exists():
        os.replace(kept_part_of(target), target)
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
