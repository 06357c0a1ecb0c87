"""Processor seconds of tests, with the processes that they end: a plug-in, see CONTRIBUTING.md.

Wall time says little on a busy machine, and nothing of what a child process does on the other core.
"""

from __future__ import annotations

import os
from collections import defaultdict
from collections.abc import Generator
from typing import Any

import pytest

_SHOWN = 40
_last = 0.0


def _now() -> float:
    times = os.times()
    return times.user + times.system + times.children_user + times.children_system


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport() -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Add what was used since the last report, which reports of other processes bring along."""
    global _last
    report, now = (yield), _now()
    vars(report)["cpu_seconds"] = now - _last
    _last = now
    return report


def pytest_collection_finish() -> None:
    """Begin to count after the imports."""
    global _last
    _last = _now()


def pytest_terminal_summary(terminalreporter: Any) -> None:
    """Rank files and tests; a fixture counts for the first test that asks for it."""
    tests, files = defaultdict[str, float](float), defaultdict[str, float](float)
    for reports in terminalreporter.stats.values():
        for report in reports:
            tests[getattr(report, "nodeid", "")] += getattr(report, "cpu_seconds", 0.0)
    for name, seconds in tests.items():
        files[name.partition("::")[0]] += seconds
    for title, ranking in (("files", files), ("tests", tests)):
        terminalreporter.section(f"{title}: {sum(ranking.values()):.0f} CPU seconds")
        for name, seconds in sorted(ranking.items(), key=lambda item: -item[1])[:_SHOWN]:
            terminalreporter.line(f"{seconds:8.2f} {name}")
