"""Files that the user names: what may be replaced, and what never is."""

from __future__ import annotations

import os
import socket
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
from small_bundle import mode_tree
from small_disk import MountDisk

from vivit_export.errors import OutputError
from vivit_export.files import check_file, writing_file


def write(path: Path, force: bool = False) -> None:
    with writing_file(path, force=force) as part:
        part.write_bytes(b"new")


def test_a_file_is_written_and_replaced_only_with_force(tmp_path: Path) -> None:
    path = tmp_path / "x"
    write(path)
    path.write_bytes(b"mine")
    with pytest.raises(OutputError, match="x exists; pass force to replace that file, or choose another name"):
        write(path)
    assert path.read_bytes() == b"mine"
    write(path, force=True)
    assert path.read_bytes() == b"new"
    assert os.listdir(tmp_path) == ["x"]


def make_pipe(path: Path) -> None:
    os.mkfifo(path)


def make_socket(path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(path))


def link_to_a_pipe(path: Path) -> None:
    os.mkfifo(path.with_name("pipe"))
    path.symlink_to("pipe")


def link_to_a_device(path: Path) -> None:
    path.symlink_to("/dev/null")


def link_in_a_circle(path: Path) -> None:
    path.symlink_to(path.name)


@pytest.mark.parametrize("force", [True, False])
@pytest.mark.parametrize(
    ("make", "reason"),
    [
        (Path.mkdir, "is a folder, not a file that can be replaced; choose another name"),
        (make_pipe, "is a pipe, not a file that can be replaced"),
        (make_socket, "is a socket, not a file that can be replaced"),
        (link_to_a_pipe, "is a pipe, not a file that can be replaced"),
        (link_to_a_device, "is a device, not a file that can be replaced"),
        (link_in_a_circle, "cannot be written: Too many levels of symbolic links"),
    ],
)
def test_what_is_no_file_is_never_replaced(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, make: Callable[[Path], None], reason: str, force: bool
) -> None:
    monkeypatch.chdir(tmp_path)  # the name of a socket must be short
    make(Path("x"))
    before = {p.name: p.lstat() for p in tmp_path.iterdir()}
    with pytest.raises(OutputError, match=f"^x {reason}"):
        check_file(Path("x"), force)
    assert {p.name: p.lstat() for p in tmp_path.iterdir()} == before


@pytest.mark.parametrize("force", [True, False])
def test_a_pipe_that_appears_during_the_work_stays(tmp_path: Path, force: bool) -> None:
    path = tmp_path / "x"

    def work() -> None:
        with writing_file(path, force=force) as part:
            part.write_bytes(b"new")
            os.mkfifo(path)

    with pytest.raises(OutputError, match="x is a pipe"):
        work()
    assert path.is_fifo()
    assert os.listdir(tmp_path) == ["x"]


def test_a_link_stands_for_what_it_leads_to(tmp_path: Path) -> None:
    (tmp_path / "there").mkdir()
    link = tmp_path / "link"
    link.symlink_to("there/x")
    write(link)
    assert link.is_symlink()
    assert (tmp_path / "there/x").read_bytes() == b"new"
    with pytest.raises(OutputError, match="link exists; pass force"):
        write(link)
    write(link, force=True)
    assert link.is_symlink()


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("none/x", "cannot be written: there is no such folder; create it first"),
        ("notes.txt/x", "cannot be written: Not a directory"),
        ("n" * 300, "cannot be written: File name too long"),
        ("n" * 250, "cannot be written: File name too long"),  # long enough for the temporary file to be refused
    ],
)
def test_a_place_that_cannot_be_written(home: Path, name: str, reason: str) -> None:
    before = mode_tree(home)
    with pytest.raises(OutputError, match=reason):
        write(home / name)
    assert mode_tree(home) == before


def test_a_folder_that_may_not_be_written_is_told_before_the_work(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Tests may run as root, whom no mode stops: the answer of the system is replaced."""
    monkeypatch.setattr(os, "access", lambda path, mode: False)
    with pytest.raises(OutputError, match=f"x cannot be written: {tmp_path} is not a folder you may write to"):
        check_file(tmp_path / "x", force=False)


def test_a_read_only_disk(small_disk: MountDisk) -> None:
    disk = small_disk(64)
    assert not subprocess.run(["mount", "-o", "remount,ro", str(disk)], capture_output=True).returncode
    with pytest.raises(OutputError, match=f"x cannot be written: {disk} is not a folder you may write to"):
        check_file(disk / "x", force=False)


def test_a_disk_that_becomes_read_only_during_the_work(small_disk: MountDisk) -> None:
    """Removing the temporary file is refused too; that is not an error of its own."""
    disk = small_disk(64)

    def work() -> None:
        with writing_file(disk / "x", force=False) as part:
            assert not subprocess.run(["mount", "-o", "remount,ro", str(disk)], capture_output=True).returncode
            part.write_bytes(b"new")

    with pytest.raises(OutputError, match="x cannot be written: Read-only file system"):
        work()


def test_a_disk_that_runs_full(small_disk: MountDisk) -> None:
    disk = small_disk(64)

    def overflow() -> None:
        with writing_file(disk / "x", force=False) as part:
            part.write_bytes(bytes(1 << 20))

    with pytest.raises(OutputError, match="x was not written: the disk is full"):
        overflow()
    assert not any(disk.iterdir())
