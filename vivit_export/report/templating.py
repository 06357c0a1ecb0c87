"""Pages from the templates beside this module. All that they are given is escaped."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

from vivit_export.packages import naming_the_extra
from vivit_export.report.glossary import TERMS

if TYPE_CHECKING:
    from jinja2 import Environment

_FOLDER = Path(__file__).parent / "templates"


def render(template: str, values: Mapping[str, object]) -> str:
    """Return a page, without scripts and external resources.

    Args:
        template: name of a file in ``templates/``.
        values: what it shows.

    Raises:
        MissingDependencyError: the package jinja2 is not installed.
    """
    used: dict[str, str] = {}

    def explain(term: str) -> str:
        """Note that a term is used; return the id of its explanation, or nothing for what is not a term."""
        if term in TERMS:
            used[term] = TERMS[term]
            return f"term-{term.replace(' ', '-')}"
        return ""

    style = (_FOLDER / "style.css").read_text(encoding="utf-8") + _tips()
    digest = base64.b64encode(hashlib.sha256(style.encode("utf-8")).digest()).decode("ascii")
    return (
        _environment().get_template(template).render(**values, explain=explain, used=used, style=style, digest=digest)
    )


@cache
def _environment() -> Environment:
    with naming_the_extra():
        from jinja2 import Environment, FileSystemLoader, StrictUndefined
    return Environment(
        loader=FileSystemLoader(_FOLDER),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )


@cache
def _tips() -> str:
    """Return the rules that show what a term means while the pointer is on it."""
    ids = [f"term-{term.replace(' ', '-')}" for term in TERMS]
    rules = (f"body:has([popovertarget={name}]:is(:hover, :focus-visible)) #{name}" for name in ids)
    return "@media not print { " + ",\n".join(rules) + " { display: block } }\n"
