"""Figures of a timing: speed as a ratio of one round, with its spread; what can be compared with."""

from __future__ import annotations

import numpy as np
import pytest

from vivit_export.bundle.bench import Machine
from vivit_export.runtime.bench.report import BenchReport, ContenderTimes, parse_kind


def test_speed_is_a_ratio_of_one_round_with_its_spread() -> None:
    base, ours = ContenderTimes("base"), ContenderTimes("ours")
    base.seconds, ours.seconds = {2: [1.0, 2.0, 3.0]}, {2: [0.5, 0.5, 1.0]}
    base.cpu_seconds = ours.cpu_seconds = {2: [1.0]}
    report = BenchReport((base, ours), 3, False, Machine("cpu", 2, 0.0, "Linux", "3.11"))
    figures = report.figures(ours, 2)
    ratios = [2.0, 4.0, 3.0]
    assert figures.speed == 3.0
    assert (figures.speed_low, figures.speed_high) == pytest.approx(np.percentile(ratios, [10, 90]))
    assert figures.clips_per_second == 4.0
    assert figures.p50_ms == 500.0


@pytest.mark.parametrize(
    ("kind", "expected"),
    [
        ("eager", ("eager", "fp32", False)),
        ("sdpa-fp16", ("sdpa", "fp16", False)),
        ("compile-bf16", ("sdpa", "bf16", True)),
    ],
)
def test_kinds(kind: str, expected: tuple[str, str, bool]) -> None:
    assert parse_kind(kind) == expected
