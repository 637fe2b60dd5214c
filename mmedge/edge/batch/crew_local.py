"""The workers of a batch on this machine: a process each, killed when a scene takes too long."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import suppress
from multiprocessing import Pipe
from multiprocessing.connection import Connection, wait

from mmedge.edge.batch.crew import Births, Lost, Worker
from mmedge.edge.batch.worker import Failed, Message, Ready, Refused, Task
from mmedge.edge.request import Request

# A worker that was told to stop may finish the windows that it is computing.
GRACE_S = 10.0
START = "import sys; sys.path[:] = {path!r}; from mmedge.edge.batch.worker import serve; serve({channel}, {lifeline})"


class ProcessWorker(Worker):
    """A worker that is a process of ours."""

    def __init__(self, number: int, template: Request, hold: tuple[int, ...]) -> None:
        super().__init__(number)
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
        self.pid = self.process.pid
        self.channel: Connection = ours
        self._say(template)

    def publish(self) -> None:
        self._say("publish")

    def _start(self, task: Task) -> None:
        self._say(task)

    def _say(self, what: object) -> None:
        with suppress(BrokenPipeError):  # its end is an event of its own
            self.channel.send(what)

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


class LocalCrew:
    """Up to `size` processes. `hold`: file descriptors that each of them keeps open (the lock)."""

    def __init__(self, template: Request, size: int, *, timeout_s: float | None, hold: tuple[int, ...] = ()) -> None:
        self._template, self._size, self._timeout_s, self._hold = template, size, timeout_s, hold
        self.workers: list[ProcessWorker] = []
        self._births = Births()

    @property
    def has_room(self) -> bool:
        return len(self.workers) < self._size or any(worker.task is None for worker in self.workers)

    def idle(self) -> Worker:
        free = next((worker for worker in self.workers if worker.task is None), None)
        if free is None:
            numbers = {worker.number for worker in self.workers}
            free = ProcessWorker(min(set(range(1, self._size + 1)) - numbers), self._template, self._hold)
            self.workers.append(free)
        return free

    def events(self, wait_s: float) -> Iterator[tuple[Worker, Message | Lost]]:
        for worker in self.workers:
            if worker.overdue(self._timeout_s):
                worker.kill()
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
                self._births.born(worker, message)
            if isinstance(message, Failed) and message.tainted:  # it ends itself, and must not be given a scene
                self._let_go(worker)
            yield worker, message

    def stop(self) -> None:
        """Those that work are asked to clean up behind them, and killed where they take too long."""
        for worker in self.workers:
            worker.process.terminate()
        until = time.monotonic() + GRACE_S
        for worker in self.workers:
            worker.end(max(0.0, until - time.monotonic()))
        self.workers.clear()

    def _lost(self, worker: ProcessWorker) -> Lost:
        return self._births.died(worker, self._let_go(worker), self._timeout_s)

    def _let_go(self, worker: ProcessWorker) -> str:
        """A worker that is ending by itself; how it ended."""
        self.workers.remove(worker)
        return worker.end(1.0)


def _has_fd(stream: object) -> bool:
    try:
        stream.fileno()  # type: ignore[attr-defined]
    except (AttributeError, OSError, ValueError):
        return False
    return True
