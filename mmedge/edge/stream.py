"""Overlapped work in a fixed order: several threads, a bounded number of items in flight."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

Item = TypeVar("Item")
Result = TypeVar("Result")


def in_order(work: Callable[[Item], Result], items: Iterable[Item], *, workers: int, depth: int) -> Iterator[Result]:
    """Yield `work(item)` in the order of `items`, computed by `workers` threads, at most `depth` items in flight.

    An item that fails raises at its own place; items behind it that have not begun are dropped.
    """
    pool = ThreadPoolExecutor(workers, thread_name_prefix=getattr(work, "__name__", "work"))
    pending: deque[Future[Result]] = deque()
    try:
        for item in items:
            pending.append(pool.submit(work, item))
            if len(pending) >= depth:
                yield pending.popleft().result()
        while pending:
            yield pending.popleft().result()
    finally:  # also when the consumer stops early: queued work must not outlive it
        pool.shutdown(wait=True, cancel_futures=True)


def timed(items: Iterable[Item]) -> Iterator[tuple[Item, float]]:
    """Each item with the seconds that its consumer waited for it."""
    began = time.perf_counter()
    for item in items:
        yield item, time.perf_counter() - began
        began = time.perf_counter()
