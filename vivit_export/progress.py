"""Progress of long work: a list of stages on stderr."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Protocol


class Progress(Protocol):
    """Told which stage runs and what it found."""

    def stage(self, name: str) -> AbstractContextManager[None]:
        """Enter a stage; it ends when the context is left."""

    def note(self, text: str) -> None:
        """Hear a remark that people should see."""


class Silent:
    """Reports nothing; remembers how long each stage took.

    Attributes:
        seconds: wall time by stage, in order.
    """

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """Time a stage."""
        start = time.perf_counter()
        yield
        self.seconds[name] = round(time.perf_counter() - start, 3)

    def note(self, text: str) -> None:
        """Ignore a remark."""


class Console(Silent):
    """A live line per stage on a terminal; plain lines where stderr is a file or a pipe."""

    def __init__(self) -> None:
        from rich.console import Console as Terminal

        super().__init__()
        self._terminal = Terminal(stderr=True, highlight=False, soft_wrap=True)

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """Show a spinner while the stage runs, then its name and time."""
        from rich.markup import escape

        live = self._terminal.is_terminal
        try:
            with self._terminal.status(escape(name)) if live else nullcontext(), super().stage(name):
                yield
        except BaseException:
            self._print("✗ " if live else "failed: ", name, style="red")
            raise
        self._print("✓ " if live else "", f"{name} ", f"{self.seconds[name]:.1f} s", style="green")

    def note(self, text: str) -> None:
        """Print a remark."""
        self._print("  ", text)

    def _print(self, mark: str, text: str, aside: str = "", style: str = "") -> None:
        from rich.text import Text  # not markup: what stands in brackets is text here

        self._terminal.print(Text.assemble((mark, style), text, (aside, "dim")))
