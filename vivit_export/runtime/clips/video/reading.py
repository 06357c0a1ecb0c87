"""How videos are read: the choices that do not change a single bit of the frames."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from vivit_export.choices import Decode
from vivit_export.progress import Progress


def ignore(_path: Path, _reason: str) -> None:
    """Receive a remark that nobody asked for."""


def told_by(progress: Progress) -> Callable[[Path, str], None]:
    """Make a ``note`` that shows its remarks among the details of progress."""
    return lambda path, why: progress.detail(f"{path} is decoded in full: {why}")


@dataclass(frozen=True, slots=True)
class Reading:
    """How much of a video is decoded, and who hears about it.

    Attributes:
        decode: ``auto``: only what the wanted frames need, wherever that is certain to give the same bits; ``full``:
            the whole video, so that damage between the wanted frames is noticed too.
        threads: of the decoder of each video; 0: as many as there are cores.
        note: with ``auto``, receives each video that was decoded in full, and why.
    """

    decode: Decode = "auto"
    threads: int = 0
    note: Callable[[Path, str], None] = ignore


AS_NEEDED = Reading()
"""Decode what is needed, and tell nobody."""
