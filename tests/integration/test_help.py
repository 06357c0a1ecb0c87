"""Help and versions of the commands."""

from __future__ import annotations

import time
from importlib.metadata import version
from pathlib import Path

import pytest
from command_line import Cli
from console import console

from vivit_export import cli as cli_module


@pytest.mark.parametrize("command", ["vivit-export", "vivit"])
def test_help_is_there_at_once(command: str, tmp_path: Path) -> None:
    seconds = []
    for _ in range(3):
        start = time.perf_counter()
        done = console(command, "--help", cwd=tmp_path)
        seconds.append(time.perf_counter() - start)
        assert done.returncode == 0 and done.stdout.startswith(f"Usage: {command} ")
    assert min(seconds) < 0.3


def test_help_names_every_option_but_those_always_refused(cli: Cli) -> None:
    text = cli("export", "--help").stdout
    for option in cli_module.vivit_export.params:
        for flag in getattr(option, "opts", ()):
            if flag.startswith("--"):
                assert (flag in text) != option.hidden, flag  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    ("command", "told"),
    [("export", "auto: the fastest inside its gate. [default: fp32]"), ("calibrate", "[default: int8]")],
)
def test_help_tells_the_precision_that_is_taken(cli: Cli, command: str, told: str) -> None:
    text = " ".join(cli(command, "--help").stdout.split())
    assert f"Type of the weights and GEMMs. {told}" in text


def test_both_commands_tell_their_version(tmp_path: Path) -> None:
    for command in ("vivit-export", "vivit"):
        assert console(command, "--version", cwd=tmp_path).stdout.strip().endswith(version("vivit-export"))
