"""The log of a command: what it did and when, in a file or on stderr. Nothing is logged unless somebody asks for it."""

from __future__ import annotations

import contextlib
import logging
import os
import re
import stat
import sys
import time
from pathlib import Path
from typing import IO, TYPE_CHECKING, Literal

import click

from vivit_export import __version__
from vivit_export.errors import OutputError
from vivit_export.printing import lines, one_line

LogLevel = Literal["debug", "info", "warning", "error"]
_PACKAGE = "vivit_export"
_LOG = logging.getLogger(__name__)
_LEVEL_WIDTH = len("WARNING")
_LINE = re.compile(rb"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z [A-Z]+ +" + _PACKAGE.encode())  # as _Lines begins it

if TYPE_CHECKING:
    _StreamHandler = logging.StreamHandler[IO[str]]
else:  # Python 3.10 cannot subscript it
    _StreamHandler = logging.StreamHandler


class _Lines(logging.Formatter):
    """``2026-01-31T12:00:00.000Z INFO    vivit_export.progress: …``; what others wrote cannot begin a line."""

    converter = staticmethod(time.gmtime)
    default_time_format = "%Y-%m-%dT%H:%M:%S"
    default_msec_format = "%s.%03dZ"

    def format(self, record: logging.LogRecord) -> str:
        """Return the line, and a traceback below it."""
        head = f"{self.formatTime(record)} {record.levelname:<{_LEVEL_WIDTH}} {record.name}: "
        text = head + one_line(record.getMessage())
        if record.exc_info:
            trace = lines(self.formatException(record.exc_info))
            text += "".join(f"\n    {line}" for line in trace.split("\n"))
        return text


class _Handler(_StreamHandler):
    """Writes until that fails, and then lets the command go on without its log.

    Attributes:
        failure: why that failed.
    """

    failure: OSError | None = None

    def handleError(self, record: logging.LogRecord) -> None:  # noqa: N802 - the base class's name
        """Remember the first error of the file system; anything else is a bug, and shown."""
        error = sys.exc_info()[1]
        if not isinstance(error, OSError):
            raise
        self.failure = self.failure or error
        self.addFilter(lambda _record: False)


def start_log(level: LogLevel, file: Path | None) -> None:
    """Log the current command, until it ends.

    Args:
        level: the least that is logged.
        file: to append to; None: stderr.

    Raises:
        OutputError: it cannot be written, or is not empty and no log of this package.
    """
    stream = sys.stderr if file is None else _open(file)
    handler = _Handler(stream)
    handler.setFormatter(_Lines())
    logger = logging.getLogger(_PACKAGE)
    before = (logger.level, logger.propagate)
    logger.addHandler(handler)
    logger.setLevel(level.upper())
    logger.propagate = False
    context = click.get_current_context()

    def end() -> None:
        _LOG.info("%s ends", context.command_path)
        logger.removeHandler(handler)
        logger.setLevel(before[0])  # which also forgets what was decided at the other level
        logger.propagate = before[1]
        if file is not None:
            with contextlib.suppress(OSError):
                stream.close()
        if handler.failure is not None:
            said = f"  {file or 'the log'} is not complete: {handler.failure.strerror}"
            with contextlib.suppress(OSError):
                click.echo(lines(said), err=True)

    context.call_on_close(end)
    _LOG.info("%s begins, vivit-export %s, process %d", context.command_path, __version__, os.getpid())


def log_failure(sentence: str, error: BaseException) -> None:
    """Log that the command failed, with the traceback if details are logged; does nothing without a log."""
    if logging.getLogger(_PACKAGE).handlers:
        _LOG.error("%s", sentence)
        _LOG.debug("where it failed", exc_info=error)


def _open(file: Path) -> IO[str]:
    flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC | os.O_NONBLOCK  # does not wait for a pipe to be read
    try:
        descriptor = os.open(file, flags, 0o666)
    except OSError as e:
        raise OutputError(f"{file} cannot be written: {e.strerror}; choose another file for the log") from e
    stream = os.fdopen(descriptor, "a", encoding="utf-8", errors="backslashreplace", buffering=1)
    state = os.fstat(descriptor)
    if stat.S_ISREG(state.st_mode) and state.st_size and not _is_log(file):
        stream.close()
        raise OutputError(
            f"{file} is not empty and does not begin as a log of vivit-export does; choose another file for the log"
        )
    return stream


def _is_log(file: Path) -> bool:
    try:
        with open(file, "rb") as content:
            return _LINE.match(content.read(256)) is not None
    except OSError:
        return False
