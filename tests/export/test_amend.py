"""A finished bundle is replaced by a changed copy, whole and read back, or it is as it was."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from console import tree
from made_bundle import make_bundle
from made_records import engine_record

from vivit_export.bundle import Bundle, read_bundle
from vivit_export.bundle.manifest import Content, FileRecord
from vivit_export.errors import BundleError, OutputError
from vivit_export.export.amend import amend
from vivit_export.progress import Silent

REPORTS = {"report.json", "report.html"}


@pytest.fixture
def bundle(tmp_path: Path) -> Bundle:
    return make_bundle(tmp_path / "bundle", batches=(), golden=False)


def test_what_is_changed_is_in_the_manifest_and_the_report_and_all_else_stays(bundle: Bundle) -> None:
    before, progress = tree(bundle.path), Silent()

    def change(work: Path, content: Content) -> Content:
        assert work != bundle.path and type(content) is Content
        (work / "notes.json").write_bytes(b"{}")
        return replace(content, model=replace(content.model, parameters=2))

    found = amend(bundle, change, progress)
    after = tree(bundle.path)
    assert (found.path, found.manifest) == (bundle.path, read_bundle(bundle.path).manifest)
    assert found.manifest.model.parameters == 2
    assert json.loads((bundle.path / "report.json").read_text())["model"]["parameters"] == 2
    assert {name for name in after if after[name] != before.get(name)} == {"bundle.json", "notes.json", *REPORTS}
    assert {name for name, content in before.items() if content is not None} <= after.keys()
    digest = hashlib.sha256(b"{}").hexdigest()
    assert found.manifest.files["notes.json"] == FileRecord(digest, 2)
    assert list(progress.seconds) == ["write the bundle"]
    assert [path.name for path in bundle.path.parent.iterdir()] == ["bundle"]


def test_the_same_change_gives_the_same_bytes(bundle: Bundle) -> None:
    amend(bundle, lambda _work, content: replace(content, bench=None), Silent())
    first = tree(bundle.path)
    amend(read_bundle(bundle.path), lambda _work, content: replace(content, bench=None), Silent())
    assert tree(bundle.path) == first


def fail(_work: Path, _content: Content) -> Content:
    raise KeyboardInterrupt


def lose_the_graph(work: Path, content: Content) -> Content:
    (work / "model.onnx").unlink()
    return content


def list_an_engine_that_is_not_there(_work: Path, content: Content) -> Content:
    return replace(content, engines={"x": engine_record()})


@pytest.mark.parametrize(
    ("change", "error"),
    [
        (fail, KeyboardInterrupt),
        (lose_the_graph, BundleError),
        (list_an_engine_that_is_not_there, BundleError),
    ],
)
def test_a_change_that_leaves_no_whole_bundle_changes_nothing(
    bundle: Bundle, tmp_path: Path, change: Callable[[Path, Content], Content], error: type[BaseException]
) -> None:
    before = tree(tmp_path)
    with pytest.raises(error):
        amend(bundle, change, Silent())
    assert tree(tmp_path) == before


def test_a_file_of_the_user_in_the_bundle_is_not_lost(bundle: Bundle, tmp_path: Path) -> None:
    (bundle.path / "notes.txt").write_text("mine")
    before = tree(tmp_path)
    with pytest.raises(OutputError, match=r"holds notes\.txt, which is not part of the bundle and would be lost"):
        amend(bundle, lambda _work, content: content, Silent())
    assert tree(tmp_path) == before
