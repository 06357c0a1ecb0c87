"""The taps of a check as text: a table from the embeddings to the logits, and what to do about the first suspect."""

from __future__ import annotations

from vivit_export.bundle.manifest import PrecisionRecord
from vivit_export.bundle.taps import Suspect, Tap, TapError, TapReport
from vivit_export.errors import counted

_SHOWN_NODES = 6


def taps_lines(report: TapReport) -> list[str]:
    """Return the lines that ``vivit check --per-block`` adds."""
    rounds = report.taps[0].precision is not None
    head = ["tap", f"eager {report.base}", "graph", "total", "cosine"] if rounds else ["tap", "graph", "cosine"]
    table = [head, *(_row(tap, rounds=rounds) for tap in report.taps)]
    widths = [max(len(row[i]) for row in table) for i in range(len(head))]
    lines = ["  ".join([row[0].ljust(widths[0]), *map(str.rjust, row[1:], widths[1:])]).rstrip() for row in table]
    if rounds:
        lines.append(
            f"eager {report.base}: from eager fp32; graph: from eager {report.base} ({report.graph}); "
            "total: graph from eager fp32"
        )
    else:
        lines.append(f"graph: from eager fp32 ({report.graph})")
    lines.append("relative RMS error, the worst of the clips; * is beyond its budget")
    return [*lines, *(_suspect_lines(report) if report.suspect else ["no tap is beyond its budget"])]


def kept_text(precision: PrecisionRecord) -> str:
    """Return what was kept in float32 at the user's request: the modules, and how many nodes."""
    paths = list(dict.fromkeys(node.rpartition("/")[0] or node for node in precision.kept_float32))
    more = f" and {len(paths) - _SHOWN_NODES} more" if len(paths) > _SHOWN_NODES else ""
    return f"in fp32: {', '.join(paths[:_SHOWN_NODES])}{more} ({counted(len(precision.kept_float32), 'nodes')})"


def suspect_sentence(report: TapReport) -> str:
    """Return which tap is the first beyond its budget and why, in a sentence without its full stop; empty: none."""
    suspect = report.suspect
    if suspect is None:
        return ""
    tap = next(tap for tap in report.taps if tap.name == suspect.tap)
    found = tap.precision if suspect.cause == "precision" else tap.graph
    assert found is not None
    start = f"drift begins in {suspect.tap}"
    within = f" ({suspect.after} is within its budget)" if suspect.after else ""
    size = f"{'values that are ' if found.error is None else ''}{_error(found)}, where {found.budget:g} is allowed"
    if suspect.cause == "precision":
        return f"{start}{within}: eager {report.base} is off by {size}, so the type is the cause"
    other = "eager fp32" if tap.precision is None else f"eager {report.base}"
    return f"{start}{within}: the graph is off from {other} by {size}, so the graph is the cause"


def _suspect_lines(report: TapReport) -> list[str]:
    suspect = report.suspect
    assert suspect is not None
    names = [*suspect.nodes[:_SHOWN_NODES]]
    more = f" and {len(suspect.nodes) - len(names)} more" if len(suspect.nodes) > len(names) else ""
    lines = [suspect_sentence(report), f"between: {counted(len(suspect.nodes), 'nodes')}, {', '.join(names)}{more}"]
    return [*lines, f"to do: {advice(suspect)}"]


def advice(suspect: Suspect) -> str:
    """Return what to do about the first tap beyond its budget, without a full stop."""
    if suspect.option is None:
        return "nothing is wider than fp32: export the bundle again, and report it if the error stays"
    flag = f"--{suspect.option.replace('_', '-')}"
    return f"export again with {flag} '{suspect.pattern}', or with --fix, which finds the fewest"


def _row(tap: Tap, *, rounds: bool) -> list[str]:
    errors = [tap.precision, tap.graph, tap.total] if rounds else [tap.graph]
    cosine = tap.total.cosine
    return [
        tap.name,
        *(f"{_error(error)}{'*' if error.beyond else ' '}" for error in errors if error is not None),
        "–" if cosine is None else f"{cosine:.7f}",
    ]


def _error(found: TapError) -> str:
    return "not finite" if found.error is None else f"{found.error:.1e}"
