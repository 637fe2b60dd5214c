"""Is a map up to date? Judged by its options, its inputs and the bytes of its files, never by existence alone."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, fields, is_dataclass, replace
from hashlib import sha256
from pathlib import Path
from typing import Any

from mmedge import __version__
from mmedge.bundle import Bundle, checksum
from mmedge.edge.batch.journal import Entry, InputFact
from mmedge.edge.request import Request
from mmedge.geo_io.maps.outputs import Outputs

# Fields of a request that say where a map comes from or goes to, or how it is cut up: they cannot change it. The model
# counts by the checksum of its bundle, inputs by their facts.
IRRELEVANT = {"scene", "output", "model", "threads", "batch", "cells", "max_memory", "tune", "overwrite", "aoi"}


def wish(request: Request, bundle: Bundle) -> str:
    """Digest of everything but the inputs that decides a map: the model, the options, the version of mmedge."""
    told = {f.name: _plain(getattr(request, f.name)) for f in fields(request) if f.name not in IRRELEVANT}
    area = checksum(request.aoi) if request.aoi else None
    remote = None if isinstance(request.scene, Path) else _plain(request.scene)  # known by its URL alone
    document = {"mmedge": __version__, "bundle": bundle.sha256, "aoi": area, "remote": remote, **told}
    return sha256(json.dumps(document, sort_keys=True).encode()).hexdigest()


def _plain(value: Any) -> Any:
    """A value as JSON; files by their name alone, so that a folder can be moved."""
    if isinstance(value, Path):
        return value.name
    if is_dataclass(value):
        return {f.name: _plain(getattr(value, f.name)) for f in fields(value)}
    if isinstance(value, dict):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    return value


def look(files: Iterable[Path], *, checksums: bool = False) -> tuple[InputFact, ...]:
    """What files are now."""
    return tuple(_fact(path, checksums=checksums) for path in files)


def _fact(path: Path, *, checksums: bool) -> InputFact:
    try:
        stat = path.stat()
        digest = checksum(path).removeprefix("1220") if checksums else None
    except FileNotFoundError:
        return InputFact(path.name, -1, 0)
    return InputFact(path.name, stat.st_size, stat.st_mtime_ns, digest)


def settled(known: Sequence[InputFact], files: Sequence[Path], *, checksums: bool) -> tuple[InputFact, ...] | None:
    """The facts of files that hold what they held, None where one of them does not.

    A file whose name and size are those known is the same if its modification time is, too (without `checksums`), or
    else its sha256.
    """
    now = look(files)
    if [(fact.name, fact.size) for fact in now] != [(fact.name, fact.size) for fact in known]:
        return None
    found = []
    for path, old, new in zip(files, known, now, strict=True):
        touched = checksums or old.mtime_ns != new.mtime_ns
        if touched and (new.size < 0 or checksum(path).removeprefix("1220") != old.sha256):
            return None
        found.append(replace(new, sha256=old.sha256))
    return tuple(found)


@dataclass(frozen=True, slots=True)
class Verdict:
    """`why` a scene has to be mapped, None where its map is up to date; `inputs` are those known, where they hold."""

    why: str | None
    inputs: tuple[InputFact, ...] | None = None


def judge(
    entry: Entry | None, wished: str, files: Sequence[Path], outputs: Outputs, *, checksums: bool = False
) -> Verdict:
    """Does the map of `files` have to be made? `entry` is what the journal knows of it, `wished` the digest of now."""
    if entry is None or not entry.wish:
        return Verdict("new")
    if entry.wish != wished:
        return Verdict("other options, another model or version")
    inputs = settled(entry.inputs, files, checksums=checksums)
    if inputs is None:
        return Verdict("other inputs")
    if entry.state != "done":
        return Verdict("failed before" if entry.state == "failed" else "was interrupted", inputs)
    if (path := damaged(outputs, entry)) is not None:
        return Verdict(f"`{path.name}` is missing or damaged", inputs)
    return Verdict(None, inputs)


def damaged(outputs: Outputs, entry: Entry) -> Path | None:
    """The first output that is missing or is not what was written."""
    for path in outputs.paths:
        if path.name not in entry.outputs or not path.is_file() or checksum(path) != entry.outputs[path.name]:
            return path
    return None
