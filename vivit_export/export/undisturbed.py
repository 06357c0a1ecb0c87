"""Compute as if there were no other code in the process.

A program that calls us may have changed what its own code computes with: PyTorch's default type and device, autocast,
the precision of products, or what NumPy does about an underflow. None of that changes a result here, and afterwards
all is as it was. And torch.export changes PyTorch's state in every thread for as long as it runs, so the jobs of
several threads take turns.
"""

from __future__ import annotations

import functools
import sys
import threading
from collections.abc import Callable
from contextlib import ExitStack
from typing import ParamSpec, TypeVar

import numpy as np

P = ParamSpec("P")
R = TypeVar("R")

_TURN = threading.RLock()


def undisturbed(job: Callable[P, R]) -> Callable[P, R]:
    """Decorate a function so that it computes with the defaults of NumPy and PyTorch, one call at a time."""

    @functools.wraps(job)
    def alone(*args: P.args, **kwargs: P.kwargs) -> R:
        with _TURN, ExitStack() as stack:
            stack.enter_context(np.errstate(divide="warn", over="warn", under="ignore", invalid="warn"))
            if sys.modules.get("torch") is not None:  # else nobody can have changed it, and a check may not need it
                from vivit_export.export.checkpoint.device import by_default

                stack.enter_context(by_default())
            return job(*args, **kwargs)

    return alone
