"""What is given to the Python surface is taken or refused in a sentence; it never ends in an error of Python's own."""

from __future__ import annotations

import dataclasses
import inspect
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import vivit_export as ve
from vivit_export.calibration.options import CalibrationOptions
from vivit_export.export.engine.options import EngineOptions
from vivit_export.export.options import ExportOptions
from vivit_export.runtime.session.prediction import Prediction

KINDS: tuple[Any, ...] = (
    None, True, 3, -1, 0, 2.5, float("nan"), 10**30, "x", "", "a\0b", "é" * 300, b"x", object(), object, [], [None],
    [object()], ("x",), (1,), {}, {"a": 1}, np.array(0), np.int64(3), Path("nowhere"), lambda: 1,
)  # fmt: skip


def refuses_or_takes(call: Callable[..., Any], name: str, **others: Any) -> None:
    """Give an argument every kind of value."""
    for value in KINDS:
        try:
            call(**others, **{name: value})
        except ve.VivitExportError:
            pass
        except Exception as e:
            pytest.fail(f"{name}={value!r}: {type(e).__name__}: {e}")


@pytest.mark.parametrize(
    ("record", "field"),
    [
        (record, field.name)
        for record in (ExportOptions, CalibrationOptions, EngineOptions, ve.TritonOptions)
        for field in dataclasses.fields(record)
    ],
)
def test_a_field_of_options(record: Callable[..., Any], field: str) -> None:
    refuses_or_takes(record, field)


# Each call fails, if by nothing else, then for want of what it names; `{home}` is a bundle whose graph is none.
CALLS: dict[str, tuple[Callable[..., Any], dict[str, Any]]] = {
    "assert_no_drift": (ve.assert_no_drift, {"bundle": "nowhere"}),
    "bench": (ve.bench, {"bundle": "nowhere"}),
    "build_engines": (ve.build_engines, {"path": "nowhere"}),
    "calibrate": (ve.calibrate, {"model": "./nowhere"}),
    "card": (ve.card, {"bundle": "{home}"}),
    "check": (ve.check, {"bundle": "nowhere"}),
    "convert_scenic": (ve.convert_scenic, {"checkpoint": "nowhere", "output": "{new}"}),
    "deploy_cpp": (ve.deploy_cpp, {"bundle": "{home}", "target": "{new}"}),
    "deploy_triton": (ve.deploy_triton, {"bundle": "{home}", "target": "{new}"}),
    "export_model": (ve.export_model, {"model": "./nowhere"}),
    "inspect": (ve.inspect, {"bundle": "{home}"}),
    "open_session": (ve.open_session, {"bundle": "{home}"}),
    "pull": (ve.pull, {"address": "nowhere", "target": "{new}"}),
    "push": (ve.push, {"bundle": "nowhere", "repo": "of/mine"}),
    "read_bundle": (ve.read_bundle, {"path": "{home}"}),
    "sign_bundle": (ve.sign_bundle, {"bundle": "{home}", "key": "nowhere"}),
    "top": (Prediction(np.zeros(2, np.float32), None, ("a", "b")).top, {}),
    "verify_bundle": (ve.verify_bundle, {"bundle": "{home}"}),
}


@pytest.mark.parametrize("name", CALLS)
def test_an_argument_of_a_function(name: str, home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    call, given = CALLS[name]
    names = [p.name for p in inspect.signature(call).parameters.values() if p.kind is not p.VAR_KEYWORD]
    for argument in names:
        if argument != "progress":  # whose methods are called
            others = {key: str(value).format(home=home, new=tmp_path / "new") for key, value in given.items()}
            others.pop(argument, None)
            refuses_or_takes(call, argument, **others)
