"""What is given to the Python surface is taken or refused in a sentence; it never ends in an error of Python's own."""

from __future__ import annotations

import dataclasses
import inspect
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from small_bundle import CONTRACT

import vivit_export as ve
from vivit_export import demo, runtime
from vivit_export.calibration.options import CalibrationOptions
from vivit_export.export.engine.options import EngineOptions
from vivit_export.export.options import ExportOptions
from vivit_export.runtime.clips.windows import WindowRule
from vivit_export.runtime.session.prediction import Prediction
from vivit_export.runtime.session.session import Session

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


class NoEngine:
    """A back end that takes no time."""

    name, details, batches = "none", "", (1, 4)

    def run(self, batch: np.ndarray) -> dict[str, np.ndarray]:
        return {"logits": np.zeros((len(batch), 2), np.float32)}

    def close(self) -> None:
        """Nothing is open."""


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
SESSION = Session(CONTRACT, NoEngine(), {})
VIDEO = min(demo.clips_path().glob("*.mp4"))
OF_RUNTIME: dict[str, tuple[Callable[..., Any], dict[str, Any]]] = {
    "find_clips": (runtime.find_clips, {"folder_or_file": VIDEO}),
    "predict_videos": (runtime.predict_videos, {"session": SESSION, "paths": [VIDEO]}),
    "preprocessor": (runtime.Preprocessor, {"clip": CONTRACT.clip, "preprocess": CONTRACT.preprocess}),
    "read_clip": (runtime.read_clip, {"path": VIDEO, "contract": CONTRACT}),
    "read_views": (runtime.read_views, {"path": VIDEO, "contract": CONTRACT}),
    "read_windows": (runtime.read_windows, {"path": VIDEO, "contract": CONTRACT, "window": 1.0}),
    "stream": (ve.stream, {"session": SESSION, "source": VIDEO, "window": 1.0}),
    "window_rule": (WindowRule, {"length": 1.0}),
}
# Whose own methods are called.
PROTOCOLS = ("progress", "note", "reading")


@pytest.mark.parametrize("name", CALLS)
def test_an_argument_of_a_function(name: str, home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    call, given = CALLS[name]
    names = [p.name for p in inspect.signature(call).parameters.values() if p.kind is not p.VAR_KEYWORD]
    for argument in names:
        if argument not in PROTOCOLS:
            others = {key: str(value).format(home=home, new=tmp_path / "new") for key, value in given.items()}
            others.pop(argument, None)
            refuses_or_takes(call, argument, **others)


@pytest.mark.parametrize("name", OF_RUNTIME)
def test_an_argument_of_the_runtime(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    call, given = OF_RUNTIME[name]

    def take(**arguments: Any) -> None:
        found = call(**arguments)
        if isinstance(found, Iterator):
            next(found, None)

    for argument in inspect.signature(call).parameters:
        if argument not in PROTOCOLS:
            others = {key: value for key, value in given.items() if key != argument}
            refuses_or_takes(take, argument, **others)


def test_what_holds_a_contract_is_told_from_one() -> None:
    with pytest.raises(ve.VivitExportError) as raised:
        runtime.read_clip(VIDEO, SESSION)  # type: ignore[arg-type]
    assert str(raised.value) == "contract must be a Contract, got Session; give its .contract"
