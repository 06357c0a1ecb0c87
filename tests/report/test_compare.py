"""Two runs of one model side by side: what differs, in which direction, and when the later one is not good enough."""

from __future__ import annotations

from dataclasses import replace

import pytest
from long_report import long_report

from vivit_export.bundle.manifest import Content, FileRecord
from vivit_export.errors import DriftError, InputError
from vivit_export.report.compare import Comparison, Group, compare
from vivit_export.report.stored import StoredRun

BEFORE = StoredRun("before", long_report(), {"model.onnx": FileRecord("ab" * 32, 1)})


def group(found: Comparison, title: str) -> Group:
    return next(group for group in found.groups if group.title == title)


def after(content: Content) -> Comparison:
    return compare(BEFORE, StoredRun("after", content, BEFORE.files))


def upgraded(worst: float = 0.0041) -> Content:
    """After an upgrade of the compiler: another version, fewer fused kernels, and slower."""
    content = long_report(worst=worst)
    assert content.bench is not None
    engine = content.engines["tensorrt-rtx"]
    verified = tuple(replace(found, driver=found.driver.replace("580", "590")) for found in engine.verified_on)
    engine = replace(engine, verified_on=verified)
    changed = replace(engine, version="1.8.0.1", plan=replace(engine.plan, kernels=9, attention_fused=0))
    timed = content.bench.contenders["tensorrt-rtx"]
    batches = {batch: replace(figures, p50_ms=12.2) for batch, figures in timed.batches.items()}
    contenders = {**content.bench.contenders, "tensorrt-rtx": replace(timed, batches=batches)}
    return replace(content, engines={"tensorrt-rtx": changed}, bench=replace(content.bench, contenders=contenders))


def test_a_run_is_the_same_as_itself() -> None:
    found = after(long_report())
    assert not found.failure and not found.labels and not found.notes
    assert group(found, "versions").rows == () and group(found, "versions").same == 7
    assert not any(row.differs for group in found.groups for row in group.rows)
    found.require()


def test_what_an_upgrade_changed_is_told() -> None:
    found = after(upgraded(worst=0.02))
    rows = {(each.title, row.name): (row.before, row.after, row.change) for each in found.groups for row in each.rows}
    assert rows["versions", "engine tensorrt-rtx"] == ("tensorrt-rtx 1.7.1.116", "tensorrt-rtx 1.8.0.1", "")
    assert rows["versions", "engine tensorrt-rtx-sm89"] == ("tensorrt-rtx 1.7.1.116", "–", "")
    verified = "NVIDIA L4, driver 580.65.06, CUDA 13.0"
    assert rows["device", "tensorrt-rtx verified on"] == (verified, verified.replace("580", "590"), "")
    assert rows["plan of tensorrt-rtx", "kernels"] == ("7", "9", "")
    assert rows["plan of tensorrt-rtx", "fused attention"] == ("1", "0", "")
    assert rows["drift", "largest logit difference"] == ("0.41 % of the range", "2 % of the range", "worse")
    assert rows["drift", "top-1 agreement"] == ("100 %", "100 %", "")
    assert rows["latency", "tensorrt-rtx, batch 1"] == ("6.10 ms", "12.20 ms", "0.50 times as fast")
    assert not found.failure  # it is within its gate


def test_less_drift_is_better_and_a_lower_cosine_worse() -> None:
    content = long_report(worst=0.001)
    assert content.checks is not None
    runs = tuple(
        replace(run, drift=replace(run.drift, cosine=0.997)) if run.drift else run for run in content.checks.runs
    )
    found = after(replace(content, checks=replace(content.checks, runs=runs)))
    changes = {row.name: row.change for row in group(found, "drift").rows}
    assert changes["largest logit difference"] == "better" and changes["lowest cosine of the logits"] == "worse"


def test_the_later_run_must_be_within_its_gate() -> None:
    found = after(long_report(worst=0.0812))
    assert found.failure.startswith("after is beyond its gate: the largest logit difference is 8.12 % of the range in ")
    with pytest.raises(DriftError, match="after is beyond its gate"):
        found.require()
    failed = StoredRun("before", long_report(worst=0.0812))
    assert not compare(failed, StoredRun("after", long_report())).failure  # it was mended


def test_a_later_run_without_a_check_does_not_pass() -> None:
    unchecked = replace(long_report(), checks=None)
    assert "was not checked" in after(unchecked).failure
    assert not compare(StoredRun("a", unchecked), StoredRun("b", unchecked)).failure


def test_the_check_that_was_saved_last_counts() -> None:
    found = after(replace(long_report(), recheck=long_report(worst=0.0812).checks))
    assert found.verdict_after.state == "failed"


def test_clips_that_changed_their_label_are_named() -> None:
    content = long_report()
    assert content.checks is not None and content.checks.view is not None
    view = content.checks.view
    calm = [replace(clip, flip="none", ours=clip.reference) for clip in view.clips if clip.flip == "clear"]
    rest = [clip for clip in view.clips if clip.flip != "clear"]
    new = next(i for i, clip in enumerate(rest) if clip.flip == "none")
    rest[new] = replace(rest[new], flip="near", ours=rest[new].reference[::-1])
    changed = replace(view, clips=(*rest, *calm))
    found = after(replace(content, checks=replace(content.checks, view=changed)))
    assert [(change.clip, change.reference, change.before, change.after) for change in found.labels] == [
        ("kinetics/clip_00001.mp4", "archery", "archery", "abseiling"),
        ("kinetics/clip_00000.mp4", "archery", "zumba", "archery"),
    ]


def test_other_clips_and_another_gate_are_noted() -> None:
    content = long_report(9)
    assert content.checks is not None
    gate = replace(content.checks.gate, limits={**content.checks.gate.limits, "max": 0.04})
    found = after(replace(content, checks=replace(content.checks, gate=gate)))
    assert found.notes == (
        "the clips are not the same (8 clips and 9), so neither need their drift be",
        "the gates are not the same: max",
    )


def test_other_models_are_refused() -> None:
    other = replace(long_report().model, id="other", weights_sha256={"model.safetensors": "0" * 64})
    with pytest.raises(InputError, match=r"before is of the model google/.* and after of other, and the hashes of"):
        after(replace(long_report(), model=other))
    unnamed = replace(long_report().model, weights_sha256={})
    assert after(replace(long_report(), model=unnamed)).model == unnamed.id
    with pytest.raises(InputError, match="their configs differ"):
        after(replace(long_report(), model=replace(unnamed, parameters=1)))
