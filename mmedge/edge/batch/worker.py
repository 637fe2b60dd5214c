"""A process that opens the model once and maps the scenes it is given: what it is told, what it answers, its end.

Parent and worker talk over a socket that only they hold. The worker ends with its parent, however that one ends: a
batch that was killed leaves nobody behind who could still write.
"""

from __future__ import annotations

import ctypes
import os
import signal
import sys
import threading
import time
import traceback
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from multiprocessing.connection import Connection
from pathlib import Path
from types import FrameType
from typing import Any, Protocol

from mmedge.bundle import checksum, open_bundle
from mmedge.edge.batch.fresh import look
from mmedge.edge.batch.journal import InputFact
from mmedge.edge.infer import open_engines, run
from mmedge.edge.memory import ran_out
from mmedge.edge.record import RunRecord
from mmedge.edge.request import Request
from mmedge.edge.runtime.session import Engines
from mmedge.edge.strips import Strip, Strips
from mmedge.errors import MMEdgeError, OutputError, ReadError, SceneError
from mmedge.files import part_of

PROGRESS_S = 0.2


@dataclass(frozen=True, slots=True, kw_only=True)
class Task:
    """One scene for a worker: `inputs` are the facts of `files` at that time, `strips` what is done already."""

    id: str
    request: Request
    files: tuple[Path, ...]
    inputs: tuple[InputFact, ...]
    wish: str
    strips_path: Path
    strips: tuple[Strip, ...]
    strips_from_px: int


@dataclass(frozen=True, slots=True)
class Ready:
    """The model is open, in process `pid`."""

    device: str
    pid: int


@dataclass(frozen=True, slots=True)
class Advanced:
    """Pixels done of a scene."""

    done: int
    total: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Prepared:
    """Every file of a scene is complete as its part; the worker waits for the word to publish them."""

    inputs: tuple[InputFact, ...]
    outputs: Mapping[str, str]
    record: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Done:
    """Every file of a scene is in place."""

    warnings: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Failed:
    """A scene could not be mapped. `again`: another attempt may help; `tainted`: the next scene needs a new worker."""

    reason: str
    hint: str = ""
    detail: str = ""
    again: bool = False
    tainted: bool = False


@dataclass(frozen=True, slots=True)
class Refused:
    """The model cannot be opened on this machine: no scene can be mapped."""

    error: MMEdgeError


Message = Ready | Advanced | Strip | Prepared | Done | Failed | Refused


class Channel(Protocol):
    """To the batch and from it."""

    def send(self, what: Any, /) -> None: ...

    def recv(self) -> Any: ...


def serve(channel_fd: int, lifeline_fd: int) -> None:
    """The life of a worker process."""
    threading.Thread(target=_end_with_parent, args=(lifeline_fd,), daemon=True).start()
    stop = Stop()
    signal.signal(signal.SIGTERM, stop)
    _die_with_parent()
    channel = Connection(channel_fd)
    template: Request = channel.recv()
    try:
        engines = open_engines(template, open_bundle(template.model))
        channel.send(Ready(engines.runtime.device, os.getpid()))
    except MMEdgeError as err:
        channel.send(Refused(err))
        return
    while (task := channel.recv()) is not None:
        answer = attempt(task, engines, channel, stop)
        channel.send(answer)
        if isinstance(answer, Failed) and answer.tainted:
            return


class Stop:
    """SIGTERM unwinds everything, but not in the middle of a publication."""

    def __init__(self) -> None:
        self.publishing, self.asked = False, False

    def __call__(self, signum: int, frame: FrameType | None) -> None:
        self.asked = True
        if not self.publishing:
            sys.exit(128 + signum)

    def published(self) -> None:
        self.publishing = False
        if self.asked:
            sys.exit(128 + signal.SIGTERM)


def _end_with_parent(lifeline_fd: int) -> None:
    """The parent alone holds the other end, so that its end is ours: no clean-up, the next run does that."""
    os.read(lifeline_fd, 1)
    os._exit(1)


def _die_with_parent() -> None:
    """Linux: also where the interpreter is stuck in foreign code and the lifeline's thread cannot run."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(1, signal.SIGKILL)  # PR_SET_PDEATHSIG


def attempt(task: Task, engines: Engines, channel: Channel, stop: Stop) -> Done | Failed:
    """Map a scene, and say whatever comes of it."""
    try:
        return _map(task, engines, channel, stop)
    except Exception as err:  # noqa: BLE001 - one scene's bug must not cost the others; it is reported as a bug
        return _failure(err)
    finally:
        stop.publishing = False


def _failure(err: Exception) -> Failed:
    if ran_out(err):
        return Failed(reason="the memory ran out", hint="fewer --workers", detail=traceback.format_exc(), tainted=True)
    if isinstance(err, MMEdgeError):
        return Failed(reason=str(err), hint=err.hint, again=isinstance(err, (ReadError, OutputError)))
    return Failed(reason=f"a bug in mmedge: {err!r}", detail=traceback.format_exc(), tainted=True)


def _map(task: Task, engines: Engines, channel: Channel, stop: Stop) -> Done:
    warnings: list[str] = []
    strips = Strips(
        task.strips_path, kept=task.strips, announce=channel.send, least_px=task.strips_from_px
    )  # announced where it is fsynced

    def commit(record: RunRecord) -> None:
        _check_required(task, record)
        inputs = _unchanged(task, {i.name: i.sha256 for i in record.provenance.inputs if i.sha256})
        sums = {path.name: checksum(part_of(path)) for path in record.outputs.paths}
        channel.send(Prepared(inputs=inputs, outputs=sums, record=record.document()))
        channel.recv()
        stop.publishing = True

    run(task.request, engines=engines, strips=strips, commit=commit, warn=warnings.append, progress=_throttled(channel))
    stop.published()
    return Done(tuple(warnings))


def _check_required(task: Task, record: RunRecord) -> None:
    missing = [name for name in task.request.require or () if name not in record.used()]
    if missing:
        raise SceneError(f"`--require {','.join(missing)}`: it is valid nowhere in the scene", hint="mmedge info SCENE")


def _unchanged(task: Task, known: Mapping[str, str]) -> tuple[InputFact, ...]:
    """The facts of the inputs, checksums included; ReadError where a file is not what it was at the start."""
    names = [fact.name for fact in task.inputs]
    found = []
    for path, fact, now in zip(task.files, task.inputs, look(task.files), strict=True):
        if (now.size, now.mtime_ns) != (fact.size, fact.mtime_ns):
            raise ReadError(f"`{path}` changed while it was read", hint="run the same command again")
        told = known.get(fact.name) if names.count(fact.name) == 1 else None
        found.append(replace(fact, sha256=told or fact.sha256 or checksum(path).removeprefix("1220")))
    return tuple(found)


def _throttled(channel: Channel) -> Callable[[int, int], None]:
    said = time.monotonic()

    def progress(done: int, total: int) -> None:
        nonlocal said
        if time.monotonic() - said >= PROGRESS_S:
            said = time.monotonic()
            channel.send(Advanced(done, total))

    return progress
