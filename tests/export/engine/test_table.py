"""The plan of an engine as a table: read from its sidecar, counted, named after its modules."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import pytest
from made_records import content, manifest_of
from plan_logs import LOGS, log, record
from small_bundle import CONTRACT

from vivit_export.bundle import ENGINES, Bundle
from vivit_export.bundle.writing import list_files
from vivit_export.errors import BundleError, UsageError
from vivit_export.export.engine.layers import layers_from_log
from vivit_export.export.engine.table import EnginePlan, choose_engine, plan_text, read_plan
from vivit_export.records import to_json


def bundle(folder: Path, *names: str) -> Bundle:
    made = content(CONTRACT, engines={name: record(LOGS[0]) for name in names})
    return Bundle(folder, manifest_of(made, **list_files(folder)))


def test_the_table_says_what_the_kernels_do() -> None:
    plan = EnginePlan("rtx", record(LOGS[0]), layers_from_log(log(LOGS[0])))
    lines = plan_text(plan).splitlines()
    assert lines[0] == "  plan       rtx: SM89 SM120, 20 kernels in 29 layers"
    assert [line.split()[:2] for line in lines[1:6]] == [
        ["attention", "2"],
        ["gemm", "10"],
        ["copy", "1"],
        ["other", "7"],
        ["host", "9"],
    ]
    assert lines[1].split("fused, ")[1].startswith("2 Half: ")
    assert lines[2].endswith("10 Half")
    assert lines[6].split("activations ")[1].endswith(f"weights {plan.record.plan.weight_bytes / 1e6:.1f} MB")
    assert plan.to_json()["roles"] == {"attention": 2, "copy": 1, "gemm": 10, "host": 9, "other": 7}


def test_attention_is_named_after_its_modules() -> None:
    mha = next(layer for layer in layers_from_log(log(LOGS[0])) if layer.role == "attention")
    blocks = [0, 1, 2, 5]
    layers = [
        dataclasses.replace(mha, nodes=(f"layers.{i}.attention/Softmax/CastUp", f"layers.{i}.attention/QK"))
        for i in blocks
    ]
    plan = EnginePlan("rtx", record(LOGS[0]), tuple(layers))
    assert plan.attention == [f"layers.{i}.attention" for i in blocks]
    assert plan_text(plan).splitlines()[1].endswith("fused, 4 Half: layers.0-2,5.attention")


def test_a_plan_without_layers_says_so(tmp_path: Path) -> None:
    (tmp_path / ENGINES).mkdir()
    (tmp_path / ENGINES / "rtx.json").write_text(json.dumps(to_json(record(LOGS[0]))))
    plan = read_plan(bundle(tmp_path, "rtx"), "rtx")
    assert plan.layers == ()
    assert "its layers were not recorded; build the engine again with --force" in plan_text(plan)


@pytest.mark.parametrize("text", ["", "[]", "{}"])
def test_a_damaged_sidecar_is_refused(tmp_path: Path, text: str) -> None:
    (tmp_path / ENGINES).mkdir()
    (tmp_path / ENGINES / "rtx.json").write_text(text)
    with pytest.raises(BundleError, match=r"rtx\.json cannot be read .*; build the engine again"):
        read_plan(bundle(tmp_path, "rtx"), "rtx")


def test_what_is_read_is_what_was_verified(tmp_path: Path) -> None:
    """A sidecar that is not listed, or was replaced or removed since the bundle was verified, is never shown."""
    (tmp_path / ENGINES).mkdir()
    path = tmp_path / ENGINES / "rtx.json"
    unlisted = bundle(tmp_path, "rtx")
    path.write_text(json.dumps(to_json(record(LOGS[0]))))
    with pytest.raises(BundleError, match=r"does not list engines/rtx\.json, so it is not used"):
        read_plan(unlisted, "rtx")
    verified = bundle(tmp_path, "rtx")
    assert read_plan(verified, "rtx")
    path.write_text(path.read_text().replace("1.", "2."))
    with pytest.raises(BundleError, match=r"rtx\.json is not the file that bundle\.json describes"):
        read_plan(verified, "rtx")
    path.unlink()
    with pytest.raises(BundleError, match=r"rtx\.json cannot be read: No such file or directory; copy the bundle"):
        read_plan(verified, "rtx")


def test_which_engine(tmp_path: Path) -> None:
    one, two = bundle(tmp_path, "a"), bundle(tmp_path, "a", "b")
    assert choose_engine(one, None) == choose_engine(two, "a") == "a"
    with pytest.raises(UsageError, match="holds 2 engines; name one with engine: a, b"):
        choose_engine(two, None)
    with pytest.raises(UsageError, match=r"'c' is not in .*; it holds a, b"):
        choose_engine(two, "c")
    with pytest.raises(UsageError, match="holds no engine, so there is no plan; run: vivit build"):
        choose_engine(bundle(tmp_path), None)
