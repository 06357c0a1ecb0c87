"""What is remembered of self-tests, and that nothing in the cache can do harm."""

from __future__ import annotations

import os
import socket
from collections.abc import Callable
from pathlib import Path

import pytest

from vivit_export.runtime.drift import passed
from vivit_export.runtime.drift.passed import MOST_REMEMBERED, key_of, passed_before, remember

KEY = key_of({"engine": "a", "device": "b"})


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    return tmp_path / "vivit-export/self-tests"


def test_a_test_that_passed_is_remembered_and_no_other(folder: Path) -> None:
    assert not passed_before(KEY)
    remember(KEY)
    remember(KEY)
    assert passed_before(KEY)
    assert not passed_before(key_of({"engine": "a", "device": "c"}))
    assert [(path.name, path.stat().st_size, path.stat().st_mode & 0o777) for path in folder.iterdir()] == [
        (KEY, 0, 0o600)
    ]
    assert folder.stat().st_mode & 0o077 == 0


def test_no_two_sets_of_facts_have_one_key() -> None:
    facts = [{"a": "b"}, {"a": "b\nc=1:d"}, {"a": "b", "c": "d"}, {"ab": ""}, {"a": "", "b": ""}, {}]
    assert len({key_of(each) for each in facts}) == len(facts)
    assert key_of({"a": "1", "b": "2"}) == key_of({"b": "2", "a": "1"})


def _pipe(path: Path) -> None:
    os.mkfifo(path)


def _socket(path: Path) -> None:
    os.chdir(path.parent)  # its name may have 107 bytes
    with socket.socket(socket.AF_UNIX) as it:
        it.bind(path.name)


@pytest.mark.parametrize(
    "make",
    [
        Path.mkdir,
        _pipe,
        _socket,
        lambda path: path.symlink_to("/etc/passwd"),
        lambda path: path.symlink_to("nowhere"),
        lambda path: path.write_bytes(b"passed"),
    ],
    ids=["folder", "pipe", "socket", "link", "dead link", "content"],
)
def test_what_is_no_file_of_ours_proves_nothing(
    folder: Path, make: Callable[[Path], object], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir("/")
    folder.mkdir(parents=True)
    make(folder / KEY)
    assert not passed_before(KEY)
    remember(KEY)  # does not follow it, replace it, or fail
    assert not passed_before(KEY)


def test_a_file_of_somebody_else_proves_nothing(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    remember(KEY)
    owner = os.geteuid()
    monkeypatch.setattr(os, "geteuid", lambda: owner + 1)
    assert not passed_before(KEY)


def test_a_cache_that_cannot_be_written_does_no_harm(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").write_text("in the way")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    remember(KEY)
    assert not passed_before(KEY)
    monkeypatch.delenv("XDG_CACHE_HOME")

    def homeless() -> Path:
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.setattr(Path, "home", homeless)
    remember(KEY)
    assert not passed_before(KEY)


def test_the_folder_does_not_grow_without_end(folder: Path) -> None:
    folder.mkdir(parents=True)
    (folder / "notes.txt").write_text("mine")
    for number in range(MOST_REMEMBERED + 1):
        path = folder / f"{number:064x}"
        path.touch()
        os.utime(path, (1000 + number, 1000 + number))
    remember(KEY)
    names = {path.name for path in folder.iterdir()}
    assert len(names) == MOST_REMEMBERED // 2 + 1  # and the stranger's file
    assert {KEY, "notes.txt", f"{MOST_REMEMBERED:064x}"} <= names
    assert f"{0:064x}" not in names
    assert passed.passed_before(KEY)
