"""A comparison of two runs as text and as a page."""

from __future__ import annotations

from vivit_export.printing import one_line
from vivit_export.report.compare import Comparison, Group
from vivit_export.report.html import rendered

_WIDTH = 10


def comparison_text(found: Comparison) -> str:
    """Return the output of ``vivit check A --compare B``."""
    lines = [
        f"{found.model}: {found.before} and {found.after}",
        f"verdict    {found.verdict_before.word} and {found.verdict_after.word}: {found.verdict_after.reason}",
    ]
    for group in found.groups:
        title = group.title if len(group.title) <= _WIDTH else f"{group.title}:"
        lines += [f"{'' if i else title:<{_WIDTH}} {line}" for i, line in enumerate(_group_lines(group))]
    for i, change in enumerate(found.labels):
        words = f"{change.clip}: {change.before} became {change.after}; the reference says {change.reference}"
        lines.append(f"{'' if i else 'clips':<10} {words}")
    lines += [f"note       {note}" for note in found.notes]
    return "\n".join(map(one_line, lines))


def comparison_html(found: Comparison) -> str:
    """Return the same as a self-contained page.

    Raises:
        MissingDependencyError: the package jinja2 is not installed.
    """
    return rendered("compare.html.j2", found=found)


def _group_lines(group: Group) -> list[str]:
    lines = []
    for row in group.rows:
        value = f"{row.before} became {row.after}" if row.differs else row.after
        lines.append(f"{row.name}: {value}{f' ({row.change})' if row.change else ''}")
    return [*lines, *([f"{group.same} the same"] if group.same and not group.rows else [])]
