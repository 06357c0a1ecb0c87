"""A progress that keeps what it is told."""

from __future__ import annotations

from vivit_export.progress import Silent


class Noted(Silent):
    """Keeps notes and details.

    Attributes:
        notes: what was said to people, in order.
        details: what is said with ``--verbose`` only.
    """

    def __init__(self) -> None:
        super().__init__()
        self.notes: list[str] = []
        self.details: list[str] = []

    def note(self, text: str) -> None:
        self.notes.append(text)

    def detail(self, text: str) -> None:
        self.details.append(text)
