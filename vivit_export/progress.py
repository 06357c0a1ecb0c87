"""Progress of long work: a list of stages on stderr, and a count with speed and time left."""

from __future__ import annotations

import logging
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Protocol

from vivit_export.errors import counted
from vivit_export.printing import lines, one_line

_LOG = logging.getLogger(__name__)


class Progress(Protocol):
    """Receives stages and remarks."""

    def stage(self, name: str) -> AbstractContextManager[None]:
        """Enter a stage, which ends with the context."""

    def counting(self, name: str, total: int | None, unit: str) -> AbstractContextManager[Callable[[int], None]]:
        """Enter a stage of ``total`` steps; the result is called with the number of steps just done.

        Args:
            name: of the stage.
            total: None: only the end will tell.
            unit: what the steps are, in the plural.
        """

    def note(self, text: str) -> None:
        """Receive a remark that people should see."""

    def detail(self, text: str) -> None:
        """Receive a remark for people who asked for details."""


class Silent:
    """Report nothing; record how long each stage takes.

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

    @contextmanager
    def counting(self, name: str, total: int | None, unit: str) -> Iterator[Callable[[int], None]]:
        """Time a stage; its steps are not shown."""
        with self.stage(name):
            yield lambda _count: None

    def note(self, text: str) -> None:
        """Ignore a remark."""

    def detail(self, text: str) -> None:
        """Ignore a remark."""


class Console(Silent):
    """A live line per stage on a terminal; plain lines if stderr is a file or a pipe.

    Args:
        verbose: show details too.
    """

    def __init__(self, *, verbose: bool = False) -> None:
        from rich.console import Console as Terminal

        super().__init__()
        self._verbose = verbose
        self._terminal = Terminal(stderr=True, highlight=False, soft_wrap=True)

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """Show a spinner while the stage runs, then its name and time."""
        from rich.markup import escape

        live = self._terminal.is_terminal
        try:
            with self._terminal.status(escape(one_line(name))) if live else nullcontext(), super().stage(name):
                yield
        except BaseException:
            self._print("✗ " if live else "failed: ", name, style="red")
            raise
        self._print("✓ " if live else "", f"{name} ", f"{self.seconds[name]:.1f} s", style="green")

    @contextmanager
    def counting(self, name: str, total: int | None, unit: str) -> Iterator[Callable[[int], None]]:
        """On a terminal, show a bar with speed and time left; at the end, print the steps done and the speed."""
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

        done = 0
        start = time.perf_counter()

        def reached() -> str:
            return counted(done, unit) if total in (None, done) else f"{done} of {counted(total or 0, unit)}"

        def advance(count: int) -> None:
            nonlocal done
            done += count
            rate = done / max(time.perf_counter() - start, 1e-9)
            bar.update(task, advance=count, speed=f"{rate:.2f} {unit}/s")

        columns = (BarColumn(), MofNCompleteColumn(), TextColumn("{task.fields[speed]}"), TimeRemainingColumn())
        live = self._terminal.is_terminal
        bar = Progress(
            TextColumn(one_line(name), markup=False), *columns, console=self._terminal, transient=True, disable=not live
        )
        task = bar.add_task(name, total=total, speed="")
        try:
            with bar if live else nullcontext(), Silent.stage(self, name):  # Rich 13.0 ends a hidden bar with a line
                yield advance
        except BaseException:
            self._print("✗ " if live else "failed: ", f"{name}, {reached()}", style="red")
            raise
        seconds = self.seconds[name]
        speed = f", {done / max(seconds, 1e-3):.2f} {unit}/s" if done else ""
        self._print("✓ " if live else "", f"{name} ", f"{reached()}{speed}, {seconds:.1f} s", style="green")

    def note(self, text: str) -> None:
        """Print a remark."""
        self._print("  ", text)

    def detail(self, text: str) -> None:
        """Print a remark, if details are wanted."""
        if self._verbose:
            self.note(text)

    def _print(self, mark: str, text: str, aside: str = "", style: str = "") -> None:
        from rich.text import Text  # not markup: text in brackets is plain text here

        self._terminal.print(Text.assemble((mark, style), lines(text), (aside, "dim")))


class Logged(Silent):
    """Report as another does, and log what it is told: stages and remarks as info, details for debugging.

    Args:
        shown: the other.
    """

    def __init__(self, shown: Silent) -> None:
        self._shown = shown
        self.seconds = shown.seconds

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """Log the beginning, and the end with its time."""
        with self._logged(name), self._shown.stage(name):
            yield

    @contextmanager
    def counting(self, name: str, total: int | None, unit: str) -> Iterator[Callable[[int], None]]:
        """Log the beginning, and the end with its time and the steps done."""
        done = 0

        def advance(count: int) -> None:
            nonlocal done
            done += count
            shown(count)

        with self._logged(name, lambda: f", {counted(done, unit)}"), self._shown.counting(name, total, unit) as shown:
            yield advance

    def note(self, text: str) -> None:
        """Log a remark."""
        _LOG.info("%s", text)
        self._shown.note(text)

    def detail(self, text: str) -> None:
        """Log a remark for debugging."""
        _LOG.debug("%s", text)
        self._shown.detail(text)

    @contextmanager
    def _logged(self, name: str, more: Callable[[], str] = str) -> Iterator[None]:
        _LOG.debug("%s: begins", name)
        try:
            yield
        except BaseException:
            _LOG.info("%s: failed%s", name, more())
            raise
        _LOG.info("%s: %.3f s%s", name, self.seconds.get(name, 0.0), more())


def default_progress() -> Progress:
    """Return what shows progress if the caller of a function chose nothing: a cell of a notebook does, all else not."""
    ipython = sys.modules.get("IPython")
    shell = ipython.get_ipython() if ipython is not None else None
    return Console() if type(shell).__name__ in ("ZMQInteractiveShell", "Shell") else Silent()
