"""A process that dies, or a disk that fails, at any step of its work on files: as SIGKILL does, without a process.

Every call that changes a file or a folder is a step. At the chosen one, and at all after it, a dead process changes
nothing more: no cleaning up happens, whatever the code has for it. A file that was about to be written is left cut
short. A disk that fails does so at one step, and all cleaning up happens.
"""

from __future__ import annotations

import builtins
import errno
import io
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from vivit_export import atomic

_CHANGES = ("rename", "replace", "mkdir", "rmdir", "unlink", "chmod", "fsync", "link", "symlink", "truncate")


class Killed(BaseException):
    """The process is dead."""


class Steps:
    """Counts the steps of some work, and ends it at one.

    Args:
        last: the step at which it ends; 0: never.
        error: number of the error of a failing disk; None: the process dies.
    """

    def __init__(self, last: int = 0, error: int | None = None) -> None:
        self.count = 0
        self._last, self._error = last, error
        self._open = io.open

    @property
    def reached(self) -> bool:
        """Whether the work got that far."""
        return 0 < self._last <= self.count

    def step(self, before: Callable[[], object] = int) -> None:
        """Take a step, or fail to; ``before`` is what is still done at the last one."""
        self.count += 1
        if self.count == self._last:
            before()
        if self._error is None and self.reached:
            raise Killed
        if self._error is not None and self.count == self._last:
            raise OSError(self._error, os.strerror(self._error))

    @contextmanager
    def counted(self) -> Iterator[None]:
        """Count, and end the work, within this context."""
        with pytest.MonkeyPatch.context() as patch:
            for name in _CHANGES:
                patch.setattr(os, name, self._stepping(getattr(os, name)))
            patch.setattr(atomic, "_rename", self._stepping(vars(atomic)["_rename"]))
            patch.setattr(os, "open", self._opening_low(os.open))
            for module in (io, builtins):
                patch.setattr(module, "open", self._opening(self._open))
            yield

    def _stepping(self, function: Callable[..., Any]) -> Callable[..., Any]:
        def run(*arguments: Any, **options: Any) -> Any:
            self.step()
            return function(*arguments, **options)

        return run

    def _opening(self, function: Callable[..., Any]) -> Callable[..., Any]:
        def run(file: Any, mode: str = "r", *arguments: Any, **options: Any) -> Any:
            if set(mode) & set("wax+") and not isinstance(file, int):
                self.step(lambda: self._cut_short(file))
            return function(file, mode, *arguments, **options)

        return run

    def _opening_low(self, function: Callable[..., int]) -> Callable[..., int]:
        def run(path: Any, flags: int, *arguments: Any, **options: Any) -> int:
            if flags & (os.O_WRONLY | os.O_RDWR | os.O_CREAT):
                self.step()
            return function(path, flags, *arguments, **options)

        return run

    def _cut_short(self, file: Any) -> None:
        with self._open(file, "wb") as begun:
            begun.write(b"cut sh")


ERRORS = (errno.ENOSPC, errno.EIO, errno.EACCES, errno.EROFS, errno.EDQUOT)
