"""The result of a check in a file: its suffix says what is written, and nothing is replaced without being told."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from made_records import content, drift_report
from small_bundle import CONTRACT

from vivit_export.bundle.checks import Run
from vivit_export.errors import OutputError, UsageError
from vivit_export.report.check_file import check_report_file, write_check_report

REPORT = drift_report(Run("onnx\x1bruntime", 1, True, None, "not here"))
CONTENT = content(CONTRACT)


@pytest.mark.parametrize("name", ["drift.html", "drift.json", "drift.TXT"])
def test_each_suffix_has_its_form(tmp_path: Path, name: str) -> None:
    write_check_report(tmp_path / name, CONTENT, REPORT, force=False)
    written = (tmp_path / name).read_text(encoding="utf-8")
    if name.endswith("json"):
        told = json.loads(written)
        assert (told["format"], told["checks"]["runs"][0]["note"]) == ("vivit-report/2", "not here")
    elif name.endswith("html"):
        assert written.startswith("<!") and "not here" in written
    else:
        assert written.startswith("drift      against eager fp32") and "\\x1b" in written and "\x1b" not in written


def test_a_file_is_replaced_only_when_told(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("mine", encoding="utf-8")
    with pytest.raises(OutputError, match=r"a\.txt exists; pass force to replace that file"):
        check_report_file(tmp_path / "a.txt", False)
    write_check_report(tmp_path / "a.txt", CONTENT, REPORT, force=True)
    assert (tmp_path / "a.txt").read_text(encoding="utf-8") != "mine"


@pytest.mark.parametrize("name", ["report", "report.pdf", "report.html.gz"])
def test_other_suffixes_are_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(UsageError, match=r"report=.* must end in \.html, \.json, \.txt, which says what is written"):
        check_report_file(tmp_path / name, False)


def test_a_folder_that_is_not_there_is_told_before_the_check(tmp_path: Path) -> None:
    with pytest.raises(OutputError, match="there is no such folder"):
        check_report_file(tmp_path / "no/a.json", False)
