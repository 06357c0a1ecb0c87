"""Exit codes: one per kind of failure, those that the README promises."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from vivit_export import errors
from vivit_export.errors import MissingDependencyError, VivitExportError

README = (Path(__file__).parents[1] / "README.md").read_text(encoding="utf-8")


def kinds(base: type[VivitExportError] = VivitExportError) -> Iterator[type[VivitExportError]]:
    for kind in base.__subclasses__():
        yield kind
        yield from kinds(kind)


def test_the_codes_are_those_of_the_readme() -> None:
    (told,) = re.findall(r"^Exit codes: (.*?)\.$", README, re.DOTALL | re.MULTILINE)
    promised = {int(part.split()[0]) for part in told.split("·")}
    # Done, and what ends a process without an error of ours.
    assert promised == {kind.exit_code for kind in kinds()} | {VivitExportError.exit_code} | {0, 130}


def test_a_kind_of_a_kind_keeps_its_code() -> None:
    for kind in VivitExportError.__subclasses__():
        assert {inner.exit_code for inner in kinds(kind)} <= {kind.exit_code}
        assert kind.exit_code not in (0, 1, 130)


@pytest.mark.parametrize("kind", [*kinds()], ids=lambda kind: kind.__name__)
def test_every_error_can_be_raised_with_one_sentence(kind: type[VivitExportError]) -> None:
    assert vars(errors)[kind.__name__] is kind
    assert str(kind("one sentence")) == "one sentence"


def test_a_missing_package_is_an_import_error_too() -> None:
    assert issubclass(MissingDependencyError, ImportError)
