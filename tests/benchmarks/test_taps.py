"""The budgets of taps follow from what ``benchmarks/taps.py`` measured."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from vivit_export.precision import Precision

RESULTS = Path(__file__).parents[2] / "benchmarks/results/taps.json"
CHECKS: dict[str, dict[str, Any]] = json.loads(RESULTS.read_text(encoding="utf-8"))["checks"]


@pytest.mark.parametrize("precision", list(Precision))
def test_budgets_are_some_times_what_the_demo_has(precision: Precision) -> None:
    largest = CHECKS[f"demo {precision}"]["largest_error"]
    assert 4 * largest < precision.tap_error < 13 * largest
