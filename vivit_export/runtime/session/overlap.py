"""Fill batches while earlier ones run.

::

    caller      takes a, b, c, d, … from a source, one by one            yields the results of a, b, …
    readers     a b  c d  e f                                            each writes its rows of a batch
    engine           [a b][c d]  [e f]                                   one batch after the other, or a few at once

The memory is that of a few batches, made once and used again and again: as many as run at once, and enough others that
each reader has a second item to go on with. A batch is refilled when its results have been taken.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any, Generic, TypeVar

import numpy.typing as npt

from vivit_export.errors import ClipError
from vivit_export.runtime.clips.video.stopping import ReadingPool
from vivit_export.runtime.session.backend import Float32

Rows = npt.NDArray[Any]
Outputs = dict[str, Float32]
K = TypeVar("K")


@dataclass(frozen=True, slots=True)
class Work(Generic[K]):
    """One item of a source.

    Attributes:
        key: what the caller knows it by.
        fill: writes its rows of a batch, all of them, in one of several threads; it may raise `ClipError`.
    """

    key: K
    fill: Callable[[Rows], None]


@dataclass(frozen=True, slots=True)
class Plan:
    """How batches are filled and run.

    Attributes:
        rows: of each item.
        items: in a batch.
        readers: how many items are filled at once.
        at_once: how many batches run at once.
    """

    rows: int
    items: int
    readers: int
    at_once: int = 1

    @property
    def num_batches(self) -> int:
        """How many batches there are in memory at most."""
        return self.at_once + -(-2 * self.readers // self.items)


@dataclass(slots=True)
class _Batch(Generic[K]):
    """Memory of a batch, and what is being written to it."""

    memory: Rows
    keys: list[K] = field(default_factory=list)
    fills: list[Future[None]] = field(default_factory=list)


def run_overlapped(
    run: Callable[[Rows], Outputs],
    allocate: Callable[[int], Rows],
    works: Iterable[Work[K]],
    plan: Plan,
) -> Generator[tuple[K, Outputs | ClipError], None, None]:
    """Fill and run everything that a source gives.

    Args:
        run: runs a batch; its results are arrays of as many rows, and keep no hold of the batch.
        allocate: makes the memory of a batch with this number of rows, in the shape and dtype that ``run`` takes.
        works: taken in the caller's thread, one at a time, as the results are taken.
        plan: sizes.

    Yields:
        The key of each item, in order, with its rows of each result, or with the error of its ``fill``. The results
        of a batch come as soon as it is done, or when the next item has been taken.

    Raises:
        Exception: whatever else ``run``, ``works`` or a ``fill`` raises.
    """
    under_way: deque[tuple[_Batch[K], Future[list[Outputs | ClipError]]]] = deque()
    spare: list[Rows] = []
    engine = ThreadPoolExecutor(plan.at_once)

    def start(batch: _Batch[K]) -> None:
        under_way.append((batch, engine.submit(_run, run, batch, plan.rows)))

    def finish() -> Iterator[tuple[K, Outputs | ClipError]]:
        batch, outcomes = under_way.popleft()
        found = outcomes.result()
        spare.append(batch.memory)
        return zip(batch.keys, found, strict=True)

    try:
        with ReadingPool(plan.readers) as readers:
            batch: _Batch[K] | None = None
            for work in works:
                if batch is None:
                    batch = _Batch(spare.pop() if spare else allocate(plan.items * plan.rows))
                at = len(batch.keys) * plan.rows
                batch.keys.append(work.key)
                batch.fills.append(readers.submit(work.fill, batch.memory[at : at + plan.rows]))
                if len(batch.keys) == plan.items:
                    start(batch)
                    batch = None
                while under_way and (len(under_way) >= plan.num_batches or under_way[0][1].done()):
                    yield from finish()
            if batch is not None:
                start(batch)
            while under_way:
                yield from finish()
    finally:
        # Do not wait: the owner of the session decides whether to wait for what is running.
        engine.shutdown(wait=False, cancel_futures=True)


def _run(run: Callable[[Rows], Outputs], batch: _Batch[K], rows: int) -> list[Outputs | ClipError]:
    """Wait until a batch is filled, run the items that could be, and return what each gave."""
    errors: list[ClipError | None] = []
    usable = 0
    for number, filled in enumerate(batch.fills):
        try:
            filled.result()
        except ClipError as e:
            errors.append(e)
            continue
        if usable < number:  # close the gap that an unusable one left
            batch.memory[usable * rows : (usable + 1) * rows] = batch.memory[number * rows : (number + 1) * rows]
        errors.append(None)
        usable += 1
    outputs = run(batch.memory[: usable * rows]) if usable else {}
    starts = iter(range(0, usable * rows, rows))
    return [_part(outputs, next(starts), rows) if error is None else error for error in errors]


def _part(outputs: Outputs, start: int, rows: int) -> Outputs:
    return {name: array[start : start + rows] for name, array in outputs.items()}
