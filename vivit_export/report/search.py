"""How the precision of a bundle was chosen, for people."""

from __future__ import annotations

from vivit_export.bundle.search import PrecisionSearch, TriedPrecision
from vivit_export.errors import counted

COLUMNS = ("precision", "outcome", "drift", "ms per clip", "plan cost", "engine", "note")


def search_sentence(search: PrecisionSearch) -> str:
    """Return what was compared, and where."""
    if search.machine is None:
        return f"no engine runs here: plans rated at batch {search.batch} by a model of their cost, nothing was timed"
    rounds = counted(search.rounds, "rounds")
    return f"engines timed in turns on this machine ({search.machine.cpu}), batch {search.batch}, {rounds}"


def search_rows(search: PrecisionSearch) -> list[list[str]]:
    """Return a row of `COLUMNS` for each precision."""
    return [_row(one) for one in search.tried]


def search_text(search: PrecisionSearch) -> list[str]:
    """Return lines for a terminal."""
    lines = [f"{search.chosen.precision}, by --precision auto: {search_sentence(search)}"]
    for row in search_rows(search):
        precision, outcome, drift, ms, cost, engine, note = row
        figure = f"{ms} ms" if ms else f"cost {cost}" if cost else ""
        cells = [precision.ljust(5), outcome.ljust(15), drift.rjust(9), figure.rjust(11), engine, note]
        lines.append("  ".join(cells).rstrip())
    return lines


def _row(one: TriedPrecision) -> list[str]:
    return [
        str(one.precision),
        one.outcome,
        "" if one.drift is None else f"{100 * one.drift:.2g} %",
        "" if one.ms_per_clip is None else f"{one.ms_per_clip:.3g}",
        "" if one.plan_cost is None else f"{one.plan_cost:.2f}",
        one.engine,
        one.reason,
    ]
