"""What the sections of the performance page are made of."""

from __future__ import annotations

from collections.abc import Iterable, Sequence


def table(columns: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    """A Markdown table."""
    lines = [columns, ["---"] * len(columns), *rows]
    return "\n".join(f"| {' | '.join(map(str, line))} |" for line in lines)


def megabytes(size: float) -> str:
    """Bytes as MB, without decimals."""
    return f"{size / 1e6:.0f}"
