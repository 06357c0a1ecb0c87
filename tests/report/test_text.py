"""The summary of bundles that the demo is not: no head, runs left out, engines."""

from __future__ import annotations

import numpy as np
from anatomies import vivit
from headless_bundle import CHECKS, ENGINE, headless
from made_records import drift_report

from vivit_export.bundle.checks import Run
from vivit_export.bundle.manifest import Declined, LargestWeight, ModelRecord, PrecisionRecord
from vivit_export.precision import Precision
from vivit_export.records import to_json
from vivit_export.report.html import render_html
from vivit_export.report.text import summary_json, summary_text
from vivit_export.runtime.drift.metrics import compare


def test_a_model_without_a_head_that_was_not_checked() -> None:
    assert summary_text(headless()).splitlines() == [
        "out  1.2 MB, 2 files, hashes verified",
        "  model      <b>mine</b>, 2.5 M parameters",
        "  precision  fp16, attention as pattern, opset 20",
        "  input      x float32 (batch, 2, 3, 8, 8)",
        "  output     embedding float32 (batch, 4)",
        "  clip       2 frames, sampling uniform, 3 tokens",
        "  drift      not checked",
        "  engine     none; run: vivit build out",
    ]


def test_an_engine_is_only_offered_where_one_can_be_built() -> None:
    bundle = headless(precision=PrecisionRecord(Precision.FP32, "fused-op", 23))
    assert summary_text(bundle).endswith("\n  engine     none; export with --fp16, or with --attention pattern")


def test_drift_of_an_embedding_and_a_run_that_was_left_out() -> None:
    assert summary_text(headless(checks=CHECKS)).splitlines()[6:9] == [
        "  drift      against eager fp32, 1 clip: mine",
        "             onnxruntime 1, batch 1: embedding cosine 0.9998700",
        "             onnxruntime 1, batch 8: not run: needs 2.0 GiB",
    ]


def test_drift_of_a_single_logit_has_no_cosine() -> None:
    logits = np.array([[1], [5]], np.float32)
    checks = drift_report(Run("onnxruntime 1", 1, True, compare({"logits": logits}, {"logits": logits + 0.5})))
    line = "             onnxruntime 1, batch 1: top-1 100.0 %, max |Δ| 0.5 (12 % of the range)"
    assert line in summary_text(headless(checks=checks)).splitlines()


def test_an_engine_and_its_proof() -> None:
    assert summary_text(headless(engines={"rtx": ENGINE})).splitlines()[7:] == [
        "  engine     rtx: tensorrt-rtx 1.7, SM89 SM120",
        "             attention fused in 1 of 1 blocks (Half)",
        "             7 kernels, 2.0 MB activations at batch 8, 1.5 MB on disk",
    ]


def test_json_is_the_manifest_and_what_this_run_adds() -> None:
    bundle = headless()
    added = {"bundle": "out", "size": 1_234_000, "format": "vivit-bundle/2"}
    manifest = to_json(bundle.manifest)
    assert summary_json(bundle, None) == {**added, **manifest}
    assert summary_json(bundle, {"load": 1.0}) == {**added, **manifest, "seconds": {"load": 1.0}}


def test_rewrites_that_did_not_match_everywhere_say_so() -> None:
    model = ModelRecord("m", 1, 2, {}, vivit(2))
    counts = {"key-bias": 2, "layernorm": 3, "patch-embedding": 0, "class-token": 1}
    precision = PrecisionRecord(Precision.FP16, "pattern", 20, rewrites=counts)
    lines = summary_text(headless(model=model, precision=precision)).splitlines()
    assert "  rewrites   key-bias 2, layernorm 3 of 4, patch-embedding 0 of 1, class-token 1" in lines
    assert "layernorm 3 of 4" in render_html(headless(model=model, precision=precision).manifest)


def test_places_that_a_rewrite_left_alone_are_told_with_the_reason() -> None:
    places = tuple(
        Declined(name, f"layers.{i}/X", "<it> is read twice")
        for name, count in (("key-bias", 2), ("layernorm", 1))
        for i in range(count)
    )
    bundle = headless(precision=PrecisionRecord(Precision.FP16, "pattern", 20, declined=places))
    assert [line for line in summary_text(bundle).splitlines() if "declined" in line] == [
        "  declined   key-bias at layers.0/X and 1 more: <it> is read twice",
        "  declined   layernorm at layers.0/X: <it> is read twice",
    ]
    assert "<dd>layernorm at layers.0/X: &lt;it&gt; is read twice</dd>" in render_html(bundle.manifest)


def test_what_was_done_with_the_checkpoint_is_told() -> None:
    notes = ("not exported: the weight loss.weight", "the names begin with 'module.'")
    bundle = headless(model=ModelRecord("m", 1, 2, {}, vivit(2), notes=notes))
    assert [line for line in summary_text(bundle).splitlines() if line.startswith("  checkpoint ")] == [
        f"  checkpoint {note}" for note in notes
    ]
    assert summary_json(bundle, None)["model"]["notes"] == list(notes)
    assert "<dd>not exported: the weight loss.weight</dd>" in render_html(bundle.manifest)


def test_the_largest_weight_is_shown() -> None:
    largest = LargestWeight("fc1.weight", 12.345)
    precision = PrecisionRecord(Precision.FP16, "pattern", 20, largest_weight=largest, subnormal_weights=0.0123)
    text = "up to 12.3 (fc1.weight), 1.2 % below the normal range of fp16"
    assert f"  weights    {text}" in summary_text(headless(precision=precision)).splitlines()
    assert text in render_html(headless(precision=precision).manifest)
