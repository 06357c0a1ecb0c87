"""What every command does around its work: it parses, reports errors and ends. Nothing heavy is imported."""

from __future__ import annotations

import contextlib
import errno
import io
import os
import sys
import traceback
from typing import Any, NoReturn

import click

from vivit_export.cli.config import config_parameters, remember_arguments, shown_config, source_of
from vivit_export.cli.flags import flag
from vivit_export.cli.help import Presented, PresentedGroup
from vivit_export.cli.log import log_failure
from vivit_export.cores import spare_waiting_threads
from vivit_export.errors import OutputError, UsageError, VivitExportError
from vivit_export.packages import import_fault
from vivit_export.printing import lines, one_line
from vivit_export.signals import ended_like_ctrl_c, ignore_from_now_on, leave_if_any_hangs

_NO_PLACE = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO)


class _Reporting(Presented):
    """Report in one sentence that what a command prints, or its help, has no place; and never print what is obeyed."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Parse the arguments; click's message about a wrong one may quote it."""
        try:
            return super().parse_args(ctx, args)
        except click.UsageError as e:
            said = e.format_message()
            source = source_of(ctx, getattr(e, "param", None))
            if lines(said) == said and source is None:
                raise
            raise click.UsageError(lines(said) + (f" (from {source})" if source else ""), e.ctx) from None

    def main(self, *args: Any, **extra: Any) -> Any:
        """Run as the whole program."""
        if not args and not extra:  # as the console script calls it
            spare_waiting_threads()
        try:
            return super().main(*args, **extra)
        except OSError as e:
            if e.errno not in _NO_PLACE:
                raise
            _drop_stdout()
            _fail(f"{e.filename or 'the output'} cannot be written: {e.strerror}", code=OutputError.exit_code)
        except SystemExit as e:
            if not args and not extra:
                leave_if_any_hangs(e.code if isinstance(e.code, int) else 0)
            raise


class Group(_Reporting, PresentedGroup):
    """A group of commands."""


class Command(_Reporting):
    """Report a `VivitExportError`, or a package that cannot be imported, as one sentence and its exit code.

    Args:
        interrupted: what Ctrl-C leaves, in the words of the message.
    """

    def __init__(self, *args: Any, interrupted: str = "nothing was written", **attributes: Any) -> None:
        super().__init__(*args, **attributes)
        self.params += config_parameters()
        self._interrupted = interrupted

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Parse the arguments, and report what a file or the environment says wrongly."""
        remember_arguments(ctx, args)
        try:
            return super().parse_args(ctx, args)
        except VivitExportError as e:
            _fail(*e.lines(flag), code=e.exit_code)

    def invoke(self, ctx: click.Context) -> Any:
        """Run the command."""
        if isinstance(sys.stdout, io.TextIOWrapper):
            sys.stdout.reconfigure(errors="replace")  # a terminal without Δ still shows the figures
        try:
            shown = shown_config(ctx)
            if shown is not None:
                click.echo(lines(shown))
                return None
            with ended_like_ctrl_c():
                return super().invoke(ctx)
        except VivitExportError as e:
            if ctx.params.get("verbose") and not isinstance(e, UsageError):
                traceback.print_exc()
            log_failure("; ".join(e.lines(flag)), e)
            _fail(*e.lines(flag), code=e.exit_code)
        except KeyboardInterrupt as e:
            ignore_from_now_on()
            said = f"interrupted; {str(e) or self._interrupted}"
            log_failure(said, e)
            _fail(said, code=130)
        except Exception as e:
            fault = import_fault(e)
            if fault is None:
                raise
            if ctx.params.get("verbose"):
                traceback.print_exc()
            log_failure(str(fault), e)
            _fail(*fault.lines(flag), code=fault.exit_code)


def _fail(*message: str, code: int) -> NoReturn:
    with contextlib.suppress(OSError):  # where stderr has no place either, the exit code is left
        click.echo("error: " + "\n".join(map(one_line, message)), err=True)
    sys.exit(code)


def _drop_stdout() -> None:
    """Drop what stdout still holds; Python would try to write it at exit, and fail again."""
    with contextlib.suppress(OSError, AttributeError):  # not a file, in tests
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
