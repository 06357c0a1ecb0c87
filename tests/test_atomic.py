"""Renames in one step: two paths change places, and a name that is taken is not replaced."""

from __future__ import annotations

import ctypes
import errno
import os
from pathlib import Path

import pytest
from small_disk import MountDisk

from vivit_export import atomic


def make(folder: Path) -> tuple[Path, Path]:
    for name in ("a", "b"):
        (folder / name).mkdir()
        (folder / name / "is").write_text(name)
    return folder / "a", folder / "b"


def test_two_folders_change_places(tmp_path: Path) -> None:
    a, b = make(tmp_path)
    assert atomic.exchange(a, b)
    assert ((a / "is").read_text(), (b / "is").read_text()) == ("b", "a")
    assert atomic.exchange(a / "is", b / "is")
    assert ((a / "is").read_text(), (b / "is").read_text()) == ("a", "b")


def test_names_that_are_no_text_are_exchanged_too(tmp_path: Path) -> None:
    odd = tmp_path / os.fsdecode(b"\xff\n ")
    odd.write_text("odd")
    (tmp_path / "b").write_text("b")
    assert atomic.exchange(odd, tmp_path / "b")
    assert odd.read_text() == "b"


@pytest.mark.parametrize("missing", ["a", "b"])
def test_what_is_not_there_cannot_be_exchanged(tmp_path: Path, missing: str) -> None:
    make(tmp_path)
    (tmp_path / missing).rename(tmp_path / "c")
    with pytest.raises(FileNotFoundError, match=r"'.*a' -> '.*b'"):
        atomic.exchange(tmp_path / "a", tmp_path / "b")
    assert sorted(os.listdir(tmp_path)) == sorted({"a", "b", "c"} - {missing})


def test_where_it_cannot_be_done_nothing_changes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    a, b = make(tmp_path)
    monkeypatch.setattr(atomic, "_EXCHANGE", 1 << 20)  # which no file system knows
    monkeypatch.setattr(atomic, "_NO_REPLACE", 1 << 20)
    assert not atomic.exchange(a, b)
    assert ((a / "is").read_text(), (b / "is").read_text()) == ("a", "b")
    atomic.rename_to_new(a / "is", b / "new")
    assert sorted(os.listdir(b)) == ["is", "new"]


def test_an_old_libc_cannot_do_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ctypes, "CDLL", lambda *_args, **_options: object())
    assert not atomic.exchange(*make(tmp_path))


def test_a_name_that_is_taken_is_not_replaced(tmp_path: Path) -> None:
    a, b = make(tmp_path)
    with pytest.raises(FileExistsError):
        atomic.rename_to_new(a / "is", b / "is")
    assert ((a / "is").read_text(), (b / "is").read_text()) == ("a", "b")
    atomic.rename_to_new(a / "is", b / "new")
    assert not (a / "is").exists() and (b / "new").read_text() == "a"


def test_a_memory_disk_has_it_too(small_disk: MountDisk) -> None:
    a, b = make(small_disk(64))
    assert atomic.exchange(a, b)
    assert (a / "is").read_text() == "b"


def test_everything_reaches_the_disk_before_it_is_relied_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    a, _ = make(tmp_path)
    (a / "link").symlink_to("nowhere")
    synced: list[str] = []
    monkeypatch.setattr(os, "fsync", lambda handle: synced.append(os.readlink(f"/proc/self/fd/{handle}")))
    atomic.sync_tree(a)
    assert sorted(synced) == [str(a), str(a / "is")]


@pytest.mark.parametrize(("number", "is_told"), [(errno.EINVAL, False), (errno.ENOSPC, True), (errno.EIO, True)])
def test_a_disk_that_cannot_sync_is_no_error_but_a_broken_one_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int, is_told: bool
) -> None:
    def refuse(_handle: int) -> None:
        raise OSError(number, "x")

    monkeypatch.setattr(os, "fsync", refuse)
    told = []
    try:
        atomic.sync(tmp_path)
    except OSError as e:
        told = [e.errno]
    assert told == ([number] if is_told else [])
