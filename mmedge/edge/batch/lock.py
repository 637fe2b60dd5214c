"""One batch at a time in an output folder: a lock that says who holds it, and that no dead process keeps.

The kernel's lock (flock) on the file is inherited by the workers and gone when the last of them is. Where the file
system's flock does not reach other hosts, the age of the owner's last sign of life decides.
"""

from __future__ import annotations

import fcntl
import json
import os
import socket
import time
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType

from mmedge.errors import OutputError

BEAT_S = 10.0
# An owner on another host that has been silent for this long is taken for dead.
SILENT_S = 90.0
# Workers of a batch that was killed need a moment to notice.
DRAIN_S = 15.0


@dataclass(frozen=True, slots=True)
class Owner:
    """Who wrote the lock: the process, its host, and since when (Unix time)."""

    host: str
    pid: int
    since: float

    @classmethod
    def here(cls) -> Owner:
        return cls(socket.gethostname(), os.getpid(), time.time())

    def gone(self) -> bool:
        """This host knows that the process has ended."""
        if self.host != socket.gethostname():
            return False
        try:
            os.kill(self.pid, 0)
        except ProcessLookupError:
            return True
        except PermissionError:
            return False
        return False


def refuse_held(paths: Iterable[Path]) -> None:
    """Raise OutputError where one of these locks is held by somebody."""
    for path in paths:
        Lock(path).refuse_held()


class Lock:
    """Holds `path` inside its `with` block; `beat` is called now and then. OutputError where somebody else holds it."""

    def __init__(self, path: Path, *, drain_s: float = DRAIN_S) -> None:
        self._path, self._drain_s, self._beaten = path, drain_s, 0.0

    def __enter__(self) -> Lock:
        self.fd = os.open(self._path, os.O_RDWR | os.O_CREAT, 0o644)
        try:
            self._take()
        except BaseException:
            os.close(self.fd)
            raise
        return self

    def __exit__(self, kind: type[BaseException] | None, err: BaseException | None, tb: TracebackType | None) -> None:
        os.ftruncate(self.fd, 0)
        os.close(self.fd)

    def refuse_held(self) -> None:
        """Raise OutputError where somebody holds it; take nothing that could be in the way of others who ask."""
        self.fd = os.open(self._path, os.O_RDONLY)
        try:
            if not _flock(self.fd, fcntl.LOCK_SH):
                raise self._held(self._owner())
            self._outwait_other_host()
        finally:
            os.close(self.fd)

    def beat(self) -> None:
        """A sign of life, at most every `BEAT_S`."""
        if time.monotonic() - self._beaten >= BEAT_S:
            os.utime(self.fd)
            self._beaten = time.monotonic()

    def _take(self) -> None:
        until = time.monotonic() + self._drain_s
        while not _flock(self.fd):
            owner = self._owner()
            if (owner and not owner.gone()) or time.monotonic() > until:
                raise self._held(owner)
            time.sleep(0.05)
        self._outwait_other_host()
        me = Owner.here()
        os.ftruncate(self.fd, 0)
        os.pwrite(self.fd, json.dumps({"host": me.host, "pid": me.pid, "since": me.since}).encode(), 0)
        self.beat()

    def _outwait_other_host(self) -> None:
        """The kernel gave us the lock, but an owner on another host may not be known to it: does it still beat?"""
        owner, seen = self._owner(), os.fstat(self.fd).st_mtime
        while owner and owner.host != socket.gethostname() and self._silent_s() < SILENT_S:
            time.sleep(0.5)
            if os.fstat(self.fd).st_mtime != seen:
                raise self._held(owner)

    def _owner(self) -> Owner | None:
        """None: released, or just being written."""
        try:
            return Owner(**json.loads(os.pread(self.fd, 4096, 0)))
        except (ValueError, TypeError):
            return None

    def _silent_s(self) -> float:
        return time.time() - os.fstat(self.fd).st_mtime

    def _held(self, owner: Owner | None) -> OutputError:
        who = f"process {owner.pid} on {owner.host} for {time.time() - owner.since:.0f} s" if owner else "another batch"
        return OutputError(
            f"`{self._path.parent.parent}` is in use by {who} (last sign of life {self._silent_s():.0f} s ago)",
            hint="wait for it, give another --out, or split the work with --shard 1/2 and --shard 2/2",
        )


def _flock(fd: int, kind: int = fcntl.LOCK_EX) -> bool:
    try:
        fcntl.flock(fd, kind | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
