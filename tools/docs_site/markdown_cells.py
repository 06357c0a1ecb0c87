"""Text as a page of the site shows it."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence


def plain(text: str) -> str:
    """Return text of which Markdown shows every character: what it would take for marks is named by number."""
    return re.sub(r"[\\`*_{}\[\]#<>|]", lambda found: f"&#{ord(found[0])};", text)


def code(text: str) -> str:
    """Return text as code, also within a table."""
    fence = "``" if "`" in text else "`"
    return f"{fence}{text}{fence}".replace("|", "\\|")


def with_code(text: str) -> str:
    """Return text whose parts between backticks are code, and all others plain."""
    parts = text.split("`")
    return "".join(code(part) if i % 2 else plain(part) for i, part in enumerate(parts))


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Return a table."""
    lines = [head, ["---"] * len(head), *rows]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)
