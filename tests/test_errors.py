"""Exit codes: one per kind of failure, those that the README promises."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from vivit_export import errors
from vivit_export.errors import ClipErrors, MissingDependencyError, VivitExportError, option

README = (Path(__file__).parents[1] / "README.md").read_text(encoding="utf-8")


# Not __subclasses__(): modules may have kinds of their own, and which are loaded differs from one process to another.
KINDS = [kind for kind in vars(errors).values() if isinstance(kind, type) and issubclass(kind, VivitExportError)]


def test_the_codes_are_those_of_the_readme() -> None:
    (told,) = re.findall(r"^Exit codes: (.*?)\.$", README, re.DOTALL | re.MULTILINE)
    promised = {int(part.split()[0]) for part in told.split("·")}
    # Done, and what ends a process without an error of ours.
    assert promised == {kind.exit_code for kind in KINDS} | {0, 130}


def test_a_kind_of_a_kind_keeps_its_code() -> None:
    for kind in KINDS:
        assert kind is VivitExportError or kind.exit_code not in (0, 1, 130)
        if VivitExportError not in kind.__bases__ and kind is not VivitExportError:
            assert "exit_code" not in vars(kind)


@pytest.mark.parametrize("kind", sorted({*KINDS} - {ClipErrors}, key=str), ids=lambda kind: kind.__name__)
def test_an_error_is_one_sentence(kind: type[VivitExportError]) -> None:
    assert str(kind("one sentence")) == "one sentence"


def test_a_list_of_errors_has_a_line_for_each() -> None:
    broken = option("clips", "a\nb")
    error = ClipErrors("2 videos:", [f"{broken} is empty", "c is empty"])
    assert error.lines(lambda name, value: f"--{name} {value}") == [
        "2 videos:",
        "  --clips a\nb is empty",
        "  c is empty",
    ]
    assert str(error).splitlines() == ["2 videos:", "  clips=a", "b is empty", "  c is empty"]


def test_a_missing_package_is_an_import_error_too() -> None:
    assert issubclass(MissingDependencyError, ImportError)


@pytest.mark.parametrize(
    ("number", "things", "words"),
    [
        (1, "videos", "1 video"),
        (0, "videos", "0 videos"),
        (2, "videos", "2 videos"),
        (1, "files without the suffix of a video", "1 file without the suffix of a video"),
        (1, "unreadable folders", "1 unreadable folder"),
    ],
)
def test_one_thing_is_singular(number: int, things: str, words: str) -> None:
    assert errors.counted(number, things) == words
