"""Overlapped work keeps its order, its bound and its errors."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mmedge.edge.stream import in_order, timed


@settings(deadline=None, max_examples=30)
@given(st.lists(st.integers(0, 3), max_size=30), st.integers(1, 4), st.integers(1, 6))
def test_results_come_in_the_order_of_the_items(delays: list[int], workers: int, depth: int) -> None:
    def work(item: tuple[int, int]) -> int:
        time.sleep(item[1] / 2000)
        return item[0]

    assert list(in_order(work, list(enumerate(delays)), workers=workers, depth=depth)) == list(range(len(delays)))


def test_no_more_than_depth_items_are_taken_ahead() -> None:
    taken = 0

    def items() -> Iterator[int]:
        nonlocal taken
        for i in range(100):
            taken = i + 1
            yield i

    for done, _ in enumerate(in_order(lambda i: i, items(), workers=2, depth=5)):
        assert taken <= done + 5


def test_a_failure_raises_at_its_own_place_and_stops_the_rest() -> None:
    begun: list[int] = []

    def work(i: int) -> int:
        begun.append(i)
        if i == 3:
            raise OSError("item 3")
        return i

    stream = in_order(work, range(1000), workers=2, depth=4)
    assert [next(stream) for _ in range(3)] == [0, 1, 2]
    with pytest.raises(OSError, match="item 3"):
        next(stream)
    assert len(begun) < 20


def test_a_consumer_that_stops_leaves_no_thread() -> None:
    before = threading.active_count()
    stream = in_order(lambda i: i, range(1000), workers=3, depth=6)
    assert next(stream) == 0
    stream.close()  # type: ignore[attr-defined]
    assert threading.active_count() == before


def test_the_time_that_a_consumer_waits_is_told_from_its_own() -> None:
    def slow() -> Iterator[int]:
        for i in range(3):
            time.sleep(0.02)
            yield i

    seen = []
    for item, waited in timed(slow()):
        time.sleep(0.05)
        seen.append((item, waited))
    assert [item for item, _ in seen] == [0, 1, 2]
    assert all(waited >= 0.02 for _, waited in seen)
