"""Tables of a page, whose every column says something."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import ClassVar

_EMPTY = {"", "–"}


@dataclass(frozen=True, slots=True)
class Table:
    """A table.

    Attributes:
        caption: what it shows.
        columns: titles.
        rows: cells, the first of which names the row.
    """

    caption: str
    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    texts: ClassVar[frozenset[str]] = frozenset({"note", "type"})
    """Columns of words, which begin at the left; figures end at the right."""


def table_of(caption: str, columns: Sequence[str], rows: Iterable[Sequence[str]]) -> Table | None:
    """Return a table without the columns that are empty in all rows; None if nothing is left."""
    rows = list(rows)
    used = [i for i in range(len(columns)) if any(row[i] not in _EMPTY for row in rows)]
    if not used:
        return None
    return Table(caption, tuple(columns[i] for i in used), tuple(tuple(row[i] for i in used) for row in rows))
