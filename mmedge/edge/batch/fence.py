"""Which workers on other machines may still write in an output folder: each holds a byte of one file locked.

Workers on this machine inherit the batch's own lock; those of a cluster cannot. Byte-range locks (fcntl) reach other
hosts over network file systems, and end with the process that holds them. A worker that cannot be reached any more is
taken for gone when its byte is free, not before: until then nobody else writes what it was writing.
"""

from __future__ import annotations

import fcntl
import os
import time
from dataclasses import dataclass
from pathlib import Path

from mmedge.errors import OutputError

POLL_S = 0.05


@dataclass(frozen=True, slots=True)
class Fence:
    """The file `path`, in which worker n has byte n."""

    path: Path

    def create(self) -> None:
        self.path.touch()

    def hold(self, number: int) -> None:
        """In a worker: hold its byte until this process ends. OSError where the folder is not to be seen from here."""
        fcntl.lockf(os.open(self.path, os.O_RDWR), fcntl.LOCK_EX, 1, number)

    def is_free(self, number: int | None = None) -> bool:
        """Nobody holds this byte, or any at all."""
        if not self.path.exists():
            return True
        fd = os.open(self.path, os.O_RDWR)
        try:
            fcntl.lockf(fd, fcntl.LOCK_EX | fcntl.LOCK_NB, 0 if number is None else 1, number or 0)
        except BlockingIOError:
            return False
        finally:
            os.close(fd)  # and with it the lock
        return True

    def wait(self, seconds: float) -> bool:
        """Wait until nobody holds any byte; False where that takes longer."""
        until = time.monotonic() + seconds
        while not (free := self.is_free()) and time.monotonic() < until:
            time.sleep(POLL_S)
        return free

    def refuse_held(self, seconds: float) -> None:
        """OutputError where workers of another batch do not end within this time."""
        if not self.wait(seconds):
            raise OutputError(
                f"`{self.path.parent.parent}` is in use: workers of a batch that is gone still write",
                hint="end the Ray job they belong to (`ray job list`), or wait",
            )
