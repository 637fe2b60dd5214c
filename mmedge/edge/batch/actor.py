"""A worker as an actor of Ray: a process somewhere in the cluster that opens the model once and maps what it is given.

It runs the code of a local worker. What that one says over a socket, this one yields from a generator; the word to
publish comes as a second call. Paths travel, pixels do not.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from pathlib import Path
from queue import SimpleQueue
from threading import Thread
from typing import Any

from mmedge.bundle import open_bundle
from mmedge.edge.batch.fence import Fence
from mmedge.edge.batch.worker import Done, Failed, Message, Ready, Refused, Stop, Task, attempt
from mmedge.edge.infer import open_engines
from mmedge.edge.request import Request
from mmedge.edge.runtime.session import Engines
from mmedge.errors import MachineError, MMEdgeError


class _Queues:
    """Both directions between the thread that maps and the calls of the batch."""

    def __init__(self) -> None:
        self.said: SimpleQueue[Message] = SimpleQueue()
        self.told: SimpleQueue[str] = SimpleQueue()

    def send(self, what: Any, /) -> None:
        self.said.put(what)

    def recv(self) -> Any:
        return self.told.get()


class Actor:
    """Two calls at once: one that maps, one that may publish. `folder` is where the batch's relative paths begin."""

    def __init__(self, template: Request, folder: Path, fence: Fence, number: int) -> None:
        self._template, self._folder, self._fence, self._number = template, folder, fence, number
        self._engines: Engines | None = None
        self._channel = _Queues()

    def open(self) -> Iterator[Message]:
        """Open the model: Ready, or Refused."""
        try:
            self._reach_files()
            self._engines = open_engines(self._template, open_bundle(self._template.model))
        except MMEdgeError as err:
            yield Refused(err)
        else:
            yield Ready(self._engines.runtime.device, os.getpid())

    def map(self, task: Task) -> Iterator[Message]:
        """Map a scene: what happens, as it happens; the last message is Done or Failed."""
        self._channel = channel = _Queues()
        Thread(target=lambda: channel.send(attempt(task, self._opened(), channel, Stop())), daemon=True).start()
        while True:
            message = channel.said.get()
            yield message
            if isinstance(message, (Done, Failed)):
                return

    def publish(self) -> None:
        """The word that the scene may be published."""
        self._channel.told.put("publish")

    def _opened(self) -> Engines:
        if self._engines is None:
            raise ValueError("the model is not open")
        return self._engines

    def _reach_files(self) -> None:
        try:
            os.chdir(self._folder)
            self._fence.hold(self._number)
        except OSError as err:
            raise MachineError(
                f"`{err.filename or self._fence.path}` is not to be seen from {socket.gethostname()}: {err.strerror}",
                hint="inputs and --out have to lie on a disk that every machine mounts at the same place",
            ) from err
