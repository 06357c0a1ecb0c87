"""Progress of long work: a list of stages on stderr."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Protocol


class Progress(Protocol):
    """Told which stage runs and what it found."""

    def stage(self, name: str) -> AbstractContextManager[None]:
        """Enter a stage; it ends when the context is left."""

    def note(self, text: str) -> None:
        """Hear a remark."""


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
    """A live line per stage on a terminal; plain lines where stderr is a file or a pipe.

    Args:
        verbose: also show remarks.
    """

    def __init__(self, verbose: bool = False) -> None:
        import rich.console

        super().__init__()
        self._console = rich.console.Console(stderr=True, highlight=False)
        self._verbose = verbose

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """Show a spinner while the stage runs, then its name and time."""
        status = self._console.status(name) if self._console.is_terminal else None
        if status is not None:
            status.start()
        try:
            with super().stage(name):
                yield
        except BaseException:
            if status is not None:
                status.stop()
            self._console.print(f"[red]✗[/red] {name}" if self._console.is_terminal else f"failed: {name}")
            raise
        if status is not None:
            status.stop()
        mark = "[green]✓[/green] " if self._console.is_terminal else ""
        self._console.print(f"{mark}{name} [dim]{self.seconds[name]:.1f} s[/dim]")

    def note(self, text: str) -> None:
        """Print a remark."""
        if self._verbose:
            self._console.print(f"  [dim]{text}[/dim]")
