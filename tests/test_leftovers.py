"""What killed processes leave is removed, and nothing else is: not what somebody works on, nor what is not ours."""

from __future__ import annotations

import fcntl
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from small_bundle import fill, mode_tree

from vivit_export import atomic, leftovers
from vivit_export.bundle import read_bundle, writing
from vivit_export.errors import OutputError
from vivit_export.files import writing_file
from vivit_export.leftovers import held_file, held_folder, remove_leftovers, remove_scratch, scratch

HOLD = """
import sys
from pathlib import Path
from vivit_export import leftovers
kind, place = sys.argv[1:]
with {"file": leftovers.held_file, "folder": leftovers.held_folder}[kind](Path(place)) as made:
    if kind == "folder":
        (made / "model.onnx").write_bytes(bytes(100))
    print(made, flush=True)
    sys.stdin.read()
"""


def holder(kind: str, place: Path) -> tuple[subprocess.Popen[str], Path]:
    command = [sys.executable, "-c", HOLD, kind, str(place)]
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    return process, Path(process.stdout.readline().rstrip("\n"))


@pytest.mark.parametrize("kind", ["file", "folder"])
def test_what_a_killed_process_leaves_is_removed_and_told(tmp_path: Path, kind: str) -> None:
    process, made = holder(kind, tmp_path / "out")
    told: list[str] = []
    remove_leftovers(tmp_path / "out", told.append)
    assert made.exists() and told == []  # it lives
    process.kill()
    process.wait()
    remove_leftovers(tmp_path / "out", told.append)
    assert told == [f"removed {made}, which an interrupted run had left"]
    assert not os.listdir(tmp_path)


@pytest.mark.parametrize("clock", [-(10**9), 10**9])
def test_clocks_mean_nothing(tmp_path: Path, clock: int) -> None:
    """Neither is old what lives, nor new what is dead."""
    with held_file(tmp_path / "x") as living:
        os.utime(living, (time.time() + clock,) * 2)
        dead = tmp_path / ".x.vivit-01234567.part"
        dead.mkdir()
        os.utime(dead, (time.time() - clock,) * 2)
        remove_leftovers(tmp_path / "x", str)
        assert os.listdir(tmp_path) == [living.name]


def a_link(path: Path) -> None:
    (path.parent / "mine").mkdir()
    path.symlink_to("mine")


@pytest.mark.parametrize("make", [a_link, os.mkfifo])
def test_what_is_neither_file_nor_folder_stays(tmp_path: Path, make: Callable[[Path], None]) -> None:
    make(tmp_path / ".out.vivit-01234567.part")
    before = mode_tree(tmp_path)
    remove_leftovers(tmp_path / "out", pytest.fail)
    assert mode_tree(tmp_path) == before


@pytest.mark.parametrize(
    "name",
    [
        ".out.part",
        ".out.0123abcd.part",
        ".out.vivit-0123abc.part",
        ".out.vivit-0123abcde.part",
        ".out.vivit-0123abcg.part",
        ".other.vivit-0123abcd.part",
        ".out2.vivit-0123abcd.part",
        "out.vivit-0123abcd.part",
        ".out.vivit-0123abcd.part.mine",
        ".out.vivit-0123abcd.old",
    ],
)
def test_what_has_another_name_stays(tmp_path: Path, name: str) -> None:
    (tmp_path / name).mkdir()
    remove_leftovers(tmp_path / "out", pytest.fail)
    assert os.listdir(tmp_path) == [name]


def test_a_name_is_no_pattern(tmp_path: Path) -> None:
    (tmp_path / ".abc.vivit-01234567.part").mkdir()
    remove_leftovers(tmp_path / "...", pytest.fail)
    remove_leftovers(tmp_path / "a*", pytest.fail)
    assert len(os.listdir(tmp_path)) == 1


def test_what_belongs_to_another_user_stays(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / ".out.vivit-01234567.part").mkdir()
    monkeypatch.setattr(os, "geteuid", lambda: os.getuid() + 1)
    remove_leftovers(tmp_path / "out", pytest.fail)
    assert len(os.listdir(tmp_path)) == 1


def test_where_there_are_no_locks_nothing_is_removed_and_all_else_works(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(_handle: int, _operation: int) -> None:
        raise OSError(37, "No locks available")

    monkeypatch.setattr(fcntl, "flock", refuse)
    (tmp_path / ".out.vivit-01234567.part").mkdir()
    with held_folder(tmp_path / "out") as made:
        remove_leftovers(tmp_path / "out", pytest.fail)
        assert len(os.listdir(tmp_path)) == 2 and made.is_dir()


def test_work_that_was_taken_for_a_leftover_before_it_was_locked_is_begun_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another process may come between making the folder and locking it."""
    flock = fcntl.flock
    seen: list[str] = []

    def late(handle: int, operation: int) -> None:
        if not seen:
            seen.append(os.readlink(f"/proc/self/fd/{handle}"))
            os.rmdir(seen[0])
        flock(handle, operation)

    monkeypatch.setattr(fcntl, "flock", late)
    with held_folder(tmp_path / "out") as made:
        assert made.is_dir() and str(made) != seen[0]


def test_scratch_is_of_its_owner_alone_and_gone_at_the_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    with scratch() as folder:
        (folder / "weights").write_bytes(b"x")
        assert folder.parent == tmp_path and folder.stat().st_mode & 0o777 == 0o700
        remove_scratch(pytest.fail)
    assert not os.listdir(tmp_path)
    leftover = tmp_path / ".scratch.vivit-01234567.part"
    leftover.mkdir()
    told: list[str] = []
    remove_scratch(told.append)
    assert told == [f"removed {leftover}, which an interrupted run had left"]


# --- of files and folders that are written whole ------------------------------------------------


def leave(folder: Path, of: str, kind: str = "part") -> Path:
    made = folder / f".{of}.vivit-01234567.{kind}"
    made.mkdir()
    return made


def test_the_next_run_removes_what_one_for_the_same_folder_left(home: Path) -> None:
    left, other = leave(home, "old"), leave(home, "new")
    fill(left)
    told: list[str] = []
    with writing(home / "old", force=True, note=told.append) as work:
        fill(work)
    assert told == [f"removed {left}, which an interrupted run had left"]
    assert sorted(os.listdir(home)) == sorted(["notes.txt", "old", other.name])


def test_a_refused_run_removes_nothing(home: Path) -> None:
    leave(home, "old")
    before = mode_tree(home)
    with pytest.raises(OutputError, match="exists"), writing(home / "old", force=False, note=pytest.fail):
        pytest.fail("not reached")
    assert mode_tree(home) == before


def test_the_next_run_removes_what_one_for_the_same_file_left(tmp_path: Path) -> None:
    left = tmp_path / ".x.vivit-01234567.part"
    left.write_bytes(b"half")
    (tmp_path / "link").symlink_to("x")
    told: list[str] = []
    with writing_file(tmp_path / "link", force=False, note=told.append) as part:
        part.write_bytes(b"new")
    assert told == [f"removed {left}, which an interrupted run had left"]
    assert (tmp_path / "x").read_bytes() == b"new"


def test_a_run_that_was_killed_between_two_renames_is_undone_by_the_next(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where a file system cannot exchange folders, there is a moment without one."""
    before = mode_tree(home / "old")
    monkeypatch.setattr(atomic, "exchange", lambda *_: False)

    def in_a_child() -> None:
        with writing(home / "old", force=True) as work:
            fill(work)
            monkeypatch.setattr(Path, "rename", die_after_one(Path.rename))

    child = os.fork()
    if not child:
        try:
            in_a_child()
        finally:
            os._exit(1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == -signal.SIGKILL
    assert not (home / "old").exists()
    told: list[str] = []
    with (
        pytest.raises(OutputError, match="old exists; pass force"),
        writing(home / "old", force=False, note=told.append),
    ):
        pytest.fail("not reached")
    assert told == [f"restored {home / 'old'}, which an interrupted run had moved away"]
    assert mode_tree(home / "old") == before
    with writing(home / "old", force=True, note=told.append) as work:
        fill(work)
    assert sorted(os.listdir(home)) == ["notes.txt", "old"]
    assert len(told) == 2


def test_what_a_finished_change_left_is_removed_and_told(home: Path) -> None:
    """Killed while it removed the old folder, when the new one was in its place."""
    before = mode_tree(home / "old")
    left = home / ".old.vivit-01234567.old"
    (left / "folder").mkdir(parents=True)
    told: list[str] = []
    with pytest.raises(OutputError, match="old exists"), writing(home / "old", force=False, note=told.append):
        pytest.fail("not reached")
    assert told == [f"removed {left}, which an interrupted run had left"]
    assert mode_tree(home / "old") == before and not left.exists()


def die_after_one(rename: Callable[..., Path]) -> Callable[..., Path]:
    def run(self: Path, to: Path) -> Path:
        rename(self, to)
        os.kill(os.getpid(), signal.SIGKILL)
        raise AssertionError

    return run


def test_writers_of_one_file_do_not_share_their_work(tmp_path: Path) -> None:
    """Two threads of one process, too."""
    both = threading.Barrier(2, timeout=30)
    refused: list[str] = []

    def write(text: bytes) -> None:
        try:
            with writing_file(tmp_path / "x", force=False) as part:
                part.write_bytes(text * 1000)
                both.wait()
        except OutputError as e:
            refused.append(str(e))

    threads = [threading.Thread(target=write, args=(text,)) for text in (b"a", b"b")]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert refused == [f"{tmp_path / 'x'} exists; pass force to replace that file, or choose another name"]
    assert (tmp_path / "x").read_bytes() in (b"a" * 1000, b"b" * 1000)
    assert os.listdir(tmp_path) == ["x"]


def test_writers_of_one_folder_leave_one_whole(tmp_path: Path) -> None:
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", WRITE, str(tmp_path / "out")], stdin=subprocess.PIPE, stdout=subprocess.PIPE
        )
        for _ in range(3)
    ]
    for process in processes:
        assert process.stdout is not None and process.stdout.readline() == b"ready\n"
    for process in processes:
        process.communicate(b"go")
    assert sorted(process.returncode for process in processes) == [0, 0, 0]
    read_bundle(tmp_path / "out")
    assert os.listdir(tmp_path) == ["out"]


WRITE = f"""
import sys
sys.path.insert(0, {str(Path(__file__).parent / "support")!r})
from pathlib import Path
from small_bundle import fill
from vivit_export.bundle import writing
for number in range(20):
    with writing(Path(sys.argv[1]), force=True) as work:
        fill(work)
        if number == 0:
            print("ready", flush=True)
            sys.stdin.read()
"""


def test_the_module_knows_no_clock() -> None:
    assert not {"time", "datetime"} & vars(leftovers).keys()
