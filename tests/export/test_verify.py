"""A new engine runs the golden clips where it was built: what is recorded of it, and that a wrong one is not added."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import stand_in_engine
from bundles import Bundles
from console import tree
from made_records import PLAN, engine_record
from noted import Noted
from stand_in_engine import damaged, plan_of

from vivit_export import __version__
from vivit_export.bundle import Bundle
from vivit_export.bundle.engines import EngineRecord, Sidecar
from vivit_export.bundle.manifest import Content
from vivit_export.errors import BuildError, DriftError
from vivit_export.export import build, verify
from vivit_export.export.engine import compile as engine_compile
from vivit_export.export.engine.compile import BuiltEngine, EngineRequest
from vivit_export.export.engine.table import read_plan
from vivit_export.flavour import Flavour
from vivit_export.progress import Silent
from vivit_export.records import from_json, to_json

pytestmark = pytest.mark.needs_onnxruntime


class Machine:
    """A machine with a GPU on which a compiler makes stand-in engines.

    Attributes:
        wrong_from: batch from which one block computes wrongly.
        plan: what the compiler makes instead.
    """

    def __init__(self) -> None:
        self.wrong_from: int | None = None
        self.plan: bytes | None = None
        self.version = "11.4.0.106"

    def build_engine(self, request: EngineRequest, out: Path, log: Path) -> BuiltEngine:
        graph = request.onnx.read_bytes()
        wrong = () if self.wrong_from is None else (damaged(graph), self.wrong_from)
        plan = self.plan if self.plan is not None else plan_of(graph, *wrong)
        out.write_bytes(plan)
        return BuiltEngine(request.flavour, self.version, (90,), request.batches, PLAN, (), 1.0, len(plan))


@pytest.fixture
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Machine:
    made = Machine()
    monkeypatch.setattr(build, "build_engine", made.build_engine)
    monkeypatch.setattr(build, "_prove", lambda *_: ["attention fused in 4 of 4 blocks (Float)"])
    monkeypatch.setattr("vivit_export.export.engine.options.unavailable_reason", lambda _: None)
    monkeypatch.setattr(verify, "_has_driver", lambda: True)
    monkeypatch.setenv("PYTHONPATH", stand_in_engine.install(tmp_path / "modules"))
    return made


@pytest.fixture
def folder(bundles: Bundles, tmp_path: Path) -> Path:
    return bundles.copy(tmp_path / "bundle", check=True, num_clips=3)


def add(folder: Path, progress: Silent | None = None, **options: Any) -> Bundle:
    return build.build_engines(folder, ["tensorrt"], batches=(1, 2, 4), progress=progress, **options)


def test_an_engine_that_computes_as_promised_is_verified_on_this_device(machine: Machine, folder: Path) -> None:
    made = add(folder)
    (found,) = made.engines["tensorrt"].verified_on
    assert found.device == "NVIDIA H100 80GB HBM3"
    assert found.driver.endswith("CUDA 13.0")
    assert found.versions == {"TensorRT": "11.4.0.106", "vivit-export": __version__}
    assert found.clips == 3
    assert [figures.batch for figures in found.batches] == [1, 2, 4]
    for figures in found.batches:  # what ONNX Runtime rounds otherwise than eager PyTorch
        assert figures.drift.max is not None and 0 < figures.drift.max < 1e-5
    # The sidecar says the same.
    assert read_plan(made, "tensorrt").record.verified_on == (found,)
    assert '"verified_on"' in (folder / "engines/tensorrt.json").read_text()


@pytest.mark.parametrize(("wrong_from", "batch"), [(1, 1), (2, 2), (4, 4)])
def test_an_engine_that_computes_wrongly_in_one_block_is_not_added(
    machine: Machine, folder: Path, wrong_from: int, batch: int
) -> None:
    before = tree(folder)
    machine.wrong_from = wrong_from
    with pytest.raises(DriftError, match=rf"at batch {batch}: .*max [\d.]+ is above 0\.0001") as e:
        add(folder)
    assert str(e.value).startswith("tensorrt computes wrongly on NVIDIA H100 80GB HBM3 (driver ")
    assert "no engine was added: build with another version of TensorRT, update the driver, or " in str(e.value)
    assert e.value.exit_code == 5
    assert tree(folder) == before
    assert [path.name for path in folder.parent.iterdir() if path.name.startswith(".bundle")] == []
    report = folder.with_name("bundle.failed")
    assert str(e.value).endswith(f"; the report is in {report}")
    told = json.loads((report / "report.json").read_text(encoding="utf-8"))
    checks = from_json(Content, {name: value for name, value in told.items() if name != "format"}, "report").checks
    assert checks is not None and not checks.passed
    runs = checks.runs[-3:]
    assert [(run.engine, run.batch) for run in runs] == [("tensorrt on NVIDIA H100 80GB HBM3", n) for n in (1, 2, 4)]
    assert [bool(run.drift and checks.gate.violations(run.drift)) for run in runs] == [n >= batch for n in (1, 2, 4)]
    assert "tensorrt on NVIDIA H100 80GB HBM3" in (report / "report.html").read_text(encoding="utf-8")
    machine.wrong_from = None
    add(folder)
    assert not report.exists()


def test_an_engine_that_replaces_another_must_pass_too(machine: Machine, folder: Path) -> None:
    add(folder)
    before = tree(folder)
    machine.wrong_from = 1
    with pytest.raises(DriftError):
        add(folder, force=True)
    assert tree(folder) == before


def test_an_engine_that_crashes_is_not_added(machine: Machine, folder: Path) -> None:
    before = tree(folder)
    machine.plan = b""  # which the stand-in cannot unpack: an exception that is not ours
    with pytest.raises(
        BuildError, match=r"tensorrt failed \(struct\.error: .*\) while it ran the golden clips; update"
    ):
        add(folder)
    assert tree(folder) == before


def test_an_engine_for_another_machine_is_told_not_to_have_run(machine: Machine, folder: Path) -> None:
    machine.version = "11.9.0.1"
    told = Noted()
    assert add(folder, told).engines["tensorrt"].verified_on == ()
    (note,) = told.notes
    assert note.startswith("tensorrt was not run: tensorrt was built for TensorRT 11.9.0.1 on sm_90; this machine has ")
    assert note.endswith("; its results are compared where it is first opened")


def test_without_a_driver_or_golden_clips_nothing_is_started(
    machine: Machine, bundles: Bundles, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(verify, "_ask", None)
    unchecked = bundles.copy(tmp_path / "unchecked")
    told = Noted()
    add(unchecked, told)
    assert told.notes == ["tensorrt was not run: the bundle has no golden clips, as it was exported without a check"]
    monkeypatch.setattr(verify, "_has_driver", lambda: False)
    told = Noted()
    add(folder, told)
    assert told.details[0].startswith("tensorrt was not run: there is no NVIDIA driver here; its results are compared")


@pytest.mark.needs_gpu
@pytest.mark.parametrize("flavour", list(Flavour))
def test_on_a_gpu_a_real_engine_is_verified(bundles: Bundles, tmp_path: Path, flavour: Flavour) -> None:
    if reason := engine_compile.unavailable_reason(flavour):
        pytest.skip(reason)
    folder = bundles.copy(tmp_path / "bundle", precision="fp16", check=True, num_clips=3)
    made = build.build_engines(folder, [str(flavour)], batches=(1, 2, 4))
    (name,) = made.engines
    found = made.engines[name].verified_on
    if flavour.ahead_of_time and not found:
        pytest.skip(f"this machine's GPU is none of SM {made.engines[name].sms}, for which {name} was built")
    assert found[0].device.startswith("NVIDIA ")
    assert [figures.batch for figures in found[0].batches] == [1, 2, 4]


def test_what_was_written_before_devices_were_recorded_is_still_read() -> None:
    data = to_json(engine_record())
    assert data.pop("verified_on") == []
    assert from_json(EngineRecord, data, "engine") == engine_record()
    assert from_json(Sidecar, {**data, "layers": []}, "sidecar").verified_on == ()
