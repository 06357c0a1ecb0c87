"""The options of live video."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple, get_args

import click

from vivit_export.cli.options import grouped
from vivit_export.errors import UsageError, option
from vivit_export.runtime.clips.live.address import OnLate


class LiveChoice(NamedTuple):
    """How live video is read; None keeps the default."""

    on_late: OnLate | None
    timeout: float | None
    reconnect: float | None

    def given(self) -> dict[str, object]:
        """Return what is not left to the default."""
        return {name: value for name, value in self._asdict().items() if value is not None}

    def refuse_for_files(self) -> None:
        """Refuse what has no meaning for files.

        Raises:
            UsageError: it is given.
        """
        for name in self.given():
            raise UsageError(f"{option(name)} is for live video (rtsp://…, /dev/videoN, -); leave it out for files")


live_options = grouped(
    "live",
    LiveChoice,
    click.option(
        "--on-late",
        type=click.Choice(get_args(OnLate)),
        help="Live: drop windows that the engine is too slow for, or let the source wait.  [default: drop for rtsp, "
        "rtsps, udp and devices, else wait]",
    ),
    click.option("--timeout", type=float, metavar="SECONDS", help="Live: longest time without data.  [default: 10]"),
    click.option(
        "--reconnect",
        type=float,
        metavar="SECONDS",
        help="Live: how long to try to reach a lost server or camera again; 0: never.  [default: 60]",
    ),
)


def live_source(videos: tuple[Path | str, ...]) -> str | None:
    """Return the live video among what the user named, if there is any.

    Raises:
        UsageError: there is something else besides.
    """
    found = [video for video in videos if isinstance(video, str)]
    if not found:
        return None
    if len(videos) > 1:
        raise UsageError(f"{found[0]} is live video, which is predicted alone; start another process for the others")
    return found[0]
