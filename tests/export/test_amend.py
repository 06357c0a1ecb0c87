"""A finished bundle is replaced by a changed copy, whole and read back, or it is as it was."""

from __future__ import annotations

import errno
import fcntl
import hashlib
import json
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from console import tree
from made_bundle import make_bundle
from made_records import engine_record
from noted import Noted

from vivit_export.bundle import Bundle, read_bundle, write_manifest, writing
from vivit_export.bundle.manifest import Content, FileRecord
from vivit_export.bundle.reading import copy_files
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

    found = amend(bundle.path, change, progress)
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
    amend(bundle.path, lambda _work, content: replace(content, bench=None), Silent())
    first = tree(bundle.path)
    amend(bundle.path, lambda _work, content: replace(content, bench=None), Silent())
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
        amend(bundle.path, change, Silent())
    assert tree(tmp_path) == before


def test_a_file_of_the_user_in_the_bundle_is_not_lost(bundle: Bundle, tmp_path: Path) -> None:
    (bundle.path / "notes.txt").write_text("mine")
    before = tree(tmp_path)
    with pytest.raises(OutputError, match=r"holds notes\.txt, which is not part of the bundle and would be lost"):
        amend(bundle.path, lambda _work, content: content, Silent())
    assert tree(tmp_path) == before


AMEND = """
import sys, time
from dataclasses import replace
from pathlib import Path
from vivit_export.export.amend import amend
from vivit_export.progress import Silent

class Told(Silent):
    def note(self, text):
        print(text, flush=True)

def count(work, content):
    time.sleep(float(sys.argv[2]))
    return replace(content, model=replace(content.model, parameters=content.model.parameters + 1))

amend(Path(sys.argv[1]), count, Told())
"""


def amending(path: Path, seconds: float) -> subprocess.Popen[str]:
    command = [sys.executable, "-c", AMEND, str(path), str(seconds)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def test_changes_of_several_processes_are_all_kept(bundle: Bundle) -> None:
    before = bundle.manifest.model.parameters
    processes = [amending(bundle.path, 0.5) for _ in range(4)]
    said = [process.communicate(timeout=120) for process in processes]
    assert [process.returncode for process in processes] == [0] * 4, said
    assert read_bundle(bundle.path).manifest.model.parameters == before + 4
    notes = "".join(out for out, _ in said).splitlines()
    assert set(notes) <= {f"waits for another process that changes {bundle.path}"}
    assert [path.name for path in bundle.path.parent.iterdir()] == ["bundle"]


def test_an_export_over_a_bundle_waits_for_the_process_that_changes_it(bundle: Bundle) -> None:
    other = make_bundle(bundle.path.parent / "other", batches=(), golden=False)
    process = amending(bundle.path, 3)
    noted: list[str] = []
    with writing(bundle.path, force=True, note=noted.append) as work:
        copy_files(other, work)
        write_manifest(work, replace(other.manifest.content, model=replace(other.manifest.model, parameters=77)))
        deadline = time.monotonic() + 60
        copies = ".bundle.*.part/model.onnx"  # ours, and that of the other process, which holds the lock by then
        while len(list(bundle.path.parent.glob(copies))) < 2 and time.monotonic() < deadline:
            time.sleep(0.05)
    out, err = process.communicate(timeout=120)
    assert process.returncode == 0, (out, err)
    assert noted == [f"waits for another process that changes {bundle.path}"]
    assert read_bundle(bundle.path).manifest.model.parameters == 77  # the last to finish counts, whole


def test_where_locks_do_not_work_a_change_of_another_process_is_not_lost(
    bundle: Bundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(_handle: int, _operation: int) -> None:
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(fcntl, "flock", refuse)

    def change(_work: Path, content: Content) -> Content:
        amend(bundle.path, lambda _work, now: replace(now, model=replace(now.model, parameters=77)), Silent())
        return content

    with pytest.raises(OutputError, match=r"another process changed .*bundle meanwhile, so it was left as it is"):
        amend(bundle.path, change, Silent())
    assert read_bundle(bundle.path).manifest.model.parameters == 77


def test_bytes_that_changed_since_they_were_hashed_are_not_blessed(bundle: Bundle) -> None:
    content = bytearray(bundle.model.read_bytes())
    content[-1] ^= 1
    bundle.model.write_bytes(content)
    with pytest.raises(BundleError, match=r"model\.onnx changed while it was copied"):
        amend(bundle.path, lambda _work, content: content, Silent())


def test_a_bundle_that_is_gone(bundle: Bundle) -> None:
    bundle.path.rename(bundle.path.with_name("elsewhere"))
    with pytest.raises(OutputError, match="bundle cannot be changed: No such file or directory"):
        amend(bundle.path, lambda _work, content: content, Silent())


def test_a_signature_does_not_outlive_what_it_signs(bundle: Bundle) -> None:
    """A signature that does not hold would look like an attack."""
    told = Noted()
    (bundle.path / "model.sig").write_bytes(b"{}")
    amend(bundle.path, lambda _work, content: content, told)
    assert not (bundle.path / "model.sig").exists()
    assert told.notes == [
        f"{bundle.path} is not signed any more, because it was changed; sign it again with: vivit sign {bundle.path} "
        "--key FILE"
    ]
    told.notes.clear()
    amend(bundle.path, lambda _work, content: content, told)
    assert not told.notes


def test_a_signature_stays_if_the_change_fails(bundle: Bundle) -> None:
    (bundle.path / "model.sig").write_bytes(b"{}")
    before = tree(bundle.path)

    def fail(_work: Path, _content: Content) -> Content:
        raise OutputError("no")

    with pytest.raises(OutputError):
        amend(bundle.path, fail, Silent())
    assert tree(bundle.path) == before
