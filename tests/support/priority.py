"""Keep the priority of the test runner: as root, SVT-AV1 gives the thread that calls it real-time priority for good."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def keeping_priority() -> Iterator[None]:
    """Give this thread back the priority that it has now; otherwise it starves everything else on the machine."""
    policy, parameter = os.sched_getscheduler(0), os.sched_getparam(0)
    try:
        yield
    finally:
        os.sched_setscheduler(0, policy, parameter)
