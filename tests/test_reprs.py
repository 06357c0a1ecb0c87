"""How objects show themselves: in a line, or in a notebook as a page or a table; never as the markup of others."""

from __future__ import annotations

import html
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from bundles import Bundles, need
from made_bundle import make_bundle

import vivit_export as ve
from vivit_export.bundle import read_bundle
from vivit_export.bundle.bench import Machine
from vivit_export.bundle.checks import CheckedClips, Drift, DriftReport, Gate, Run
from vivit_export.bundle.manifest import ClipsRecord
from vivit_export.calibration.ranges import LayerRange, Ranges
from vivit_export.precision import Precision
from vivit_export.runtime.bench.report import BenchReport, ContenderTimes
from vivit_export.runtime.predict import VideoPrediction
from vivit_export.runtime.session.prediction import Prediction
from vivit_export.runtime.stream import StreamPrediction

LABELS = ("up", "<b>left</b>", "down\x1b[1m", "right")
LOGITS = np.array([4.0, 2.0, 0.0, 0.0], np.float32)
CLEAN = Drift(8, 1.0, 1.0, 0, 0, 0.01, 0.000277, 0.001, 0.0, 0.9999999, None, 0)


def prediction() -> Prediction:
    return Prediction(LOGITS, None, LABELS)


def one_layer() -> LayerRange:
    return LayerRange(amax=1.0, largest=1.0, exponents=(), alpha=0.0, error=0.0)


def drift_report(limit: float) -> DriftReport:
    names = tuple(f"{i}.mp4" for i in range(8))
    runs = (Run("<i>cpu</i>", 1, True, CLEAN), Run("none", 4, False, None, "left & out"))
    return DriftReport("eager fp32", CheckedClips("clips", names), Gate({"max": limit}), runs)


@pytest.mark.parametrize(
    ("shown", "expected"),
    [
        (prediction(), r"<Prediction: up 85.3 %, <b>left</b> 11.5 %, down\x1b[1m 1.6 %, 1 more>"),
        (replace(prediction(), task="regression"), r"<Prediction: up 4, <b>left</b> 2, down\x1b[1m 0, 1 more>"),
        (replace(prediction(), logits=LOGITS[:2], labels=LABELS[:2]), "<Prediction: up 88.1 %, <b>left</b> 11.9 %>"),
        (Prediction(None, np.zeros(128, np.float32), ()), "<Prediction: an embedding of 128 numbers>"),
        (
            VideoPrediction(Path("a/up.mp4"), prediction(), (0.0, 1.5)),
            r"<VideoPrediction: up.mp4 0.00 s to 1.50 s, up 85.3 %, <b>left</b> 11.5 %, down\x1b[1m 1.6 %, 1 more>",
        ),
        (
            StreamPrediction("rtsp://camera", prediction(), (0.0, 1.0), 0.0123),
            "<StreamPrediction: 0.00 s to 1.00 s, up 85.3 %, 3 more, 12 ms after its last frame>",
        ),
        (drift_report(0.01), "<DriftReport: passed, 1 run on 8 clips, largest difference 0.028 % of the range>"),
        (drift_report(0.0001), "<DriftReport: FAILED, 1 run on 8 clips, largest difference 0.028 % of the range>"),
        (
            Ranges(Precision.INT8, "mse", {}, ClipsRecord("clips", 32), {"a": one_layer()}),
            "<Ranges: int8 by mse, 1 layer on 32 clips>",
        ),
    ],
)
def test_it_says_in_a_line_what_it_is(shown: object, expected: str) -> None:
    assert repr(shown) == expected


def bench_report(interrupted: bool = False) -> BenchReport:
    ours, theirs = {1: [0.004, 0.004], 8: [0.02]}, {1: [0.008, 0.008]}
    times = (
        ContenderTimes("ours", seconds=ours, cpu_seconds=ours),
        ContenderTimes("<u>sdpa</u>", seconds=theirs, cpu_seconds=theirs),
    )
    return BenchReport(times, 2, interrupted, Machine("CPU", 2, 0.1, "Linux", "3.11"))


def test_timings_say_those_of_one_clip() -> None:
    assert repr(bench_report()) == "<BenchReport: batch 1: ours 4 ms, <u>sdpa</u> 8 ms>"
    assert repr(bench_report(interrupted=True)).endswith("8 ms, partial>")
    assert repr(BenchReport((), 2, True, Machine("CPU", 2, 0.1, "Linux", "3.11"))).endswith("partial>")


def cells(text: str) -> list[list[str]]:
    return [re.findall(r"<t[hd]>(.*?)</t[hd]>", row) for row in re.findall(r"<tr>(.*?)</tr>", text)]


def test_a_notebook_shows_tables_without_the_markup_of_others() -> None:
    drift, bench = drift_report(0.01)._repr_html_(), bench_report()._repr_html_()
    assert cells(drift)[1:] == [
        ["&lt;i&gt;cpu&lt;/i&gt;", "1", "100.0 %", "0.028 %", "0.9999999"],
        ["none", "4", "left &amp; out", "", ""],
    ]
    assert cells(bench)[1:] == [
        ["ours", "1", "4", "250", "1.00"],
        ["ours", "8", "20", "400", "1.00"],
        ["&lt;u&gt;sdpa&lt;/u&gt;", "1", "8", "125", "0.50"],
    ]
    assert "passed" in drift and "CPU, 2 rounds" in bench


def test_a_notebook_shows_the_report_of_a_bundle_whose_scripts_cannot_run(bundles: Bundles, tmp_path: Path) -> None:
    need("jinja2")
    bundle = bundles.demo()
    shown = bundle._repr_html_()
    assert shown.startswith("<iframe ") and 'sandbox=""' in shown
    assert "&lt;!doctype html&gt;" in shown.lower() and "<script" not in shown and shown.count("<") == 2
    without = make_bundle(tmp_path / "bundle")
    assert without._repr_html_() == f"<code>{html.escape(repr(without))}</code>"


def test_a_contract_says_which_clips_it_takes(bundles: Bundles) -> None:
    assert repr(bundles.demo().contract) == "<Contract: 8 frames of 64x64 by uniform, 8 labels>"


@pytest.mark.needs_onnxruntime
def test_an_inspection_says_what_the_command_prints(bundles: Bundles) -> None:
    bundle = bundles.demo()
    for found in (ve.inspect(bundle.path), ve.inspect(read_bundle(bundle.path))):
        assert repr(found) == f"<Inspection of {bundle!r}>"
        assert str(found).startswith(f"{bundle.path}  ") and "  signature  none" in str(found)
        assert found.to_json()["signature"] is None and found.to_json()["plans"] == {}


def test_the_verb_of_the_command_builds_too() -> None:
    assert ve.build is ve.build_engines
