"""Read several videos at once, in order and a bounded number ahead."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Generator, Iterable
from concurrent.futures import Future
from dataclasses import replace
from typing import TypeVar

from vivit_export.cores import usable_cores
from vivit_export.runtime.clips.video.reading import Reading
from vivit_export.runtime.clips.video.stopping import ReadingPool

S = TypeVar("S")
T = TypeVar("T")


def num_readers(wanted: int | None, videos: int) -> int:
    """Return how many videos to read at once: as many as asked for, or one per core, but no more than there are."""
    return max(1, min(wanted or usable_cores(), videos))


def share_cores(reading: Reading, readers: int) -> Reading:
    """Give each of several decoders its share of the cores: one thread where there are as many decoders as cores.

    The threads of one decoder wait for each other: two decoders with two threads each took a tenth to a quarter more
    CPU time for short videos than with one (benchmarks/throughput.py, section ``threads``). A single video is decoded
    by all cores.
    """
    return replace(reading, threads=max(1, usable_cores() // readers))


def read_in_order(read: Callable[[S], T], sources: Iterable[S], readers: int) -> Generator[T, None, None]:
    """Read sources in threads, which end at their next frame if the iterator is closed.

    Args:
        read: reads one of them.
        sources: what there is to read.
        readers: how many are read at once.

    Yields:
        What ``read`` returns for each source, in their order. At most 2 * ``readers`` have been begun and not yielded.

    Raises:
        Exception: what ``read`` raises, in the place of its result.
    """
    with ReadingPool(readers) as pool:
        ahead: deque[Future[T]] = deque()
        for source in sources:
            ahead.append(pool.submit(read, source))
            if len(ahead) == 2 * readers:
                yield ahead.popleft().result()
        while ahead:
            yield ahead.popleft().result()
