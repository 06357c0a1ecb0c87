"""Stored runs: a bundle, a report, or the folder of a failed export; anything else is refused with a sentence."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from long_report import long_report

from vivit_export.errors import InputError
from vivit_export.report.html import write_report
from vivit_export.report.stored import read_stored

OLD = Path(__file__).parents[1] / "data/vivit-bundle-1"


def test_a_bundle_of_any_version() -> None:
    found = read_stored(OLD)
    assert found.name == str(OLD) and "model.onnx" in found.files and found.content.model.id


def test_a_report_or_its_folder(tmp_path: Path) -> None:
    content = long_report()
    write_report(tmp_path, content)
    for path in (tmp_path, tmp_path / "report.json"):
        found = read_stored(path)
        assert found.content == content and found.check == content.checks and not found.files


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (None, "does not exist"),
        ("{", "is not the report of a check"),
        ("[]", "it has format None"),
        ('{"format": "vivit-report/1"}', "it has format 'vivit-report/1', and this version reads 'vivit-report/2'"),
        ('{"format": "vivit-report/2"}', "report.json"),
    ],
)
def test_anything_else_is_refused(tmp_path: Path, text: str | None, said: str) -> None:
    path = tmp_path / "report.json"
    if text is not None:
        path.write_text(text, encoding="utf-8")
    with pytest.raises(InputError, match=said):
        read_stored(path)


def test_an_empty_folder_is_no_bundle(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"has no bundle\.json"):
        read_stored(tmp_path)


def test_a_report_with_a_wrong_value_is_refused(tmp_path: Path) -> None:
    write_report(tmp_path, long_report())
    told = json.loads((tmp_path / "report.json").read_text(encoding="utf-8"))
    told["model"]["parameters"] = "many"
    (tmp_path / "report.json").write_text(json.dumps(told), encoding="utf-8")
    with pytest.raises(InputError, match="parameters"):
        read_stored(tmp_path)
