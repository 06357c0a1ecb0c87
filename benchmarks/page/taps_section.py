"""The performance page's section on the taps of ``vivit check --per-block``."""

from __future__ import annotations

from typing import Any

from markdown_table import megabytes, table
from page_of_results import machine

from vivit_export.precision import Precision


def taps_section(content: dict[str, Any]) -> str:
    """Write the largest error at any tap of each checkpoint and precision, and what the check takes."""
    rows = []
    for name, told in content["checks"].items():
        precision = Precision(name.rpartition(" ")[2])
        worst = max(told["taps"], key=lambda tap: _error(told["taps"][tap]))
        cells = (told["clips"], f"{told['largest_error']:.1e}", worst, f"{precision.tap_error:g}")
        rows.append((name, *cells, f"{told['seconds']:.0f}", megabytes(told["peak_bytes"])))
    columns = ("bundle", "clips", "largest error", "at", "budget", "s", "peak MB")
    words = (
        "Relative error (RMS of the difference over RMS of the reference) at the taps of `vivit check --per-block`, of "
        "the type and of the graph, whichever is larger. The budgets follow from those of the demo. Seconds and memory "
        "are those of the whole command."
    )
    return "\n\n".join((words, table(columns, rows), *_elsewhere(content)))


def _elsewhere(content: dict[str, Any]) -> list[str]:
    """Say where the checks were measured that another command than the last has."""
    others: dict[str, tuple[list[str], dict[str, Any]]] = {}
    for name, told in content["checks"].items():
        around = told["environment"]
        if around["command"] != content["environment"]["command"]:
            others.setdefault(around["command"], ([], around))[0].append(name)
    return [f"{', '.join(names)}: {machine(around)}." for names, around in others.values()]


def _error(tap: dict[str, Any]) -> float:
    return max(float(tap["precision"] or 0), float(tap["graph"]))
