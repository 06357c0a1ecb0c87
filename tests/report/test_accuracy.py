"""How often both models are right, in words."""

from __future__ import annotations

from dataclasses import replace

from made_records import drift_report

from vivit_export.bundle.accuracy import Accuracy, Share, compare_hits
from vivit_export.bundle.checks import Run
from vivit_export.report.accuracy import accuracy_lines

RIGHT = [True] * 90 + [False] * 10


def test_the_reference_comes_first_and_each_run_is_held_to_it() -> None:
    worse = [*[False] * 12, *RIGHT[12:99], True]
    runs = (compare_hits(0, RIGHT, RIGHT, [True] * 100), compare_hits(1, RIGHT, worse, [True] * 100))
    accuracy = Accuracy("labels.csv", 100, Share.of(90, 100), Share.of(100, 100), runs)
    report = replace(drift_report(Run("same", 1, True, None), Run("worse", 8, True, None)), accuracy=accuracy)
    assert accuracy_lines(report) == [
        "  accuracy   100 clips labelled by labels.csv, with 95 % confidence in brackets: eager fp32: "
        "top-1 90.0 % (82.6 to 94.5), top-5 100.0 % (96.3 to 100.0)",
        "             same, batch 1: top-1 90.0 % (82.6 to 94.5), top-5 100.0 % (96.3 to 100.0), "
        "right about the same clips",
        "             worse, batch 8: top-1 79.0 % (70.0 to 85.8), top-5 100.0 % (96.3 to 100.0); right about 1 clip "
        "that the reference misses, and wrong about 12 that it gets right: the difference is beyond chance "
        "(McNemar, p = 0.0034)",
    ]


def test_without_labels_nothing_is_said() -> None:
    assert accuracy_lines(drift_report()) == []
