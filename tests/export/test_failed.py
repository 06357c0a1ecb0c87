"""What an export whose check fails leaves beside its target, and when that goes away."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from console import tree
from made_records import content, drift_report
from noted import Noted
from small_bundle import CONTRACT

from vivit_export.bundle import read_bundle
from vivit_export.bundle.checks import Run
from vivit_export.bundle.manifest import Content
from vivit_export.errors import BuildError, BundleError, DriftError
from vivit_export.export.failed import FailedCheckError, failed_folder, keeping_the_report
from vivit_export.progress import Silent
from vivit_export.records import from_json
from vivit_export.runtime.drift.metrics import compare

LOGITS = {"logits": np.array([[0.0, 1.0, 4.0]], np.float32)}
FAR = compare(LOGITS, {"logits": LOGITS["logits"] + 40})
FAILED = content(CONTRACT, checks=drift_report(Run("onnxruntime", 1, True, FAR)))


def fail(target: Path) -> str:
    with pytest.raises(DriftError) as caught, keeping_the_report(target, Silent()):
        raise FailedCheckError(FAILED, {}, "; no bundle was written")
    return str(caught.value)


def test_the_report_is_beside_the_target_and_the_sentence_says_where(tmp_path: Path) -> None:
    said = fail(tmp_path / "out")
    folder = tmp_path / "out.failed"
    assert said == (
        "drift beyond the gate in onnxruntime at batch 1: max 10 is above 1; no bundle was written; "
        f"the report is in {folder}"
    )
    assert sorted(path.name for path in folder.iterdir()) == ["report.html", "report.json", "report.txt"]
    told = json.loads((folder / "report.json").read_text(encoding="utf-8"))
    assert told.pop("format") == "vivit-report/2"
    assert from_json(Content, told, "report").checks == FAILED.checks
    assert (
        (folder / "report.txt")
        .read_text(encoding="utf-8")
        .endswith(
            "gate       FAILED: max 1\nfailed     drift beyond the gate in onnxruntime at batch 1: max 10 is above 1\n"
        )
    )
    assert "onnxruntime" in (folder / "report.html").read_text(encoding="utf-8")
    with pytest.raises(BundleError):
        read_bundle(folder)


def test_the_next_run_replaces_it_and_a_good_one_removes_it(tmp_path: Path) -> None:
    fail(tmp_path / "out")
    (tmp_path / "out.failed/report.txt").write_text("old", encoding="utf-8")
    fail(tmp_path / "out")
    assert (tmp_path / "out.failed/report.txt").read_text(encoding="utf-8") != "old"
    progress = Noted()
    with keeping_the_report(tmp_path / "out", progress):
        pass
    assert not any(tmp_path.iterdir())
    assert progress.notes == [f"removed {tmp_path / 'out.failed'}, the report of an earlier run that failed"]


@pytest.mark.parametrize("name", ["notes.txt", "bundle.json", "report.json"])
def test_a_folder_of_somebody_else_is_left_alone_and_the_drift_is_still_told(tmp_path: Path, name: str) -> None:
    (tmp_path / "out.failed").mkdir()
    (tmp_path / "out.failed" / name).write_text("{}", encoding="utf-8")
    before = tree(tmp_path)
    said = fail(tmp_path / "out")
    assert said.startswith(
        "drift beyond the gate in onnxruntime at batch 1: max 10 is above 1; no bundle was written; "
    )
    assert "its report could not be written: " in said and "is not a report of a failed export" in said
    with keeping_the_report(tmp_path / "out", Silent()):
        pass
    assert tree(tmp_path) == before


def test_a_file_that_somebody_added_is_never_removed(tmp_path: Path) -> None:
    fail(tmp_path / "out")
    (tmp_path / "out.failed/mine.txt").write_text("mine", encoding="utf-8")
    with keeping_the_report(tmp_path / "out", Silent()):
        pass
    assert (tmp_path / "out.failed/mine.txt").exists()
    assert "holds mine.txt" in fail(tmp_path / "out")


def test_other_errors_leave_it_as_it_is(tmp_path: Path) -> None:
    fail(tmp_path / "out")
    before = tree(tmp_path)
    with pytest.raises(BuildError), keeping_the_report(tmp_path / "out", Silent()):
        raise BuildError("no compiler")
    assert tree(tmp_path) == before


def test_a_link_stands_for_what_it_leads_to(tmp_path: Path) -> None:
    (tmp_path / "deep").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "deep")
    assert failed_folder(tmp_path / "link") == tmp_path / "deep.failed"
