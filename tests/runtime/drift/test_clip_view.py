"""The clips of a check one by one: which are shown, in what order, and what a reader learns of each."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from vivit_export.bundle.checks import CheckedClips, Run
from vivit_export.bundle.clip_view import ClipView
from vivit_export.contract import Task
from vivit_export.records import from_json, to_json
from vivit_export.runtime.drift.clip_view import ClipTally
from vivit_export.runtime.drift.metrics import compare
from vivit_export.runtime.drift.truth import Truth

SINGLE: Task = "single_label_classification"
MULTI: Task = "multi_label_classification"
# The range is 10: clip 0 is a tie (0.01 of the range), clip 1 is clear (0.5), clip 2 very clear (0.9).
LOGITS = np.array([[2.0, 2.1, 0.0], [0.0, 6.0, 1.0], [10.0, 1.0, 0.5]], np.float32)
LABELS = ("walk", "run", "jump")
CLIPS = CheckedClips("mine", ("a/tie.mp4", "a/clear.mp4", "b/sure.mp4"))


def view_of(
    *results: npt.NDArray[Any], task: Task = SINGLE, gated: tuple[bool, ...] = (), logits: Any = LOGITS
) -> ClipView:
    tally = ClipTally({"logits": logits}, 0.02, task, LABELS)
    runs = []
    for i, result in enumerate(results):
        out = {"logits": result.astype(np.float32)}
        runs.append(Run(f"run {i}", 1, gated[i] if gated else True, compare({"logits": logits}, out, 0.02, task)))
        tally.add(runs[-1], np.arange(len(logits)), out)
    found = tally.view(CLIPS, runs)
    assert found is not None
    return found


def changed(clip: int, *logits: float) -> npt.NDArray[Any]:
    result = LOGITS.copy()
    result[clip] = logits
    return result


def test_a_coin_toss_and_a_regression_are_told_apart() -> None:
    result = LOGITS.copy()
    result[0], result[1] = (2.1, 2.0, 0.0), (3.0, 2.0, 1.0)
    view = view_of(result)
    assert [(clip.name, clip.flip) for clip in view.clips] == [
        ("a/clear.mp4", "clear"),
        ("a/tie.mp4", "near"),
        ("b/sure.mp4", "none"),
    ]
    assert view.flips == ("near", "clear", "none") and view.flips_left_out == 0
    assert view.margins == pytest.approx((0.01, 0.5, 0.9)) and view.tie_margin == 0.02
    assert view.drift == pytest.approx((0.01, 0.4, 0.0))


def test_both_lists_of_labels_are_those_of_the_softmax() -> None:
    (first, *_) = view_of(changed(1, 3.0, 2.0, 1.0)).clips
    assert [score.label for score in first.reference] == ["run", "jump", "walk"]
    assert [score.label for score in first.ours] == ["walk", "run", "jump"]
    expected = np.exp([3.0, 2.0, 1.0]) / np.exp([3.0, 2.0, 1.0]).sum()
    assert [score.probability for score in first.ours] == pytest.approx(expected)
    assert [score.logit for score in first.ours] == [3.0, 2.0, 1.0]
    assert first.max_abs == 4.0 and first.max == pytest.approx(0.4)
    p, q = np.exp([0, 6, 1]) / np.exp([0, 6, 1]).sum(), expected
    assert first.kl == pytest.approx(float((p * np.log(p / q)).sum()))


def test_a_clip_counts_with_its_worst_gated_run_and_names_all_that_flip_it() -> None:
    flipped, worse = changed(1, 3.0, 2.0, 1.0), changed(1, 9.0, 0.0, 0.0)
    view = view_of(worse, LOGITS, flipped, gated=(False, True, True))
    assert (view.clips[0].name, view.clips[0].run, view.clips[0].flips_in) == ("a/clear.mp4", 2, (0, 2))
    # A flip is worse than a larger difference that changes no decision.
    view = view_of(changed(1, -4.0, 12.0, -4.0), flipped)
    assert (view.clips[0].run, view.clips[0].flip) == (1, "clear")


def test_a_batch_that_repeats_clips_counts_each_once_with_its_worst() -> None:
    tally = ClipTally({"logits": LOGITS}, 0.02, SINGLE, LABELS)
    run = Run("made up", 5, True, None)
    result = np.concatenate([LOGITS, LOGITS[:1] + 1])
    tally.add(run, np.array([0, 1, 2, 0]), {"logits": result})
    view = tally.view(CLIPS, [run])
    assert view is not None and view.drift == pytest.approx((0.1, 0.0, 0.0))


def test_values_that_are_no_numbers_come_first_and_survive_json() -> None:
    view = view_of(changed(2, np.nan, np.inf, 0.0))
    assert view.clips[0].name == "b/sure.mp4" and view.clips[0].nonfinite == 2
    assert view.drift[2] is None and view.clips[0].max is None
    assert from_json(ClipView, to_json(view), "view") == view


def test_labels_that_changed_sides_are_named_and_judged_by_the_clearest() -> None:
    logits = np.array([[5.0, -5.0, 0.05], [3.0, -0.02, -4.0], [1.0, 1.0, 1.0]], np.float32)
    result = logits.copy()
    result[0], result[1] = (5.0, 2.0, -0.05), (3.0, 0.02, -4.0)
    view = view_of(result, task=MULTI, logits=logits)
    assert [(clip.flip, clip.changed) for clip in view.clips] == [
        ("clear", ("run", "jump")),
        ("near", ("run",)),
        ("none", ()),
    ]
    assert view.margins == pytest.approx((1.0, 0.004, 0.2))  # twice 5, 0.02 and 1, of a range of 10
    assert view.clips[0].reference[0].probability == pytest.approx(1 / (1 + np.exp(-5.0)))


def test_a_regression_has_values_and_no_flips() -> None:
    logits = np.array([[1.0], [2.0], [5.0]], np.float32)
    view = view_of(logits + np.array([[0.0], [0.4], [0.0]]), task="regression", logits=logits)
    assert set(view.flips) == {"none"} and set(view.margins) == {None}
    assert view.clips[0].name == "a/clear.mp4" and view.clips[0].max_abs == pytest.approx(0.4)
    assert view.clips[0].ours[0].probability is None


def test_without_logits_the_embedding_is_compared() -> None:
    embedding = np.array([[1.0, 0.0], [0.0, 1.0], [1.0, 1.0]], np.float32)
    tally = ClipTally({"embedding": embedding}, 0.02, SINGLE)
    run = Run("made up", 1, True, None)
    tally.add(run, np.arange(3), {"embedding": np.array([[1, 0], [0, 1], [1, 0]], np.float32)})
    view = tally.view(CLIPS, [run])
    assert view is not None and (view.measure, view.clips[0].name) == ("embedding", "b/sure.mp4")
    assert view.drift == pytest.approx((0.0, 0.0, 1 - 0.5**0.5))
    assert view.clips[0].reference == () and view.clips[0].margin is None


def test_500_clips_with_flips_stay_under_control() -> None:
    rng = np.random.default_rng(0)
    logits = rng.normal(size=(500, 400)).astype(np.float32)
    tally = ClipTally({"logits": logits}, 0.02, SINGLE)
    run = Run("made up", 1, True, None)
    tally.add(run, np.arange(500), {"logits": rng.normal(size=(500, 400)).astype(np.float32)})
    view = tally.view(CheckedClips("mine", tuple(f"{i}.mp4" for i in range(500))), [run])
    assert view is not None
    flips = sum(flip != "none" for flip in view.flips)
    assert len(view.clips) == 120 and view.flips_left_out == flips - 120
    assert [clip.flip for clip in view.clips] == sorted(clip.flip for clip in view.clips)  # clear before near
    assert all(len(strata.groups) <= 12 for strata in view.strata)
    classes = next(strata for strata in view.strata if strata.by == "class")
    assert classes.left_out + 12 == len(set(logits.argmax(1)))


def test_nothing_gated_gives_no_view() -> None:
    tally = ClipTally({"logits": LOGITS}, 0.02, SINGLE, LABELS)
    run = Run("eager fp16", 1, False, None)
    tally.add(run, np.arange(3), {"logits": LOGITS})
    assert tally.view(CLIPS, [run]) is None


def test_known_labels_tell_which_of_two_models_is_right() -> None:
    """The reference is right about clips 0 and 2; the run changes 0 to what is wrong, and 1 to what is right."""
    tally = ClipTally({"logits": LOGITS}, 0.02, SINGLE, LABELS, Truth("labels.csv", (1, 0, 0)))
    result = LOGITS.copy()
    result[0], result[1] = (2.1, 2.0, 0.0), (3.0, 2.0, 1.0)
    rows = np.array([0, 1, 2, 0])
    assert tally.accuracy_drop(rows, {"logits": result[rows]}) == 0.0
    run = Run("made up", 4, True, None)
    tally.add(run, rows, {"logits": result[rows]})
    accuracy, view = tally.accuracy([run]), tally.view(CLIPS, [run])
    assert accuracy is not None and view is not None
    assert (accuracy.clips, accuracy.top1.share, accuracy.top5.share) == (3, 2 / 3, 1.0)
    (found,) = accuracy.runs
    assert (found.only_reference, found.only_ours, found.p_value) == (1, 1, 1.0)
    assert [clip.truth for clip in view.clips] == ["walk", "run", "walk"]


def test_what_is_no_number_is_not_right_and_a_repeated_clip_must_be_right_each_time() -> None:
    tally = ClipTally({"logits": LOGITS}, 0.02, SINGLE, LABELS, Truth("labels.csv", (1, 1, 0)))
    broken = np.concatenate([LOGITS, LOGITS[1:2]])
    broken[2], broken[3] = np.nan, (9.0, 0.0, 0.0)
    assert tally.accuracy_drop(np.array([0, 1, 2, 1]), {"logits": broken}) == pytest.approx(2 / 3)
