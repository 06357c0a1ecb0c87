"""Help and versions of the commands."""

from __future__ import annotations

import shlex
import time
from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path

import click
import pytest
from command_line import Cli
from console import console

from vivit_export import cli as cli_module
from vivit_export.cli.help import GROUPS, Presented


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


def commands(command: click.Command = cli_module.vivit, *path: str) -> Iterator[tuple[tuple[str, ...], click.Command]]:
    """Every command that does something, with its name."""
    if not isinstance(command, click.Group):
        yield path, command
        return
    for name, inner in command.commands.items():
        yield from commands(inner, *path, name)


COMMANDS = dict(commands())


def help_of(path: tuple[str, ...]) -> str:
    command = COMMANDS[path]
    return command.get_help(click.Context(command, info_name=path[-1], **command.context_settings))


@pytest.mark.parametrize("path", COMMANDS, ids=" ".join)
def test_every_option_is_in_a_group(path: tuple[str, ...]) -> None:
    text = help_of(path)
    titles = [line for line in text.splitlines() if line.endswith(":") and not line.startswith(" ")]
    assert "Options:" not in titles and titles[0] == "Examples:" and titles[-2:] == ["Printing:", "Help:"]
    assert len(titles) == len(set(titles)) >= 3


def test_no_group_names_an_option_that_no_command_has() -> None:
    known = {option.name for command in COMMANDS.values() for option in command.params}
    named = {name for names in GROUPS.values() for name in names}
    assert named - known == {"help"}
    assert sum(map(len, GROUPS.values())) == len(named)  # each in one group


@pytest.mark.parametrize("path", COMMANDS, ids=" ".join)
def test_every_example_is_a_command_that_is_understood(path: tuple[str, ...]) -> None:
    command = COMMANDS[path]
    assert isinstance(command, Presented) and command.examples
    for example in command.examples:
        program, *words = shlex.split(example)
        if program == "vivit":
            assert tuple(words[: len(path)]) == path, example
            words = words[len(path) :]
        else:
            assert (program, path) == ("vivit-export", ("export",))
        with command.make_context(path[-1], words) as context:
            assert context.params, example


def test_short_help_and_whole_summaries(cli: Cli) -> None:
    assert cli("check", "-h").stdout == cli("check", "--help").stdout
    text = " ".join(cli("--help").stdout.partition("Commands:")[2].split())
    assert "..." not in text
    assert text.index("export ") < text.index("calibrate ") < text.index("check ") < text.index("deploy ")
    for command in cli_module.vivit.commands.values():
        first = " ".join(str(command.help).partition("\n\n")[0].split())
        assert first.rstrip(".") in text


@pytest.mark.parametrize(
    ("terminal", "no_color", "bold"), [(True, False, True), (True, True, False), (False, False, False)]
)
def test_titles_are_bold_on_a_terminal_alone(
    monkeypatch: pytest.MonkeyPatch, terminal: bool, no_color: bool, bold: bool
) -> None:
    monkeypatch.setattr("sys.stdout.isatty", lambda: terminal, raising=False)
    monkeypatch.delenv("NO_COLOR", raising=False)
    if no_color:
        monkeypatch.setenv("NO_COLOR", "")
    assert ("\x1b[1mExamples" in help_of(("check",))) == bold
