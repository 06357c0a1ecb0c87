"""What C libraries of this process have allocated and not freed, as glibc counts it."""

from __future__ import annotations

import ctypes
import gc
from collections.abc import Callable

import pytest

_FIELDS = ["arena", "ordblks", "smblks", "hblks", "hblkhd", "usmblks", "fsmblks", "uordblks", "fordblks", "keepcost"]


class _Mallinfo2(ctypes.Structure):
    _fields_ = [(name, ctypes.c_size_t) for name in _FIELDS]


def bytes_kept(work: Callable[[], object], times: int) -> float:
    """Return how many bytes a call of ``work`` leaves on the heap, after a first round that fills caches.

    The least of three rounds: something else may allocate meanwhile.
    """
    libc = ctypes.CDLL(None)
    if not hasattr(libc, "mallinfo2"):
        pytest.skip("this C library does not tell what is allocated")
    libc.mallinfo2.restype = _Mallinfo2

    def in_use() -> int:
        gc.collect()
        told = libc.mallinfo2()
        return int(told.uordblks) + int(told.hblkhd)

    def repeat() -> None:
        for _ in range(times):
            work()

    repeat()
    found = []
    for _ in range(3):
        before = in_use()
        repeat()
        found.append((in_use() - before) / times)
    return min(found)
