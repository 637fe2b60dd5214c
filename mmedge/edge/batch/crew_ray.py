"""The workers of a batch on a Ray cluster: an actor each, placed by Ray, one for a group of cores or a GPU.

Ray finds the machines, places the actors, carries the messages and notices who is gone. An actor has one scene at a
time, so that nothing queues up. Which scene is tried again, and from which row, is the journal's matter and not Ray's.
"""

from __future__ import annotations

import os
import re
import signal
import socket
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

from mmedge.edge.batch.actor import Actor
from mmedge.edge.batch.crew import Births, Lost, Worker
from mmedge.edge.batch.fence import Fence
from mmedge.edge.batch.orders import BatchOptions
from mmedge.edge.batch.worker import Done, Failed, Message, Ready, Refused, Task
from mmedge.edge.device import threads_available
from mmedge.edge.request import Request
from mmedge.errors import MachineError
from mmedge.extras import need

CORE_GROUP = 4  # threads of a worker, where nothing is said and the machines have as many
PLACE_S = 600.0  # a cluster that grows on demand needs minutes for the first machine
GRACE_S = 30.0
STORE_BYTES = 80 << 20  # Ray's least: no pixel goes through the object store


class ActorWorker(Worker):
    """A worker that is an actor. `stream` is what it says of its present call."""

    def __init__(self, number: int, handle: Any) -> None:
        super().__init__(number)
        self.handle = handle
        self.stream: Any = handle.open.options(num_returns="streaming").remote()
        self.ended = ""

    def publish(self) -> None:
        self.handle.publish.remote()

    def end(self, reason: str) -> None:
        """Kill it; it is lost when its byte of the fence is free."""
        import ray

        ray.kill(self.handle)
        self.stream, self.ended = None, reason

    def _start(self, task: Task) -> None:
        self.stream = self.handle.map.options(num_returns="streaming").remote(task)


class RayCrew:
    """Up to `options.workers` actors, or all that have room, but no more than there are `scenes`.

    Joins a running cluster, or starts one on this machine. Raises MissingExtraError without Ray, MachineError where the
    cluster cannot be reached or has no room.
    """

    def __init__(self, template: Request, options: BatchOptions, *, fence: Fence, scenes: int) -> None:
        self._options, self._fence, self._births = options, fence, Births()
        self.workers: list[ActorWorker] = []
        fence.create()
        self._ours = _join(template, options)
        nodes = _nodes()
        threads = template.threads or _core_group(nodes, options.workers)
        self._size = min(options.workers or max(1, _room(nodes, threads, options.gpus)), scenes)
        self._template = replace(template, threads=threads)
        place = {"num_cpus": threads, "num_gpus": options.gpus, "scheduling_strategy": "SPREAD"}
        self._kind = need("ray").remote(Actor).options(**place, max_concurrency=2)
        self._begun = time.monotonic()

    @property
    def has_room(self) -> bool:
        self._fill()
        return any(_idle(worker) for worker in self.workers)

    def idle(self) -> Worker:
        return next(worker for worker in self.workers if _idle(worker))

    def events(self, wait_s: float) -> Iterator[tuple[Worker, Message | Lost]]:
        self._give_up_waiting()
        for worker in self.workers:
            if worker.overdue(self._options.timeout_s):
                worker.late = True
                worker.end("it was late")
        for worker in self._speaking(wait_s):
            message = self._hear(worker)
            if isinstance(message, Refused):
                raise message.error
            if isinstance(message, Ready):
                self._births.born(worker, message)
            if message is not None:
                yield worker, message
        for worker in [worker for worker in self.workers if worker.ended]:
            if self._fence.is_free(worker.number):
                self.workers.remove(worker)
                yield worker, self._births.died(worker, worker.ended, self._options.timeout_s)

    def stop(self) -> None:
        import ray

        for worker in self.workers:
            worker.end("stopped")
        self._fence.wait(GRACE_S)
        self.workers.clear()
        if self._ours:
            ray.shutdown()

    def _fill(self) -> None:
        """An actor for every place. Those for which the cluster has no room yet wait in Ray."""
        numbers = {worker.number for worker in self.workers}
        for number in set(range(1, self._size + 1)) - numbers:
            fence = Fence(self._fence.path.absolute())
            handle = self._kind.remote(self._template, Path.cwd(), fence, number)
            self.workers.append(ActorWorker(number, handle))

    def _speaking(self, wait_s: float) -> list[ActorWorker]:
        """Those that have said something within `wait_s`."""
        import ray

        streams = {worker.stream: worker for worker in self.workers if worker.stream is not None}
        if not streams:
            time.sleep(wait_s)
            return []
        with _stoppable():
            return [streams[stream] for stream in ray.wait(list(streams), timeout=wait_s)[0]]

    def _hear(self, worker: ActorWorker) -> Message | None:
        import ray

        try:
            with _stoppable():
                message: Message = ray.get(next(worker.stream))
        except ray.exceptions.RayError as err:
            worker.end(_reason(err))
            return None
        if isinstance(message, (Ready, Done, Failed)):
            worker.stream = None
        if isinstance(message, Failed) and message.tainted:
            worker.end(message.reason)
        return message

    def _give_up_waiting(self) -> None:
        if any(worker.ready for worker in self.workers):
            self._begun = time.monotonic()
        elif time.monotonic() - self._begun > PLACE_S:
            raise MachineError(
                f"the cluster has had no room for a worker of {self._template.threads} cores for {PLACE_S:.0f} s",
                hint="ray status; fewer --threads",
            )


def _idle(worker: ActorWorker) -> bool:
    return worker.ready and worker.task is None and not worker.ended


def _join(template: Request, options: BatchOptions) -> bool:
    """Connect with the cluster; True where it was started by us and for us."""
    ray = need("ray")
    if ray.is_initialized():
        return False
    cores = max(threads_available(), (options.workers or 1) * (template.threads or 1))
    local = {"num_cpus": cores, "object_store_memory": STORE_BYTES, "include_dashboard": False}
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # nothing is reported to anybody
    with _signals_kept():
        try:
            _knock(options.address)
            ray.init(
                address=options.address or "local",
                logging_level="ERROR",
                log_to_driver=False,  # stdout is for the paths of maps
                **({} if options.address else local),
            )
        except (OSError, RuntimeError, ValueError) as err:
            raise MachineError(
                f"no Ray cluster at `{options.address or 'this machine'}`: {err}", hint="ray status --address HOST:6379"
            ) from err
    return True


def _knock(address: str | None) -> None:
    """Ray itself tries for minutes to reach a machine where nobody listens."""
    host, colon, port = (address or "").rpartition(":")
    if colon and port.isdecimal():
        socket.create_connection((host, int(port)), timeout=10).close()


@contextmanager
def _signals_kept() -> Iterator[None]:
    """Ray puts a handler of its own where ours is, which ends the process without cleaning up."""
    kept = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield
    finally:
        for number, handler in kept.items():
            signal.signal(number, handler)


@contextmanager
def _stoppable() -> Iterator[None]:
    """What a signal's handler raises inside Ray's compiled code comes out as the cause of a SystemError."""
    try:
        yield
    except SystemError as err:
        raise err.__cause__ or err from None


def _nodes() -> Sequence[dict[str, float]]:
    """What each living machine has: `CPU`, `GPU`."""
    return [node["Resources"] for node in need("ray").nodes() if node["Alive"]]


def _core_group(nodes: Sequence[dict[str, float]], workers: int | None) -> int:
    """Threads of a worker: what any machine that has cores can give, fewer where `workers` share what there is."""
    cores = [int(node["CPU"]) for node in nodes if node.get("CPU", 0) >= 1]
    return max(1, min([CORE_GROUP, *cores, *([sum(cores) // workers] if workers else [])]))


def _room(nodes: Sequence[dict[str, float]], threads: int, gpus: int) -> int:
    """How many workers fit the machines that the cluster has now."""
    cores = sum(int(node.get("CPU", 0)) // threads for node in nodes)
    return min(cores, sum(int(node.get("GPU", 0)) // gpus for node in nodes)) if gpus else cores


def _reason(err: Exception) -> str:
    """What Ray knows of an actor's end, without its ids and advice."""
    known = re.search(r"dead because (.+?\.)(\s|$)", str(err), re.DOTALL)
    return f"the worker was lost: {known[1] if known else str(err).splitlines()[0]}"
