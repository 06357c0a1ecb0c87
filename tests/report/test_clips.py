"""The clips of a check as text: short where nothing flipped, a table where something did."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import numpy.typing as npt

from vivit_export.bundle.checks import CheckedClips, DriftReport, Gate, Run
from vivit_export.report.clips import clip_lines
from vivit_export.runtime.drift.clip_view import ClipTally
from vivit_export.runtime.drift.metrics import compare

LOGITS = np.array([[2.0, 2.1, 0.0], [0.0, 6.0, 1.0], [10.0, 1.0, 0.5]], np.float32)
LABELS = ("walk", "run", "jump")


def report_of(
    logits: npt.NDArray[np.float32], *results: npt.NDArray[np.float32], names: tuple[str, ...] = ()
) -> DriftReport:
    """The first result is one that is not gated."""
    tally, runs = ClipTally({"logits": logits}, 0.02, "single_label_classification", LABELS), []
    for i, result in enumerate(results):
        out = {"logits": result}
        runs.append(Run(f"run {i}", 1, i > 0, compare({"logits": logits}, out, 0.02)))
        tally.add(runs[-1], np.arange(len(logits)), out)
    clips = CheckedClips("mine", names or tuple(f"{i}.mp4" for i in range(len(logits))))
    return DriftReport("eager fp32", clips, Gate({"max": 0.01}), tuple(runs), view=tally.view(clips, runs))


def test_without_a_flip_two_lines_are_enough() -> None:
    result = LOGITS.copy()
    result[2, 0] += np.float32(0.03125)
    assert clip_lines(report_of(LOGITS, LOGITS, result)) == [
        "  clips      no flip in 3 clips, drift at most 0.31 % of the range",
        "             2.mp4: drift 0.31 % of the range; margin 90 %; walk 100.0 %",
    ]


def test_a_flip_is_told_with_its_margin_both_classes_and_where() -> None:
    result = LOGITS.copy()
    result[0], result[1] = (2.1, 2.0, 0.0), (3.0, 2.0, 1.0)
    assert clip_lines(report_of(LOGITS, np.stack([result[0], *LOGITS[1:]]), result))[:4] == [
        "  clips      1 clear flip and 1 near flip in 3 clips, drift at most 40 % of the range",
        "             1.mp4: clear flip, drift 40 % of the range; margin 50 %; run 99.1 % became walk 66.5 %; "
        "run 1, batch 1",
        "             0.mp4: near flip, drift 1 % of the range; margin 1 % (near a tie); run 49.3 % became walk "
        "49.3 %; run 1, batch 1; flips in run 0 too",
        "             2.mp4: drift 0 % of the range; margin 90 %; walk 100.0 %",
    ]


def test_many_flips_are_a_table_of_eight_rows_that_says_what_it_leaves_out() -> None:
    logits = np.tile(LOGITS[1:], (100, 1))
    names = tuple(f"{'new' if i % 4 == 0 else 'old'}/{i}.mp4" for i in range(200))
    result = logits.copy()
    result[::4] = (3.0, 2.0, 1.0)
    found = clip_lines(report_of(logits, logits, result, names=names))
    assert sum(": clear flip, " in line for line in found) == 8
    assert found[9] == "             and 42 more with a flip; --json names 50 clips"
    assert "             flips by folder: new 50 of 50, old 0 of 150" in found
    assert "             flips by class: run 50 of 100, walk 0 of 100" in found


def test_flips_of_clips_that_are_not_listed_count_too() -> None:
    found = report_of(LOGITS, LOGITS, LOGITS[::-1].copy())
    assert found.view is not None
    report = replace(found, view=replace(found.view, flips_left_out=70), clips=replace(found.clips, left_out=1_000))
    assert clip_lines(report)[0].startswith("  clips      72 flips in 1003 clips, drift at most 80 % of the range")


def test_names_of_others_cannot_break_a_line() -> None:
    found = clip_lines(report_of(LOGITS[:2], LOGITS[:2], LOGITS[:2], names=("a\nb.mp4", "\x1b[31m.mp4")))
    assert len(found) == 2 and "\x1b" not in "".join(found) and "\n" not in "".join(found)


def test_a_report_without_clips_says_nothing() -> None:
    assert clip_lines(replace(report_of(LOGITS, LOGITS, LOGITS), view=None)) == []
