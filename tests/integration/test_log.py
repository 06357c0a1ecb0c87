"""The log of a command: what is in it, from which level on, and what a file that cannot be written does."""

from __future__ import annotations

import logging
import os
import re
from pathlib import Path

import pytest
from command_line import Cli, error_of, runner
from console import Exported
from small_disk import MountDisk

from vivit_export.cli import vivit
from vivit_export.demo import clips_path

LEFT = next(clips_path().glob("left*"))
LINE = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z (DEBUG|INFO|WARNING|ERROR) {0,3} vivit_export[\w.]*: .+")


def levels(text: str) -> set[str]:
    """The levels of all lines, which must have the form of a log."""
    found = [LINE.fullmatch(line) for line in text.splitlines() if not line.startswith("    ")]
    assert all(found), text
    return {line[1] for line in found if line}


@pytest.mark.needs_onnxruntime
def test_a_file_has_stages_remarks_and_the_engine(demo_export: Exported, cli: Cli, tmp_path: Path) -> None:
    plain = cli("predict", demo_export.bundle, LEFT)
    logged = cli("predict", demo_export.bundle, LEFT, "--log-file", "vivit.log")
    assert logged.stdout == plain.stdout
    text = (tmp_path / "home/vivit.log").read_text()
    assert levels(text) == {"INFO"}
    first, *rest = [line.split(": ", 1)[1] for line in text.splitlines()]
    assert re.fullmatch(rf"vivit predict begins, vivit-export [\w.]+, process {os.getpid()}", first)
    assert re.fullmatch(r"verify the bundle: \d\.\d{3} s", rest[0])
    assert any(" runs on ONNX Runtime" in line for line in rest)
    assert rest[-1] == "vivit predict ends"
    assert not logging.getLogger("vivit_export").handlers
    cli("inspect", demo_export.bundle, "-q", "--log-file", "vivit.log")  # appended to
    assert (tmp_path / "home/vivit.log").read_text().startswith(text)


@pytest.mark.needs_onnxruntime
def test_levels(demo_export: Exported, cli: Cli) -> None:
    for level, there in (("debug", {"DEBUG", "INFO"}), ("info", {"INFO"}), ("warning", set())):
        done = cli("predict", demo_export.bundle, LEFT, "-q", "--log-level", level)
        assert levels(done.stderr) == there, level
        assert not logging.getLogger("vivit_export.progress").isEnabledFor(logging.DEBUG)  # as before


def test_a_failure_is_logged_with_its_sentence_and_for_debugging_with_its_place(cli: Cli, tmp_path: Path) -> None:
    said = error_of(cli("inspect", "nowhere", "--log-file", "log", code=3, leaves="home/log"))
    text = (tmp_path / "home/log").read_text()
    assert levels(text) == {"INFO", "ERROR"}
    assert f"ERROR   vivit_export.cli.log: {said}\n" in text
    assert "verify the bundle: failed" in text
    (tmp_path / "home/log").unlink()
    cli("inspect", "nowhere", "--log-file", "log", "--log-level", "debug", code=3, leaves="home/log")
    text = (tmp_path / "home/log").read_text()
    assert "\n    Traceback (most recent call last):\n" in text
    assert "\n    vivit_export.errors.BundleError: nowhere" in text


def test_what_others_wrote_does_not_begin_a_line(cli: Cli, tmp_path: Path) -> None:
    name = "evil\n2026-01-01T00:00:00.000Z INFO    vivit_export.cli: all is well"
    for level in ("info", "debug"):
        cli("inspect", name, "--log-file", "log", "--log-level", level, code=3, leaves="home/log")
        text = (tmp_path / "home/log").read_text()
        assert "evil\\n2026-01-01" in text
        assert "\n2026-01-01" not in text
        (tmp_path / "home/log").unlink()


@pytest.mark.parametrize(
    ("place", "why"),
    [("no/such/log", "No such file or directory"), ("pipe", "No such device or address")],
)
def test_a_file_that_cannot_be_written_is_refused_first(cli: Cli, tmp_path: Path, place: str, why: str) -> None:
    os.mkfifo(tmp_path / "home/pipe")
    said = error_of(cli("inspect", "nowhere", "--log-file", place, code=3))
    assert said.startswith(f"{place} cannot be written: {why}")
    assert said.endswith("; choose another file for the log")


def test_a_folder_is_no_file(cli: Cli, tmp_path: Path) -> None:
    assert "is a directory" in error_of(cli("inspect", "nowhere", "--log-file", tmp_path, code=2))


def test_what_is_no_log_is_left_as_it_is(cli: Cli, tmp_path: Path) -> None:
    home = tmp_path / "home"
    for content in (LEFT.read_bytes(), b"\n", b"2026-01-31T12:00:00.000Z INFO    other.package: begins\n"):
        (home / "file").write_bytes(content)
        said = error_of(cli("inspect", "nowhere", "--log-file", "file", code=3))  # which compares all files, too
        assert said.startswith("file is not empty and does not begin as a log of vivit-export does; choose another ")
    (home / "file").write_bytes(b"")
    (home / "link").symlink_to("file")
    for times in (1, 2):  # an empty file, and a log
        done = runner().invoke(vivit, ["inspect", "nowhere", "--log-file", "link"])
        assert done.exit_code == 3
        assert (home / "file").read_text().count("inspect begins") == times
    assert (home / "link").is_symlink()


@pytest.mark.needs_onnxruntime
def test_a_full_disk_costs_the_log_alone(demo_export: Exported, cli: Cli, small_disk: MountDisk) -> None:
    disk = small_disk(64)
    (disk / "full").write_bytes(bytes(64 << 10))
    done = cli("predict", demo_export.bundle, LEFT, "--log-file", disk / "log")
    assert "left" in done.stdout
    assert f"{disk}/log is not complete: No space left on device" in done.stderr
