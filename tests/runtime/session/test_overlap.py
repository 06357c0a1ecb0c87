"""Filling batches while earlier ones run: order, memory, faults, and what is at work at the same time."""

from __future__ import annotations

import threading
import time
import weakref
from collections.abc import Iterator
from functools import partial
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vivit_export.errors import ClipError, EnvironmentFault
from vivit_export.runtime.session.overlap import Plan, Work, run_overlapped

Rows = npt.NDArray[Any]


def doubled(rows: Rows) -> dict[str, npt.NDArray[np.float32]]:
    """An engine that keeps no hold of its batch."""
    return {"twice": (rows * 2).astype(np.float32)}


class Memory:
    """Makes batches, counts them, and fills them with what no item writes."""

    def __init__(self) -> None:
        self.made: list[weakref.ref[Rows]] = []

    def __call__(self, count: int) -> Rows:
        rows = np.full((count, 3), -1, np.int64)
        self.made.append(weakref.ref(rows))
        return rows


def work(number: int, broken: frozenset[int] = frozenset()) -> Work[int]:
    def fill(rows: Rows) -> None:
        if number in broken:
            rows[:1] = -5  # it was read in part
            raise ClipError(f"{number} is broken")
        rows[...] = number + np.arange(len(rows))[:, None]

    return Work(number, fill)


@settings(deadline=None, max_examples=60, derandomize=True)
@given(
    count=st.integers(0, 40),
    broken=st.frozensets(st.integers(0, 39)),
    plan=st.builds(Plan, st.integers(1, 3), st.integers(1, 9), st.integers(1, 5), st.integers(1, 3)),
)
def test_each_item_gets_its_own_result_in_order_or_its_own_fault(
    count: int, broken: frozenset[int], plan: Plan
) -> None:
    memory, sizes = Memory(), []

    def run(rows: Rows) -> dict[str, npt.NDArray[np.float32]]:
        sizes.append(len(rows))
        return doubled(rows)

    found = list(run_overlapped(run, memory, (work(n, broken) for n in range(count)), plan))
    assert [key for key, _ in found] == list(range(count))
    for number, outcome in found:
        if number in broken:
            assert isinstance(outcome, ClipError) and str(outcome) == f"{number} is broken"
        else:
            assert not isinstance(outcome, ClipError)
            expected = np.repeat(2.0 * (number + np.arange(plan.rows))[:, None], 3, 1)
            np.testing.assert_array_equal(outcome["twice"], expected)
    assert len(memory.made) <= plan.num_batches
    usable = len(set(range(count)) - broken)
    assert sum(sizes) == usable * plan.rows and all(0 < size <= plan.items * plan.rows for size in sizes)


@pytest.mark.parametrize("slow", ["engine", "caller"])
def test_a_source_is_taken_no_further_than_the_batches_reach(slow: str) -> None:
    """However slow the engine, or whoever takes the results: memory does not grow with the source."""
    plan, memory, taken = Plan(rows=1, items=4, readers=2), Memory(), []

    def source() -> Iterator[Work[int]]:
        for number in range(200):
            taken.append(number)
            yield work(number)

    def run(rows: Rows) -> dict[str, npt.NDArray[np.float32]]:
        time.sleep(0.002 * (slow == "engine"))
        return doubled(rows)

    for done, _ in run_overlapped(run, memory, source(), plan):
        time.sleep(0.0005 * (slow == "caller"))
        assert len(taken) - done <= plan.num_batches * plan.items
        assert len(memory.made) <= plan.num_batches == 2


def test_reading_and_running_go_on_at_the_same_time() -> None:
    meeting = threading.Barrier(2, timeout=20)

    def fill(rows: Rows, number: int) -> None:
        if number == 2:
            meeting.wait()  # which the engine reaches with the first batch
        rows[...] = number

    def run(rows: Rows) -> dict[str, npt.NDArray[np.float32]]:
        if rows[0, 0] == 0:
            meeting.wait()
        return doubled(rows)

    works = (Work(n, partial(fill, number=n)) for n in range(4))
    assert len(list(run_overlapped(run, Memory(), works, Plan(1, 2, 1)))) == 4


def test_as_many_batches_run_at_once_as_planned() -> None:
    meeting = threading.Barrier(3, timeout=20)

    def run(rows: Rows) -> dict[str, npt.NDArray[np.float32]]:
        meeting.wait()
        return doubled(rows)

    assert len(list(run_overlapped(run, Memory(), map(work, range(6)), Plan(1, 1, 1, at_once=3)))) == 6


def test_a_result_does_not_wait_for_items_that_are_not_there_yet() -> None:
    """With batches of one, a camera's clip has its result when the next clip comes."""
    sent: list[int] = []

    def camera() -> Iterator[Work[int]]:
        for number in range(5):
            sent.append(number)
            yield work(number)
            time.sleep(0.2)

    for number, _ in run_overlapped(doubled, Memory(), camera(), Plan(1, 1, 1)):
        assert len(sent) <= number + 2


def test_an_engine_that_fails_ends_it_and_nothing_keeps_running() -> None:
    before = threading.active_count()

    def run(rows: Rows) -> dict[str, npt.NDArray[np.float32]]:
        raise EnvironmentFault("the engine is gone")

    with pytest.raises(EnvironmentFault, match="the engine is gone"):
        list(run_overlapped(run, Memory(), map(work, range(1000)), Plan(1, 2, 2)))
    deadline = time.monotonic() + 10
    while threading.active_count() > before and time.monotonic() < deadline:
        time.sleep(0.01)
    assert threading.active_count() == before


def test_what_nobody_takes_anymore_is_dropped() -> None:
    memory = Memory()
    results = run_overlapped(doubled, memory, map(work, range(1000)), Plan(1, 2, 2))
    assert next(results)[0] == 0
    results.close()
    deadline = time.monotonic() + 10
    while any(rows() is not None for rows in memory.made) and time.monotonic() < deadline:
        time.sleep(0.01)
    assert all(rows() is None for rows in memory.made)
