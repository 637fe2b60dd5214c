"""The workers of a batch: started when there is work, killed when a scene takes too long, replaced when lost."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from math import inf
from multiprocessing import Pipe
from multiprocessing.connection import Connection, wait
from types import TracebackType

from mmedge.edge.infer import Request
from mmedge.edge.worker import Message, Ready, Refused, Task
from mmedge.errors import MachineError

# A worker that was told to stop may finish the windows that it is computing.
GRACE_S = 10.0
# A model that opens takes a second or so; compiled graphs come with the first scenes.
START_S = 300.0
START = "import sys; sys.path[:] = {path!r}; from mmedge.edge.worker import serve; serve({channel}, {lifeline})"


@dataclass(frozen=True, slots=True)
class Lost:
    """A worker ended without an answer."""

    reason: str
    hint: str


class Worker:
    """One process, and what it is doing."""

    def __init__(self, number: int, template: Request, hold: tuple[int, ...]) -> None:
        self.number, self.ready, self.late = number, False, False
        self.task: Task | None = None
        self.since = time.monotonic()
        self.progress = (0, 0)
        ours, theirs = Pipe()
        read, self._lifeline = os.pipe()
        code = START.format(path=sys.path, channel=theirs.fileno(), lifeline=read)
        try:
            self.process = subprocess.Popen(
                [sys.executable, "-c", code],
                stdin=subprocess.DEVNULL,
                stdout=sys.stderr.fileno() if _has_fd(sys.stderr) else subprocess.DEVNULL,
                pass_fds=(theirs.fileno(), read, *hold),
                start_new_session=True,  # Ctrl-C reaches the batch alone, which ends its workers in order
            )
        finally:
            theirs.close()
            os.close(read)
        self.channel: Connection = ours
        self._say(template)

    def give(self, task: Task) -> None:
        self.task, self.since, self.progress = task, time.monotonic(), (0, 0)
        self._say(task)

    def publish(self) -> None:
        """The word that its scene may be published."""
        self._say("publish")

    def _say(self, what: object) -> None:
        with suppress(BrokenPipeError):  # its end is an event of its own
            self.channel.send(what)

    def release(self) -> Task:
        """The scene that it had; it is free for another."""
        if self.task is None:
            raise ValueError(f"worker {self.number} has no scene")
        task, self.task = self.task, None
        return task

    def kill(self) -> None:
        self.late = True
        self.process.kill()

    def end(self, wait_s: float = 0.0) -> str:
        """Close what we hold of a worker that ends within `wait_s`, or is killed then; say how it ended."""
        with suppress(subprocess.TimeoutExpired):
            self.process.wait(wait_s)
        self.process.kill()
        code = self.process.wait()
        self.channel.close()
        os.close(self._lifeline)
        if code >= 0:
            return f"the worker ended with exit code {code}"
        name = signal.Signals(-code).name
        memory = ": most often because the memory ran out" if name == "SIGKILL" else ""
        return f"the worker was ended by {name}{memory}"


class Crew:
    """Up to `size` workers; a context manager. `hold`: file descriptors that each of them keeps open (the lock)."""

    def __init__(self, template: Request, size: int, *, timeout_s: float | None, hold: tuple[int, ...] = ()) -> None:
        self._template, self._size, self._timeout_s, self._hold = template, size, timeout_s, hold
        self.workers: list[Worker] = []
        self._stillborn = 0

    def __enter__(self) -> Crew:
        return self

    def __exit__(self, kind: type[BaseException] | None, err: BaseException | None, tb: TracebackType | None) -> None:
        self.stop()

    @property
    def busy(self) -> list[Worker]:
        return [worker for worker in self.workers if worker.task is not None]

    def idle(self) -> Worker | None:
        """A worker without a scene; a new one where there may be one more."""
        free = next((worker for worker in self.workers if worker.task is None), None)
        if free is None and len(self.workers) < self._size:
            numbers = {worker.number for worker in self.workers}
            free = Worker(min(set(range(1, self._size + 1)) - numbers), self._template, self._hold)
            self.workers.append(free)
        return free

    def events(self, wait_s: float) -> Iterator[tuple[Worker, Message | Lost]]:
        """What workers say within `wait_s`, and which of them are lost; kills those that are late.

        Raises what a worker says of the model, MachineError where none comes to life.
        """
        self._kill_late()
        by_channel = {worker.channel: worker for worker in self.workers}
        for channel in wait(list(by_channel), timeout=wait_s):
            worker = by_channel[channel]  # type: ignore[index]
            try:
                message: Message = worker.channel.recv()
            except (EOFError, ConnectionError):
                yield worker, self._lost(worker)
                continue
            if isinstance(message, Refused):
                raise message.error
            if isinstance(message, Ready):
                worker.ready, worker.since, self._stillborn = True, time.monotonic(), 0
            yield worker, message

    def stop(self) -> None:
        """End every worker: those that work are asked to clean up behind them, and killed where they take too long."""
        for worker in self.workers:
            worker.process.terminate()
        until = time.monotonic() + GRACE_S
        for worker in self.workers:
            worker.end(max(0.0, until - time.monotonic()))
        self.workers.clear()

    def _kill_late(self) -> None:
        for worker in self.busy:
            if not worker.late and time.monotonic() - worker.since > limit(worker.ready, self._timeout_s):
                worker.kill()

    def _lost(self, worker: Worker) -> Lost:
        reason = worker.end(1.0)  # its socket is closed: it is ending
        self.workers.remove(worker)
        if not worker.ready:
            self._stillborn += 1
            if self._stillborn > 2:
                raise MachineError(f"no worker comes to life: {reason}", hint="mmedge doctor")
        if worker.late:
            return Lost(f"it took longer than {limit(worker.ready, self._timeout_s):g} s", "a longer --timeout")
        return Lost(reason, "fewer --workers, or --retries 1")


def limit(ready: bool, timeout_s: float | None) -> float:
    """How long a scene may take; longer where the model has to be opened first."""
    if timeout_s is None:
        return inf
    return timeout_s if ready else max(timeout_s, START_S)


def _has_fd(stream: object) -> bool:
    try:
        stream.fileno()  # type: ignore[attr-defined]
    except (AttributeError, OSError, ValueError):
        return False
    return True
