"""A folder that one process changes at a time."""

from __future__ import annotations

import subprocess
import sys
import threading
from pathlib import Path

import pytest

from vivit_export.errors import OutputError
from vivit_export.locking import locked, locked_if_there

HOLD = """
import sys
from pathlib import Path
from vivit_export.locking import locked
with locked(Path(sys.argv[1]), print):
    print("held", flush=True)
    sys.stdin.read()
"""


def holder(folder: Path) -> subprocess.Popen[str]:
    process = subprocess.Popen(
        [sys.executable, "-c", HOLD, str(folder)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None and process.stdout.readline() == "held\n"
    return process


def test_a_lock_leaves_nothing_behind(tmp_path: Path) -> None:
    (tmp_path / "x").mkdir()
    told: list[str] = []
    for _ in range(2):
        with locked(tmp_path / "x", told.append):
            pass
    assert [p.name for p in tmp_path.rglob("*")] == ["x"]
    assert told == []


def test_a_lock_ends_with_its_process(tmp_path: Path) -> None:
    process = holder(tmp_path)
    told: list[str] = []
    threading.Timer(0.5, process.kill).start()
    with locked(tmp_path, told.append):
        assert process.wait(10) != 0
    assert told == [f"waits for another process that changes {tmp_path}"]


def test_a_folder_that_was_replaced_meanwhile_is_locked_anew(tmp_path: Path) -> None:
    folder, first = tmp_path / "x", tmp_path / "first"
    folder.mkdir()
    process = holder(folder)

    def replace() -> None:
        folder.rename(first)
        folder.mkdir()
        process.communicate()

    threading.Timer(0.5, replace).start()
    told: list[str] = []
    with locked(folder, told.append):
        again: list[str] = []
        with locked(first, again.append):  # nobody holds the old one
            assert again == []
        other = threading.Thread(target=wait_for, args=(folder, again))
        other.start()
        other.join(0.3)
        assert other.is_alive()  # but the new one is held
    other.join(10)
    assert again == told == [f"waits for another process that changes {folder}"]


def wait_for(folder: Path, told: list[str]) -> None:
    with locked(folder, told.append):
        pass


def test_what_is_not_there(tmp_path: Path) -> None:
    missing = tmp_path / "x"
    with pytest.raises(OutputError, match="x cannot be changed: No such file or directory"), locked(missing, str):
        pytest.fail("not reached")
    with locked_if_there(missing, str):
        pass
