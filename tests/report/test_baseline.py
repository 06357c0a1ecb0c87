"""Reading a stored check: what is one, and a sentence for everything else."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from made_bundle import make_bundle
from made_records import drift_report

from vivit_export.bundle import Bundle, write_manifest
from vivit_export.bundle.checks import Run
from vivit_export.errors import InputError
from vivit_export.records import to_json
from vivit_export.report.baseline import read_baseline
from vivit_export.report.html import FORMAT

SAVED = drift_report(Run("later", 1, True, None))


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    return make_bundle(tmp_path_factory.mktemp("made") / "bundle", golden=False)


def written(path: Path, bundle: Bundle, **changes: Any) -> Path:
    told = {"format": FORMAT, **to_json(bundle.manifest.content), **changes}
    path.write_text(json.dumps(told), encoding="utf-8")
    return path


def test_the_check_of_a_report_is_read_and_a_saved_one_comes_first(bundle: Bundle, tmp_path: Path) -> None:
    assert read_baseline(written(tmp_path / "a.json", bundle), bundle) == bundle.manifest.checks
    assert read_baseline(written(tmp_path / "a.json", bundle, recheck=to_json(SAVED)), bundle) == SAVED


def test_another_precision_of_the_same_model_may_be_compared(bundle: Bundle, tmp_path: Path) -> None:
    precision = {**to_json(bundle.manifest.precision), "name": "bf16"}
    assert read_baseline(written(tmp_path / "a.json", bundle, precision=precision), bundle) == bundle.manifest.checks


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"format": "vivit-report/3"}, "was written by a newer version: it has format 'vivit-report/3', and this"),
        ({"format": "vivit-report/99999999999999999999"}, "was written by a newer version"),
        ({"format": "vivit-bundle/2"}, "is not the report of a check: it has format 'vivit-bundle/2', and this"),
        ({"format": 7}, "is not the report of a check: it has format 7"),
        ({"checks": None}, "has no check to compare with; write one with: vivit check .* --report FILE.json"),
        ({"speed": 1}, "report has an unknown field 'speed'"),
        ({"checks": 3}, "checks must be a JSON object"),
    ],
)
def test_what_is_no_baseline_is_told(bundle: Bundle, tmp_path: Path, changes: dict[str, Any], said: str) -> None:
    with pytest.raises(InputError, match=said):
        read_baseline(written(tmp_path / "a.json", bundle, **changes), bundle)


@pytest.mark.parametrize("section", ["model", "contract"])
def test_a_report_of_another_model_is_refused(bundle: Bundle, tmp_path: Path, section: str) -> None:
    told: dict[str, Any] = to_json(bundle.manifest.content)
    if section == "model":
        told["model"]["weights_sha256"] = {"model.safetensors": "0" * 64}
    else:
        told["contract"]["labels"] = ["other", "labels", "here"]
    with pytest.raises(InputError, match="is of another model: of google/vivit-b-16x2-kinetics400, with other weights"):
        read_baseline(written(tmp_path / "a.json", bundle, **told), bundle)


@pytest.mark.parametrize("content", [b"", b"[]", b"{", b"\xff\xfe", b"null", b'{"a": 1, "a": 2}', b"[" * 100_000])
def test_files_of_any_kind_get_a_sentence(bundle: Bundle, tmp_path: Path, content: bytes) -> None:
    (tmp_path / "a.json").write_bytes(content)
    with pytest.raises(InputError, match=r"a\.json is not the report of a check"):
        read_baseline(tmp_path / "a.json", bundle)


def test_no_file_and_a_folder_get_a_sentence(bundle: Bundle, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"a\.json does not exist; give the report\.json of an earlier check"):
        read_baseline(tmp_path / "a.json", bundle)
    with pytest.raises(InputError, match="cannot be read: it is a folder"):
        read_baseline(tmp_path, bundle)


def test_an_unchecked_bundle_has_none(tmp_path: Path) -> None:
    made = make_bundle(tmp_path / "bundle", batches=(), golden=False)
    write_manifest(made.path, replace(made.manifest.content, checks=None))
    with pytest.raises(InputError, match="has no check to compare with"):
        read_baseline(written(tmp_path / "a.json", made), made)
