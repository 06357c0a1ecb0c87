"""Reading several at once: order, a bounded number ahead, and an end that waits for nobody."""

from __future__ import annotations

import threading
import time

import pytest

from vivit_export.cores import usable_cores
from vivit_export.errors import ClipError
from vivit_export.runtime.clips.ahead import read_in_order, share_cores
from vivit_export.runtime.clips.video.reading import Reading
from vivit_export.runtime.clips.video.stopping import stop_if_dropped


@pytest.mark.parametrize("readers", [1, 2, 5])
def test_results_keep_their_order_and_few_are_held(readers: int) -> None:
    begun: list[int] = []

    def read(number: int) -> int:
        begun.append(number)
        time.sleep(0.003 * (number % 3))
        return number * number

    for place, result in enumerate(read_in_order(read, range(30), readers)):
        assert result == place * place
        assert len(begun) - place <= 2 * readers
    assert sorted(begun) == list(range(30))


def test_several_are_read_at_once() -> None:
    meeting = threading.Barrier(3, timeout=20)
    assert len(list(read_in_order(lambda _: meeting.wait(), range(6), 3))) == 6


def test_an_error_comes_in_its_place() -> None:
    def read(number: int) -> int:
        if number == 2:
            raise ClipError("2 is broken")
        return number

    results = read_in_order(read, range(5), 2)
    assert [next(results), next(results)] == [0, 1]
    with pytest.raises(ClipError, match="2 is broken"):
        next(results)


def test_what_is_being_read_stops_when_nobody_takes_the_rest() -> None:
    def read(number: int) -> int:
        while number:
            stop_if_dropped()
            time.sleep(0.001)
        return number

    results = read_in_order(read, range(100), 2)
    assert next(results) == 0
    start = time.monotonic()
    results.close()
    assert time.monotonic() - start < 10


def test_cores_are_shared_among_decoders() -> None:
    cores = usable_cores()
    assert [share_cores(Reading("full"), n) for n in (1, cores, 2 * cores)] == [
        Reading("full", cores),
        Reading("full", 1),
        Reading("full", 1),
    ]
