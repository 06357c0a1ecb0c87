"""One folder, written completely or not at all: whatever fails, everything is as it was."""

from __future__ import annotations

import errno
import os
import resource
import shutil
import signal
import subprocess
import sys
import textwrap
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from small_bundle import fill, mode_tree
from small_disk import MountDisk

from vivit_export import atomic
from vivit_export.bundle import read_bundle, writing
from vivit_export.errors import OutputError


@pytest.mark.parametrize(
    ("umask", "folders", "files"),
    [(0o022, "0o755", "0o644"), (0o077, "0o700", "0o600"), (0o027, "0o750", "0o640"), (0o002, "0o775", "0o664")],
)
def test_the_umask_decides_who_may_read_whatever_the_writers_did(
    tmp_path: Path, umask: int, folders: str, files: str
) -> None:
    before = os.umask(umask)
    try:
        with writing(tmp_path / "out", force=False) as work:
            fill(work)
            (work / "engines/rtx.plan").chmod(0o600)
            (work / "engines").chmod(0o700)
            (work / "engines/rtx.json").chmod(0o666)
    finally:
        os.umask(before)
    modes = {name: oct(mode & 0o777) for name, (mode, _) in mode_tree(tmp_path).items()}
    assert modes.pop("out") == modes.pop("out/engines") == folders
    assert set(modes.values()) == {files}


def test_a_folder_that_gives_its_group_to_what_is_in_it_still_does(tmp_path: Path) -> None:
    tmp_path.chmod(0o2755)
    with writing(tmp_path / "out", force=False) as work:
        fill(work)
    modes = {name: mode for name, (mode, _) in mode_tree(tmp_path).items()}
    assert all(bool(modes[name] & 0o2000) == (name in ("out", "out/engines")) for name in modes)


def test_parents_are_created(tmp_path: Path) -> None:
    with writing(tmp_path / "a/b/c", force=False) as work:
        fill(work)
    read_bundle(tmp_path / "a/b/c")


def test_the_current_folder_may_be_named_with_dots(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "a").mkdir()
    monkeypatch.chdir(tmp_path / "a")
    with writing(Path("x/../../b"), force=False) as work:
        fill(work)
    read_bundle(tmp_path / "b")
    assert sorted(os.listdir(tmp_path)) == ["a", "b"]


FAILURES = [RuntimeError("x"), KeyboardInterrupt(), SystemExit(1), OSError(errno.ENOSPC, "full")]


@pytest.mark.parametrize("error", FAILURES, ids=repr)
@pytest.mark.parametrize("target", ["old", "new", "deep/er/new"])
def test_an_exception_leaves_everything_as_it_was(home: Path, target: str, error: BaseException) -> None:
    before = mode_tree(home)
    wanted = OutputError if isinstance(error, OSError) else type(error)

    def work_and_fail() -> None:
        with writing(home / target, force=True) as work:
            fill(work)
            raise error

    with pytest.raises(wanted):
        work_and_fail()
    assert mode_tree(home) == before


def test_a_parent_that_somebody_else_began_to_use_stays(tmp_path: Path) -> None:
    def work_and_fail() -> None:
        with writing(tmp_path / "a/b/out", force=False):
            (tmp_path / "a/theirs").write_text("x")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        work_and_fail()
    assert mode_tree(tmp_path).keys() == {"a", "a/theirs"}


@pytest.mark.parametrize("failing", ["place", "work"])
def test_a_failed_swap_restores_the_old_bundle(home: Path, monkeypatch: pytest.MonkeyPatch, failing: str) -> None:
    """Of two steps, where the file system cannot do it in one."""
    before = mode_tree(home)
    rename = Path.rename

    def refuse(self: Path, to: Path) -> Path:
        if (self.suffix == ".part") == (failing == "work") and ".old" not in self.parts[-2]:
            raise OSError(errno.EIO, "Input/output error")
        return rename(self, to)

    monkeypatch.setattr(atomic, "exchange", lambda *_: False)
    monkeypatch.setattr(Path, "rename", refuse)
    with (
        pytest.raises(OutputError, match="old cannot be written: Input/output error"),
        writing(home / "old", force=True) as work,
    ):
        fill(work)
    assert mode_tree(home) == before


@pytest.mark.parametrize("step", ["exchange", "sync_tree"])
def test_a_swap_that_is_refused_changes_nothing(home: Path, monkeypatch: pytest.MonkeyPatch, step: str) -> None:
    before = mode_tree(home)

    def refuse(*_: Path) -> bool:
        raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr(atomic, step, refuse)
    with (
        pytest.raises(OutputError, match="old cannot be written: Input/output error"),
        writing(home / "old", force=True) as work,
    ):
        fill(work)
    assert mode_tree(home) == before


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_signal_cannot_halve_the_swap_or_the_cleaning(
    home: Path, monkeypatch: pytest.MonkeyPatch, number: signal.Signals
) -> None:
    """A second Ctrl-C while the first one is cleaned up, or one between the two renames."""

    def interrupting(function: Callable[..., Any]) -> Callable[..., Any]:
        def run(*args: Any, **kwargs: Any) -> Any:
            signal.raise_signal(number)
            return function(*args, **kwargs)

        return run

    monkeypatch.setattr(shutil, "rmtree", interrupting(shutil.rmtree))
    monkeypatch.setattr(Path, "rename", interrupting(Path.rename))
    before = mode_tree(home)
    handler = signal.signal(number, signal.default_int_handler)
    try:
        with pytest.raises(RuntimeError), writing(home / "old", force=True):
            raise RuntimeError
        assert mode_tree(home) == before
        with writing(home / "old", force=True) as work:
            fill(work)
        assert signal.getsignal(number) is signal.default_int_handler
    finally:
        signal.signal(number, handler)
    assert mode_tree(home) == before


def test_a_thread_may_write_too(tmp_path: Path) -> None:
    def write() -> None:
        with writing(tmp_path / "out", force=False) as work:
            fill(work)

    thread = threading.Thread(target=write)
    thread.start()
    thread.join()
    read_bundle(tmp_path / "out")


@pytest.mark.parametrize(
    ("target", "message"),
    [
        ("notes.txt/out", r"notes\.txt is not a folder you may write to"),
        ("notes.txt/a/b/out", r"notes\.txt is not a folder you may write to"),
        ("/proc/out", "/proc/out cannot be written: No such file or directory; choose another folder"),
        ("/proc/a/b/out", "/proc/a/b/out cannot be written"),
        ("n" * 300, "cannot be written: File name too long"),
        ("n" * 250, "cannot be written: File name too long"),  # long enough for its hidden sibling to be refused
        ("loop/out", "cannot be written"),
    ],
)
def test_a_place_that_cannot_be_written(home: Path, target: str, message: str) -> None:
    (home / "loop").symlink_to("loop")
    before = mode_tree(home)
    with pytest.raises(OutputError, match=message), writing(home / target, force=False):
        pytest.fail("not reached")
    assert mode_tree(home) == before


@pytest.mark.parametrize(
    ("code", "message"),
    [
        (errno.ENOSPC, "out was not written: the disk is full; free some space and run again"),
        (errno.EDQUOT, "out was not written: your disk quota is used up"),
        (errno.EFBIG, "out was not written: a file would exceed the size limit"),
        (errno.EACCES, "out cannot be written: Permission denied; choose another folder"),
        (errno.EROFS, "out cannot be written: Read-only file system"),
    ],
)
def test_what_the_file_system_says_is_one_sentence(tmp_path: Path, code: int, message: str) -> None:
    with pytest.raises(OutputError, match=message), writing(tmp_path / "out", force=False):
        raise OSError(code, os.strerror(code))
    assert not any(tmp_path.iterdir())


def test_a_fault_of_our_own_is_not_called_a_full_disk(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError), writing(tmp_path / "out", force=False) as work:
        (work / "never written").read_bytes()


def test_a_limit_on_file_sizes_is_told(home: Path) -> None:
    """A real refusal of the kernel in the middle of a write (RLIMIT_FSIZE), as a quota or a full disk gives."""
    before = mode_tree(home)
    code = """
        import sys, pathlib
        from vivit_export.bundle import writing
        from vivit_export.errors import OutputError
        try:
            with writing(pathlib.Path(sys.argv[1]), force=True) as work:
                (work / "model.onnx").write_bytes(bytes(1 << 20))
        except OutputError as e:
            sys.exit(str(e))
    """
    limit = 64 << 10
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code), home / "old"],
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit)),
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.stderr.strip().endswith(
        "old was not written: a file would exceed the size limit (ulimit -f); raise it and run again"
    )
    assert mode_tree(home) == before


def test_a_disk_that_runs_full(small_disk: MountDisk) -> None:
    disk = small_disk(64)
    with writing(disk / "old", force=False) as work:
        fill(work)
    before = mode_tree(disk)

    def overflow() -> None:
        with writing(disk / "old", force=True) as folder:
            fill(folder)
            (folder / "golden.safetensors").write_bytes(bytes(1 << 20))

    with pytest.raises(OutputError, match="the disk is full"):
        overflow()
    assert mode_tree(disk) == before
    read_bundle(disk / "old")
