"""Names that are loaded when they are first used."""

from __future__ import annotations

import pkgutil
import sys
from contextlib import suppress
from pathlib import Path
from types import ModuleType

import pytest

import vivit_export
import vivit_export.runtime
from vivit_export.errors import MissingDependencyError
from vivit_export.lazy import lazy_names

PACKAGE = """
from vivit_export.lazy import lazy_names
__getattr__, __dir__ = lazy_names(__name__, {"answer": "deep.thought", "deep": "", "lost": "deep.thought"})
here = 1
"""


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    name = "lazy_package_of_a_test"
    (tmp_path / name / "deep").mkdir(parents=True)
    (tmp_path / name / "__init__.py").write_text(PACKAGE)
    (tmp_path / name / "deep/__init__.py").touch()
    (tmp_path / name / "deep/thought.py").write_text("answer = 42\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    for module in (name, f"{name}.deep", f"{name}.deep.thought"):
        monkeypatch.delitem(sys.modules, module, raising=False)
    return name


def test_a_module_is_loaded_with_the_first_name_of_it(package: str) -> None:
    made = __import__(package)
    assert made.here == 1 and f"{package}.deep" not in sys.modules
    assert made.answer == 42 and f"{package}.deep.thought" in sys.modules
    assert made.deep is sys.modules[f"{package}.deep"]


def test_names_are_listed_before_they_are_loaded(package: str) -> None:
    made = __import__(package)
    assert {"answer", "deep", "here", "lost"} <= set(dir(made))
    assert f"{package}.deep" not in sys.modules


def test_other_names_do_not_exist(package: str) -> None:
    made = __import__(package)
    with pytest.raises(AttributeError, match=f"module '{package}' has no attribute 'question'"):
        _ = made.question
    with pytest.raises(AttributeError, match="has no attribute 'lost'"):
        _ = made.lost


def test_a_package_may_have_none() -> None:
    load, _ = lazy_names("vivit_export", {})
    with pytest.raises(AttributeError):
        load("anything")


@pytest.mark.parametrize("package", [vivit_export, vivit_export.runtime])
def test_no_submodule_takes_the_place_of_a_public_name(package: ModuleType) -> None:
    """Loading a submodule binds its name in the package, over a function of that name."""
    submodules = {module.name for module in pkgutil.iter_modules(package.__path__)}
    assert {name for name in package.__all__ if name in submodules} <= {"runtime"}
    for name in package.__all__:
        with suppress(MissingDependencyError):  # exporting is an extra
            assert getattr(package, name) is getattr(package, name), name
