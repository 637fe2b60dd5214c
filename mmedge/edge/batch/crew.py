"""The workers of a batch as the batch sees them, whoever starts them: processes of this machine, or actors of Ray."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from math import inf
from typing import Protocol

from mmedge.edge.batch.worker import Message, Ready, Task
from mmedge.errors import MachineError

# A model that opens takes a second or so; compiled graphs come with the first scenes.
START_S = 300.0


@dataclass(frozen=True, slots=True)
class Lost:
    """A worker ended without an answer."""

    reason: str
    hint: str


class Worker:
    """What a worker is doing: `pid` on its machine, `since` when, pixels done of all. It takes one scene at a time."""

    def __init__(self, number: int) -> None:
        self.number, self.pid, self.ready, self.late = number, 0, False, False
        self.task: Task | None = None
        self.since = time.monotonic()
        self.progress = (0, 0)

    def give(self, task: Task) -> None:
        """A scene to map."""
        self.task, self.since, self.progress = task, time.monotonic(), (0, 0)
        self._start(task)

    def release(self) -> Task:
        """The scene that it had; it is free for another."""
        if self.task is None:
            raise ValueError(f"worker {self.number} has no scene")
        task, self.task = self.task, None
        return task

    def overdue(self, timeout_s: float | None) -> bool:
        """Its scene takes too long, and it has not been killed for that yet."""
        return self.task is not None and not self.late and time.monotonic() - self.since > limit(self.ready, timeout_s)

    def publish(self) -> None:
        """The word that its scene may be published."""
        raise NotImplementedError

    def _start(self, task: Task) -> None:
        raise NotImplementedError


class Crew(Protocol):
    """Up to a number of workers, started when there is work, replaced when lost."""

    @property
    def workers(self) -> Sequence[Worker]: ...

    @property
    def has_room(self) -> bool:
        """Whether a worker takes a scene now."""
        ...

    def idle(self) -> Worker:
        """A worker without a scene, where there `has_room`."""
        ...

    def events(self, wait_s: float) -> Iterator[tuple[Worker, Message | Lost]]:
        """What workers say within `wait_s`, and which of them are lost, having ended; kills those that are late.

        Raises what a worker says of the model, MachineError where none comes to life.
        """
        ...

    def stop(self) -> None:
        """End every worker; none of them writes any more when this returns."""
        ...


class Births:
    """Counts workers that end before they are ready: after three in a row, MachineError."""

    def __init__(self) -> None:
        self._stillborn = 0

    def born(self, worker: Worker, ready: Ready) -> None:
        worker.ready, worker.pid, worker.since, self._stillborn = True, ready.pid, time.monotonic(), 0

    def died(self, worker: Worker, reason: str, timeout_s: float | None) -> Lost:
        if not worker.ready:
            self._stillborn += 1
            if self._stillborn > 2:
                raise MachineError(f"no worker comes to life: {reason}", hint="mmedge doctor")
        if worker.late:
            return Lost(f"it took longer than {limit(worker.ready, timeout_s):g} s", "a longer --timeout")
        return Lost(reason, "fewer --workers, or --retries 1")


def limit(ready: bool, timeout_s: float | None) -> float:
    """How long a scene may take; longer where the model has to be opened first."""
    if timeout_s is None:
        return inf
    return timeout_s if ready else max(timeout_s, START_S)
