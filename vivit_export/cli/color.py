"""Color for results on a terminal: verdicts, and the first column of what is printed. In a pipe, text stays plain."""

from __future__ import annotations

import os
import re
import sys

import click

_FIRST_COLUMN = re.compile(r"^( {0,2})(\S(?:\S| (?! ))*)(?= {2,}\S)")
_WORDS = {
    "green": re.compile(r"\b(?:passed|PASS|chosen)\b"),
    "red": re.compile(r"\b(?:FAILED|FAIL|beyond the gate)\b"),
    "yellow": re.compile(r"\b(?:not checked|left out|partial)\b"),
}


def is_plain() -> bool:
    """Return whether stdout takes text alone: it is not a terminal, or its user wants none (https://no-color.org)."""
    return "NO_COLOR" in os.environ or os.environ.get("TERM") == "dumb" or not sys.stdout.isatty()


def colored(text: str) -> str:
    """Return lines for people with their colors, for a terminal."""
    first, *rest = text.split("\n")
    title = _FIRST_COLUMN.sub(lambda found: found[1] + click.style(found[2], bold=True), first)
    return "\n".join([_verdicts(title), *(_verdicts(_FIRST_COLUMN.sub(_key, line)) for line in rest)])


def _key(found: re.Match[str]) -> str:
    return found[1] + click.style(found[2], fg="cyan")


def _verdicts(line: str) -> str:
    for color, words in _WORDS.items():
        line = words.sub(lambda found, color=color: click.style(found[0], fg=color, bold=True), line)  # type: ignore[misc]
    return line
