"""Text of others on a terminal: file names, labels and messages may hold sequences that move the cursor or lie."""

from __future__ import annotations

import html
import json
import re
import unicodedata
from collections.abc import Iterable, Sequence

_LONGEST_LINE = 4000
_HIDDEN = {"Cc", "Cf", "Cs", "Co", "Zl", "Zp"}  # controls, directions, halves of pairs, private use, line breaks
_JOINERS = "\u200c\u200d"  # invisible, but Persian, Hindi and some emoji are written with them


def one_line(text: str) -> str:
    r"""Return text as one line that a terminal only shows: ``\x1b`` in place of an escape character, and so on."""
    shown = "".join(map(_shown, text)) if not (text.isascii() and text.isprintable()) else text
    return shown if len(shown) <= _LONGEST_LINE else f"{shown[:_LONGEST_LINE]}…"


def lines(text: str) -> str:
    """Return text of several lines that a terminal only shows."""
    return "\n".join(map(one_line, text.split("\n")))


def code_span(text: str) -> str:
    """Return text of others as a code span of Markdown on one line; backticks in it do not end the span."""
    line = one_line(text)
    if not line.strip():
        return "–"
    longest = max((len(run) for run in re.findall("`+", line)), default=0)
    fence = "`" * (1 + longest)
    edge = " " if longest else ""
    return f"{fence}{edge}{line}{edge}{fence}"


def html_table(head: Sequence[str], rows: Iterable[Sequence[str]], caption: str) -> str:
    """Return a table for notebooks; every text is shown as it is, whatever it holds."""
    tags = [(head, "th"), *((row, "td") for row in rows)]
    lines = ["".join(f"<{tag}>{html.escape(one_line(text))}</{tag}>" for text in row) for row, tag in tags]
    body = "".join(f"<tr>{line}</tr>" for line in lines)
    return f"<table><caption>{html.escape(one_line(caption))}</caption>{body}</table>"


def toml_value(value: object) -> str:
    """Return text, a number, a truth value or a list of them as TOML, which spells them as JSON does, but for DEL."""
    return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")


def _shown(character: str) -> str:
    if unicodedata.category(character) not in _HIDDEN or character in _JOINERS:
        return character
    return character.encode("unicode_escape").decode("ascii")
