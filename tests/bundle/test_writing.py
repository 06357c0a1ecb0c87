"""Writing a bundle: what may be replaced, and what is never deleted."""

from __future__ import annotations

import os
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
from made_records import drift_report
from small_bundle import CONTENT, fill, mode_tree, rewrite

from vivit_export.bundle import check_target, read_bundle, write_manifest, writing
from vivit_export.bundle.checks import CheckedClips
from vivit_export.errors import OutputError


def test_an_empty_folder_is_filled(tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    with writing(tmp_path / "out", force=False) as work:
        fill(work)
    read_bundle(tmp_path / "out")
    assert os.listdir(tmp_path) == ["out"]


def test_a_bundle_is_replaced_only_with_force(home: Path) -> None:
    before = mode_tree(home)
    with (
        pytest.raises(OutputError, match="old exists; pass force to replace that bundle"),
        writing(home / "old", force=False),
    ):
        pytest.fail("not reached")
    assert mode_tree(home) == before
    with writing(home / "old", force=True) as work:
        (work / "model.onnx").write_bytes(b"new graph")
        write_manifest(work, replace(CONTENT, engines={}))
    assert read_bundle(home / "old").model.read_bytes() == b"new graph"
    assert sorted(os.listdir(home)) == ["notes.txt", "old"]
    assert sorted(os.listdir(home / "old")) == ["bundle.json", "model.onnx"]


def test_behind_a_link_the_folder_it_leads_to_is_replaced(home: Path) -> None:
    (home / "current").symlink_to("old")
    with writing(home / "current", force=True) as work:
        (work / "model.onnx").write_bytes(b"new graph")
        write_manifest(work, replace(CONTENT, engines={}))
    assert (home / "current").is_symlink()
    assert read_bundle(home / "old").model.read_bytes() == b"new graph"


def strangers(home: Path) -> dict[str, Path]:
    """What must survive --force."""
    made = {name: home / name for name in ("file", "work", "their.bundle", "damaged", "newer", "kept", "linked")}
    made["file"].write_text("mine")
    for name in ("work", "their.bundle"):
        made[name].mkdir()
        (made[name] / "thesis.txt").write_text("mine")
    (made["their.bundle"] / "bundle.json").write_text('{"modules": []}')  # of another tool
    for name in ("damaged", "newer", "kept", "linked"):
        shutil.copytree(home / "old", made[name])
    (made["damaged"] / "bundle.json").write_text("{")
    rewrite(made["newer"], lambda m: m.update(format="vivit-bundle/3"))
    (made["kept"] / "engines/notes.txt").write_text("mine")
    (made["linked"] / "videos").symlink_to(home)
    made["dangling"] = home / "dangling"
    made["dangling"].symlink_to("nowhere")
    made["loop"] = home / "loop"
    made["loop"].symlink_to("loop")
    return made


def test_what_is_not_wholly_a_bundle_is_never_deleted(home: Path) -> None:
    paths = strangers(home)
    before = mode_tree(home)
    messages = {"kept": r"holds engines/notes\.txt, which is not part of the bundle", "linked": "holds videos, which"}
    for name, path in paths.items():
        message = messages.get(name, "is left alone|not a folder")
        with pytest.raises(OutputError, match=f"{path.name} .*({message})"), writing(path, force=True):
            pytest.fail("not reached")
    assert mode_tree(home) == before


@pytest.mark.parametrize("force", [True, False])
def test_what_appears_during_the_work_is_not_deleted(home: Path, force: bool) -> None:
    target = home / "new"

    def work() -> None:
        with writing(target, force=force) as folder:
            fill(folder)
            target.mkdir()
            (target / "thesis.txt").write_text("mine")

    with pytest.raises(OutputError, match="new exists"):
        work()
    assert sorted(os.listdir(home)) == ["new", "notes.txt", "old"]
    assert (target / "thesis.txt").read_text() == "mine"


def test_an_unwritable_parent_is_told_before_the_work(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Tests may run as root, whom no mode stops: the answer of the system is replaced."""
    monkeypatch.setattr(os, "access", lambda path, mode: False)
    with pytest.raises(OutputError, match=f"out cannot be written: {tmp_path} is not a folder you may write to"):
        check_target(tmp_path / "out", force=False)


def test_a_signature_is_not_listed_and_is_replaced_with_its_bundle(home: Path) -> None:
    (home / "old/model.sig").write_bytes(b"{}")
    write_manifest(home / "old", CONTENT)
    assert "model.sig" not in read_bundle(home / "old").manifest.files
    notes: list[str] = []
    for _ in range(2):
        with writing(home / "old", force=True, note=notes.append) as work:
            fill(work)
    assert not (home / "old/model.sig").exists()
    (note,) = notes
    assert note.startswith(
        f"{home / 'old'} is not signed any more, because it was changed; sign it again with: vivit s"
    )


def test_a_manifest_that_nobody_would_read_is_not_written(home: Path) -> None:
    before = mode_tree(home)
    names = tuple(f"{'walk' * 200}/{n}.mp4" for n in range(21_000))
    large = replace(CONTENT, recheck=replace(drift_report(), clips=CheckedClips("mine", names)))
    with pytest.raises(
        OutputError, match=r"^bundle.json would have 16\.\d MiB, and more than 16 are not read; check on"
    ):
        write_manifest(home / "old", large)
    assert mode_tree(home) == before
