"""What back ends share: a pool that lends each item to one thread at a time, and words for the arithmetic."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

from vivit_export.precision import Precision
from vivit_export.runtime.session.backend import Pool, arithmetic


class Items:
    """Makes numbers, and remembers which were freed."""

    def __init__(self) -> None:
        self.made = 0
        self.freed: list[int] = []

    def make(self) -> int:
        self.made += 1
        return self.made

    def pool(self) -> Pool[int]:
        return Pool(self.make, self.freed.append)


def test_an_item_is_made_when_it_is_wanted_and_used_again() -> None:
    items = Items()
    pool = items.pool()
    assert items.made == 0
    for _ in range(3):
        with pool.lend() as item:
            assert item == 1
    with pool.lend() as first, pool.lend() as second:
        assert {first, second} == {1, 2}
    assert items.freed == []


def test_no_two_threads_have_one_item_and_there_are_no_more_items_than_threads() -> None:
    items, users, lock = Items(), dict[int, int](), threading.Lock()
    pool, together = items.pool(), threading.Barrier(8)

    def use(_: int) -> None:
        together.wait(10)  # all eight ask at once, over and over
        with pool.lend() as item:
            with lock:
                users[item] = users.get(item, 0) + 1
                assert users[item] == 1
            with lock:
                users[item] -= 1

    with ThreadPoolExecutor(8) as threads:
        list(threads.map(use, range(8 * 50)))
    assert items.made <= 8
    pool.close()
    assert sorted(items.freed) == list(range(1, items.made + 1))


@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt])
def test_an_item_that_failed_is_freed_and_not_lent_again(error: type[BaseException]) -> None:
    items = Items()
    pool = items.pool()

    def fail() -> None:
        with pool.lend():
            raise error

    with pytest.raises(error):
        fail()
    assert items.freed == [1]
    with pool.lend() as item:
        assert item == 2


def test_what_cannot_be_made_leaves_the_pool_as_it_was() -> None:
    attempts = iter([False, True])

    def make() -> str:
        if not next(attempts):
            raise RuntimeError("full")
        return "item"

    pool = Pool(make, lambda item: None)
    with pytest.raises(RuntimeError, match="full"), pool.lend():
        pytest.fail("not reached")
    with pool.lend() as item:
        assert item == "item"


@pytest.mark.parametrize(
    ("stored", "computed", "words"),
    [
        ("fp32", "fp32", "fp32"),
        ("fp16", "fp16", "fp16"),
        ("fp16", "fp32", "fp32 arithmetic on fp16 weights"),
        ("fp32", "bf16", "bf16 arithmetic on fp32 weights"),
        ("int8", "fp32", "int8 Linears, fp32 otherwise"),
        ("fp8", "fp32", "fp8 roundings emulated in fp32"),
    ],
)
def test_the_arithmetic_in_words(stored: str, computed: str, words: str) -> None:
    assert arithmetic(Precision(stored), Precision(computed)) == words
