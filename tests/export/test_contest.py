"""Which bundle is the fastest, from measured times and from rated plans."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest
from bundles import Bundles, need

import vivit_export.export.contest as contest
from vivit_export.bundle.checks import CheckedClips, DriftReport, Gate, Run
from vivit_export.bundle.search import Order
from vivit_export.errors import EnvironmentFault
from vivit_export.export.contest import Contest, hold_contest, settle
from vivit_export.precision import Precision
from vivit_export.progress import Silent
from vivit_export.runtime.bench.report import BenchReport, ContenderTimes
from vivit_export.runtime.bench.run import this_machine
from vivit_export.runtime.drift.metrics import compare

FP16, INT8, FP32 = Precision.FP16, Precision.INT8, Precision.FP32


def check(size: float) -> DriftReport:
    """A check whose largest difference is ``size`` of the range."""
    logits = np.array([[0.0, 1.0, 0.3]], np.float32)
    off = logits + np.float32(size) * np.eye(3, dtype=np.float32)[2]
    ungated, drift = (compare({"logits": logits}, {"logits": other}) for other in (logits * 9, off))
    runs = (Run("eager", 1, False, ungated), Run("onnxruntime", 1, True, drift))
    return DriftReport("eager fp32", CheckedClips("none", ()), Gate({}), runs)


def held(results: Mapping[Precision, float], ordered_by: Order = "time", **failed: str) -> Contest:
    figures = {precision: ("engine", figure) for precision, figure in results.items()}
    return Contest(ordered_by, 1, 5, None, figures, {Precision(name): reason for name, reason in failed.items()})


def test_the_fastest_wins_and_the_others_say_by_how_much_they_lost() -> None:
    told = settle(held({INT8: 2.0, FP16: 3.0, FP32: 8.0}), {INT8: check(0.02), FP16: check(1e-3), FP32: check(0)})
    assert [one.outcome for one in told] == ["chosen", "slower", "slower"]
    assert told[0].drift == pytest.approx(0.02, rel=1e-3) and told[0].ms_per_clip == 2.0
    assert [one.reason for one in told] == ["", "takes 1.50 times as long as int8", "takes 4.00 times as long as int8"]


def test_of_equals_the_one_that_drifts_least_wins() -> None:
    told = settle(held({INT8: 2.0, FP16: 2.08, FP32: 2.2}), {INT8: check(0.02), FP16: check(1e-3), FP32: check(0)})
    assert [one.outcome for one in told] == ["slower", "chosen", "slower"]
    assert told[0].reason == "as fast as fp16 (0.96 times its time), and drifts more"
    assert told[2].reason == "takes 1.06 times as long as fp16"


def test_plans_are_told_relative_to_the_cheapest() -> None:
    told = settle(held({INT8: 2e-3, FP16: 3e-3}, "plan", fp32="no plan"), dict.fromkeys((INT8, FP16, FP32), check(0)))
    assert [(one.plan_cost, one.ms_per_clip) for one in told] == [(1.0, None), (1.5, None), (None, None)]
    assert told[1].reason == "its plan is rated at 1.50 times as long as int8"
    assert (told[2].outcome, told[2].reason) == ("impossible", "no plan")


def report(times: Mapping[str, list[float]], *, interrupted: bool = False) -> BenchReport:
    contenders = []
    for name, seconds in times.items():
        one = ContenderTimes(name, seconds={1: seconds} if seconds else {}, cpu_seconds={1: seconds} if seconds else {})
        one.error = "" if seconds else "it does not run"
        contenders.append(one)
    return BenchReport(tuple(contenders), 2, interrupted, this_machine())


def test_each_precision_has_the_time_of_its_fastest_engine(bundles: Bundles, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: dict[str, Any] = {}
    times = {
        "int8 onnxruntime-cpu": [0.004, 0.004],
        "int8 openvino": [0.003, 0.003],
        "fp16 onnxruntime-cpu": [0.005, 0.005],
        "fp16 openvino": [],
        "fp32 onnxruntime-cpu": [],
    }

    def turns(commands: Mapping[str, object], **options: Any) -> BenchReport:
        asked.update(options, names=list(commands))
        return report(times)

    monkeypatch.setattr(contest, "take_turns", turns)
    demo = bundles.demo()
    found = hold_contest({INT8: demo, FP16: demo, FP32: demo}, Silent())
    fastest = {precision: (engine, round(ms, 6)) for precision, (engine, ms) in found.results.items()}
    assert fastest == {INT8: ("openvino", 3.0), FP16: ("onnxruntime-cpu", 5.0)}
    assert found.failed == {FP32: "it does not run"}
    assert asked["batches"] == (1,) and asked["rounds"] == 20 == found.rounds
    assert {name.split()[1] for name in asked["names"]} == {"onnxruntime-cuda", "onnxruntime-cpu", "openvino"}
    monkeypatch.setattr(contest, "take_turns", lambda *_, **__: report(times, interrupted=True))
    with pytest.raises(KeyboardInterrupt):
        hold_contest({INT8: demo}, Silent())


def test_where_nothing_runs_and_no_engine_was_compiled_there_is_no_choice(
    bundles: Bundles, monkeypatch: pytest.MonkeyPatch
) -> None:
    def turns(*_: object, **__: object) -> BenchReport:
        raise EnvironmentFault("nothing could be timed here")

    monkeypatch.setattr(contest, "take_turns", turns)
    with pytest.raises(EnvironmentFault, match="nothing could be timed here"):
        hold_contest({FP32: bundles.demo()}, Silent())


@pytest.mark.needs_rtx
def test_engines_that_cannot_run_here_are_rated_by_their_plans(bundles: Bundles) -> None:
    """A compiled fp32 plan multiplies without tensor cores, and stores the scores of attention."""
    need("onnxruntime")
    options: dict[str, Any] = {"targets": ("tensorrt-rtx",), "sms": (89,), "attention": "pattern"}
    made = {precision: bundles.demo(precision=str(precision), **options) for precision in (FP32, FP16)}
    found = hold_contest(made, Silent())
    assert found.ordered_by == "plan" and found.batch == 4 and found.machine is None
    assert found.results[FP16][0] == "tensorrt-rtx-sm89"
    assert 3 < found.results[FP32][1] / found.results[FP16][1] < 10
