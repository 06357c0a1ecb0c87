"""Progress: plain lines in a file or a pipe, a live list on a terminal, text shown as it is."""

from __future__ import annotations

import re

import pytest

from vivit_export.progress import Console, Silent

REASON = 'tensorrt left out: not installed; pip install "vivit-export[gpu]" :warning: ' + "x" * 100


def test_plain_lines_where_stderr_is_no_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    progress = Console()
    with progress.stage("compile [rtx]"):
        progress.note(REASON)
    out, err = capsys.readouterr()
    assert out == ""
    first, second = err.splitlines()
    assert first == f"  {REASON}"  # neither taken for markup nor wrapped
    assert re.fullmatch(r"compile \[rtx\] 0\.\d s", second)


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt])
def test_a_stage_that_fails_is_named(capsys: pytest.CaptureFixture[str], error: type[BaseException]) -> None:
    progress = Console()
    with pytest.raises(error), progress.stage("trace"):
        raise error
    assert capsys.readouterr().err == "failed: trace\n"
    assert progress.seconds == {}


def test_a_terminal_gets_a_tick_or_a_cross(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("TERM", "xterm")
    progress = Console()
    with progress.stage("load [x]"):
        pass
    with pytest.raises(ValueError), progress.stage("trace [y]"):  # noqa: PT011 - it carries no message
        raise ValueError
    plain = re.sub(r"\x1b\[[\d;?]*[A-Za-z]", "", capsys.readouterr().err)
    assert re.search(r"✓ load \[x\] 0\.\d s\n", plain)
    assert "✗ trace [y]\n" in plain


def test_silence_still_counts_the_seconds(capsys: pytest.CaptureFixture[str]) -> None:
    progress = Silent()
    for name in ("a", "b"):
        with progress.stage(name):
            progress.note("text")
    assert list(progress.seconds) == ["a", "b"]
    assert capsys.readouterr() == ("", "")


def test_counted_steps_end_in_one_plain_line(capsys: pytest.CaptureFixture[str]) -> None:
    progress = Console()
    with progress.counting("run [a]", 3, "clips") as advance:
        advance(2)
        advance(1)
    out, err = capsys.readouterr()
    assert out == ""
    assert re.fullmatch(r"run \[a\] 3 clips, \d+\.\d\d clips/s, \d\.\d s\n", err)
    assert list(progress.seconds) == ["run [a]"]


def test_one_step_is_singular_and_missing_steps_are_told(capsys: pytest.CaptureFixture[str]) -> None:
    for done, total in ((1, 1), (2, 3), (0, 1)):
        with Console().counting("run", total, "clips") as advance:
            advance(done)
    lines = capsys.readouterr().err.splitlines()
    shapes = (r"run 1 clip, \S+ clips/s, 0\.0 s", r"run 2 of 3 clips, \S+ clips/s, 0\.0 s", r"run 0 of 1 clip, 0\.0 s")
    assert all(re.fullmatch(shape, line) for shape, line in zip(shapes, lines, strict=True)), lines


def test_counted_steps_that_fail_say_how_far_they_came(capsys: pytest.CaptureFixture[str]) -> None:
    def interrupted() -> None:
        with Console().counting("run", 3, "clips") as advance:
            advance(2)
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert capsys.readouterr().err == "failed: run, 2 of 3 clips\n"


def test_a_terminal_shows_a_bar_with_speed(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("TERM", "xterm")
    with Console().counting("run [x]", 2, "clips") as advance:
        advance(2)
    plain = re.sub(r"\x1b\[[\d;?]*[A-Za-z]", "", capsys.readouterr().err)
    assert "2/2" in plain and "clips/s" in plain
    assert re.search(r"✓ run \[x\] 2 clips", plain)


def test_silence_counts_without_a_word(capsys: pytest.CaptureFixture[str]) -> None:
    progress = Silent()
    with progress.counting("run", 2, "clips") as advance:
        advance(2)
    assert list(progress.seconds) == ["run"]
    assert capsys.readouterr() == ("", "")


@pytest.mark.parametrize("verbose", [False, True])
def test_details_are_for_those_who_ask(capsys: pytest.CaptureFixture[str], verbose: bool) -> None:
    Console(verbose=verbose).detail("left as it is")
    Silent().detail("left as it is")
    assert capsys.readouterr().err == ("  left as it is\n" if verbose else "")


@pytest.mark.parametrize("terminal", [False, True])
def test_steps_of_which_the_number_is_not_known_are_counted(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, terminal: bool
) -> None:
    if terminal:
        monkeypatch.setenv("FORCE_COLOR", "1")
        monkeypatch.setenv("TERM", "xterm")
    with Console().counting("search", None, "trials") as advance:
        advance(21)
    plain = re.sub(r"\x1b\[[\d;?]*[A-Za-z]", "", capsys.readouterr().err)
    assert re.search(r"search 21 trials, [\d.]+ trials/s, \d\.\d s\n", plain)
