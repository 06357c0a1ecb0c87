"""Hostile sidecars of engines: refused, or drawn, at once."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from attacked import edit, make, within_limits

from vivit_export.bundle import read_bundle
from vivit_export.errors import BundleError
from vivit_export.export.engine.drawing import write_plan_onnx
from vivit_export.export.engine.table import plan_text, read_plan

SIDECARS: dict[str, Callable[[dict[str, Any]], object]] = {
    "layers that are null": lambda s: s.update(layers=None),
    "layers that are text": lambda s: s.update(layers="all"),
    "a layer that is null": lambda s: s.update(layers=[None]),
    "a layer without fields": lambda s: s.update(layers=[{}]),
    "300,000 layers": lambda s: s.update(layers=s["layers"] * 300_000),
    "a tensor that is none": lambda s: s["layers"][0].update(inputs=["nonsense"]),
    "a side that is a minus": lambda s: s["layers"][0].update(inputs=["Half[1,-] x"]),
    "a tensor of endless dimensions": lambda s: s["layers"][0].update(inputs=["Half[" + "1," * 10**6 + "1] x"]),
    "a dimension of 10^400": lambda s: s["layers"][0].update(inputs=["Half[1" + "0" * 5000 + "] x"]),
    "a name that is a list": lambda s: s["layers"][0].update(name=[]),
    "an unknown flavour": lambda s: s.update(flavour="quantum"),
    "no profile": lambda s: s.update(profiles=[]),
    "an unknown field": lambda s: s.update(more=1),
}
TEXTS = {
    "no JSON": "{",
    "10,000 levels": '{"layers":' + "[" * 10_000 + "]" * 10_000 + "}",
    "a list": "[]",
    "17 MiB": " " * (17 << 20),
    "half a pair": '{"layers": "\\ud800"}',
}


@pytest.fixture
def bundle(tmp_path: Path) -> Path:
    return make(tmp_path / "bundle")


def refused(folder: Path) -> None:
    edit(folder, lambda manifest: None)
    found = read_bundle(folder)
    with within_limits(), pytest.raises(BundleError) as e:
        read_plan(found, "rtx")
    assert str(e.value).startswith(f"{folder}/engines/rtx.json cannot be read (")
    assert len(str(e.value)) < 1000


@pytest.mark.parametrize("change", SIDECARS.values(), ids=SIDECARS)
def test_a_hostile_value_is_refused(bundle: Path, change: Callable[[dict[str, Any]], object]) -> None:
    path = bundle / "engines/rtx.json"
    sidecar = json.loads(path.read_text(encoding="utf-8"))
    change(sidecar)
    path.write_text(json.dumps(sidecar), encoding="utf-8")
    refused(bundle)


@pytest.mark.parametrize("text", TEXTS.values(), ids=TEXTS)
def test_what_is_no_sidecar_is_refused(bundle: Path, text: str) -> None:
    (bundle / "engines/rtx.json").write_text(text, encoding="utf-8")
    refused(bundle)


def test_as_many_layers_of_one_name_as_are_allowed_are_drawn_at_once(bundle: Path, tmp_path: Path) -> None:
    path = bundle / "engines/rtx.json"
    sidecar = json.loads(path.read_text(encoding="utf-8"))
    sidecar["layers"][0]["inputs"] = ["Quad[1,2] x"]  # a type of a compiler to come
    sidecar["layers"] *= 3000
    path.write_text(json.dumps(sidecar), encoding="utf-8")
    edit(bundle, lambda manifest: None)
    plan = read_plan(read_bundle(bundle), "rtx")
    with within_limits():
        assert plan_text(plan)
        write_plan_onnx(plan.layers, "rtx", tmp_path / "plan.onnx")
    assert (tmp_path / "plan.onnx").stat().st_size > 3000
