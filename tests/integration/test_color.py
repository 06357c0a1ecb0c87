"""Results on a terminal have colors, and nowhere else; and what a shell completes."""

from __future__ import annotations

import os
import pty
import subprocess
from pathlib import Path

import pytest
from bundles import add_plan
from console import BIN, Exported, console
from small_bundle import make

from vivit_export.cli.color import colored


def on_a_terminal(*command: str | Path, **variables: str) -> str:
    """What a command prints on a terminal, progress left out."""
    leader, follower = pty.openpty()
    own = {name: value for name, value in os.environ.items() if name not in ("NO_COLOR", "TERM")}
    with subprocess.Popen(
        [BIN / command[0], *command[1:]], stdout=follower, stderr=subprocess.DEVNULL, env={**own, **variables}
    ) as process:
        os.close(follower)
        text = b""
        while piece := _read(leader):
            text += piece
    os.close(leader)
    assert process.returncode == 0
    return text.decode().replace("\r\n", "\n")


def _read(leader: int) -> bytes:
    try:
        return os.read(leader, 1 << 16)
    except OSError:  # the other side is closed
        return b""


def test_a_terminal_gets_the_same_words_in_color(demo_export: Exported, tmp_path: Path) -> None:
    plain = console("vivit", "inspect", demo_export.bundle, cwd=tmp_path).stdout
    assert "\x1b" not in plain
    shown = on_a_terminal("vivit", "inspect", demo_export.bundle, TERM="xterm")
    assert f"\x1b[1m{demo_export.bundle}\x1b[0m  " in shown
    assert "  \x1b[36mprecision\x1b[0m  fp16" in shown
    for code in ("\x1b[1m", "\x1b[36m", "\x1b[33m", "\x1b[32m", "\x1b[0m"):
        shown = shown.replace(code, "")
    assert shown == plain


@pytest.mark.parametrize("variables", [{"NO_COLOR": "1", "TERM": "xterm"}, {"TERM": "dumb"}])
def test_who_wants_no_color_gets_none(demo_export: Exported, tmp_path: Path, variables: dict[str, str]) -> None:
    plain = console("vivit", "inspect", demo_export.bundle, cwd=tmp_path).stdout
    assert on_a_terminal("vivit", "inspect", demo_export.bundle, **variables) == plain


def test_machines_get_none_on_a_terminal_either(demo_export: Exported) -> None:
    assert "\x1b" not in on_a_terminal("vivit", "inspect", demo_export.bundle, "--json", TERM="xterm")


def test_verdicts() -> None:
    assert colored("demo  1 MB\ngate       passed: max 0.01") == (
        "\x1b[1mdemo\x1b[0m  1 MB\n\x1b[36mgate\x1b[0m       \x1b[32m\x1b[1mpassed\x1b[0m: max 0.01"
    )
    assert colored("one\nFAILED, unfailed") == "one\n\x1b[31m\x1b[1mFAILED\x1b[0m, unfailed"


def completed(*words: str | Path) -> list[str]:
    """What bash would offer for the last word."""
    variables = {
        "_VIVIT_COMPLETE": "bash_complete",
        "COMP_WORDS": " ".join(map(str, ("vivit", *words))),
        "COMP_CWORD": str(len(words)),
    }
    done = subprocess.run([BIN / "vivit"], env={**os.environ, **variables}, capture_output=True, text=True, check=True)
    return [line.split(",", 1)[1] for line in done.stdout.split()]


def test_a_shell_completes_the_engines_of_the_bundle(made: Path) -> None:
    assert "rtx" in completed("predict", made, "video.mp4", "--engine", "r")
    assert completed("bench", made, "--engine", "onnxruntime-") == ["onnxruntime-cuda", "onnxruntime-cpu"]
    assert completed("inspect", made, "--engine", "") == ["rtx"]
    add_plan(made, "tensorrt-rtx", b"plan")  # as it is named by default
    assert completed("inspect", made, "--engine", "") == ["rtx", "tensorrt-rtx"]
    assert completed("bench", made, "--against", "sdpa") == ["sdpa", "sdpa-fp16", "sdpa-bf16"]


def test_what_is_no_bundle_completes_what_every_bundle_has(tmp_path: Path) -> None:
    assert completed("bench", tmp_path, "--engine", "open") == ["openvino"]
    assert completed("predict", "hf://me/demo", "video.mp4", "--engine", "open") == ["openvino"]
    assert completed("inspect", tmp_path, "--engine", "") == []


def test_a_shell_completes_precisions() -> None:
    assert completed("export", "demo", "--precision", "fp") == ["fp32", "fp16", "fp8"]


@pytest.fixture
def made(tmp_path: Path) -> Path:
    return make(tmp_path / "made")
