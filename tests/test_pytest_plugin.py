"""The fixture ``vivit_bundle``: where the bundle comes from, and that pytest starts no slower for it."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from made_bundle import make_bundle

import vivit_export as ve
from vivit_export.export import recheck

pytest_plugins = ("pytester",)
PLUGIN = "vivit_export.pytest_plugin"
OWN = ("errors", "lazy", "packages", "pytest_plugin")  # small, and of nothing but the standard library
TEST = """
import vivit_export as ve

def test_bundle(vivit_bundle):
    assert vivit_bundle.path.name == "made"
    assert vivit_bundle.precision == "fp16"

def test_again(vivit_bundle):
    ve.assert_no_drift(vivit_bundle)
"""


@pytest.fixture(autouse=True)
def checked(monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """The check itself is tested elsewhere."""
    seen: list[Path] = []
    monkeypatch.setattr(ve, "assert_no_drift", lambda bundle: seen.append(bundle.path), raising=False)
    assert recheck.assert_no_drift.__name__ == "assert_no_drift"
    return seen


def run(pytester: pytest.Pytester, *arguments: str) -> pytest.RunResult:
    pytester.makepyfile(TEST)
    return pytester.runpytest_inprocess("-p", PLUGIN, *arguments)


def test_the_option_names_the_bundle(pytester: pytest.Pytester, checked: list[Path]) -> None:
    made = make_bundle(pytester.path / "made", golden=False).path
    run(pytester, "--vivit-bundle", "made").assert_outcomes(passed=2)
    assert checked == [made]


def test_the_ini_file_names_it_too_and_the_option_comes_first(pytester: pytest.Pytester) -> None:
    make_bundle(pytester.path / "deep/made", golden=False)
    pytester.makeini("[pytest]\nvivit_bundle = deep/made\n")
    run(pytester).assert_outcomes(passed=2)
    run(pytester, "--vivit-bundle", "no").assert_outcomes(errors=2)


def test_without_a_bundle_the_tests_say_what_is_missing(pytester: pytest.Pytester) -> None:
    result = run(pytester)
    result.assert_outcomes(errors=2)
    result.stdout.fnmatch_lines(
        ["*the fixture vivit_bundle needs a bundle: --vivit-bundle PATH, or vivit_bundle in the*"]
    )
    assert "Traceback" not in result.stdout.str()


def test_what_is_no_bundle_gets_its_sentence(pytester: pytest.Pytester) -> None:
    pytester.mkdir("empty")
    result = run(pytester, "--vivit-bundle", "empty")
    result.assert_outcomes(errors=2)
    result.stdout.fnmatch_lines(["*the bundle of --vivit-bundle cannot be used: *empty has no bundle.json; make a*"])


def test_tests_without_the_fixture_need_no_bundle(pytester: pytest.Pytester) -> None:
    pytester.makepyfile("def test_nothing(): pass")
    pytester.runpytest_inprocess("-p", PLUGIN).assert_outcomes(passed=1)


def test_loading_it_imports_nothing_but_pytest() -> None:
    """It is loaded at every start of pytest, in every project where the package is installed."""
    code = f"import pytest, sys; before = set(sys.modules); import {PLUGIN}; print(*sorted(set(sys.modules) - before))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert set(done.stdout.split()) == {"vivit_export", *(f"vivit_export.{name}" for name in OWN)}


def test_it_is_an_entry_point_of_the_package() -> None:
    project = (Path(__file__).parents[1] / "pyproject.toml").read_text(encoding="utf-8")
    assert f'[project.entry-points.pytest11]\n"{PLUGIN}" = "{PLUGIN}"' in project
