"""What a machine can do: found by trying, in processes of their own, and told with the remedy."""

from __future__ import annotations

import importlib.metadata
import json
import re
import shutil
from pathlib import Path

import pytest
from bundles import Bundles, need
from command_line import runner

from vivit_export import doctor
from vivit_export.cli import vivit
from vivit_export.doctor import Ability, diagnose
from vivit_export.runtime.bench import nvidia_smi


def reasons(abilities: tuple[Ability, ...]) -> dict[str, str | None]:
    return {ability.what: ability.reason for ability in abilities}


@pytest.mark.needs_onnxruntime
@pytest.mark.needs_rtx
def test_it_finds_what_this_machine_has(bundles: Bundles) -> None:
    need("torch", "openvino", "tritonclient")
    found = diagnose(bundles.demo())
    can = reasons(found.abilities)
    for what in ("export checkpoints", "run on the CPU with ONNX Runtime, and check", "run on the CPU with OpenVINO"):
        assert can[what] is None
    assert can["build TensorRT for RTX engines"] is None and can["ask a Triton server"] is None
    runs = reasons(found.engines)
    assert runs["onnxruntime-cpu"] is None and runs["openvino"] is None
    assert "the bundle has no TensorRT engine" in str(runs["tensorrt"])
    assert found.packages["onnxruntime"] == importlib.metadata.version("onnxruntime")
    assert not found.outdated and not {"pytest", "mkdocs"} & found.packages.keys()


def test_a_machine_without_a_gpu_says_so() -> None:
    if nvidia_smi.gpu_model():
        pytest.skip("this machine has an NVIDIA GPU")
    can = reasons(diagnose().abilities)
    for what in ("run on a GPU with ONNX Runtime", "run TensorRT engines", "run TensorRT for RTX engines"):
        assert can[what]


def test_what_is_missing_is_told_with_the_command_that_installs_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor, "is_there", lambda _module: False)
    monkeypatch.setattr(doctor, "_tried", lambda *_: None)
    monkeypatch.setattr(doctor, "unavailable_reason", lambda _flavour: None)
    monkeypatch.setattr(shutil, "which", lambda _tool: None)
    can = reasons(diagnose().abilities)
    assert 'pip install "vivit-export[export' in str(can["export checkpoints"])
    assert 'pip install "vivit-export[triton]"' in str(can["ask a Triton server"])
    assert 'pip install "vivit-export[sign]"' in str(can["sign bundles, and require signatures"])
    assert can["build the C++ library"] == "cmake and c++ not found; install them"


def test_what_is_too_old_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    real = importlib.metadata.version
    monkeypatch.setattr(doctor, "_tried", lambda *_: None)
    monkeypatch.setattr(importlib.metadata, "version", lambda name: "0.1" if name == "onnx" else real(name))
    found = diagnose()
    assert found.outdated.keys() == {"onnx"}
    assert "\n  too old    onnx 0.1: 1.19 or newer is needed; pip install --upgrade onnx\n" in str(found)


@pytest.mark.parametrize(
    ("engine", "seconds", "told"),
    [
        ("nothing", 120, r"its library ended the process that tried it \(KeyError: 'nothing'\)"),
        ("openvino", 0.01, "did not"),
    ],
)
def test_a_library_that_crashes_or_hangs_is_told(
    monkeypatch: pytest.MonkeyPatch, engine: str, seconds: float, told: str
) -> None:
    monkeypatch.setattr(doctor, "_SECONDS", seconds)
    assert re.search(told, str(doctor._tried(engine)))


def test_a_machine_without_linux_files_is_described_all_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> str:
        raise OSError

    monkeypatch.setattr(Path, "read_text", refuse)
    assert doctor._memory() == "unknown" and doctor._instructions() == "instructions unknown"


def test_settings_are_named_without_their_values(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VIVIT_SECRET", "hush")
    monkeypatch.setattr(doctor, "_tried", lambda *_: None)
    text = str(diagnose())
    assert "VIVIT_SECRET" in text and "hush" not in text


@pytest.mark.needs_onnxruntime
def test_the_command_ends_with_7_if_nothing_runs_the_bundle(bundles: Bundles, monkeypatch: pytest.MonkeyPatch) -> None:
    bundle = str(bundles.demo().path)
    monkeypatch.setattr(doctor, "_tried", lambda *_: None)
    done = runner().invoke(vivit, ["doctor", bundle, "--json"])
    assert done.exit_code == 0, done.output
    told = json.loads(done.stdout)
    assert told["machine"]["python"] and {"what", "reason", "by"} == told["abilities"][0].keys()
    assert {engine["what"] for engine in told["engines"]} >= {"onnxruntime-cpu", "tensorrt"}
    monkeypatch.setattr(doctor, "ORDER", ("tensorrt",))
    done = runner().invoke(vivit, ["doctor", bundle])
    assert done.exit_code == 7
    assert "  no   tensorrt " in done.stdout and "no engine can run" in done.stderr


def test_a_package_that_cannot_be_imported_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    need("jinja2")
    (tmp_path / "jinja2.py").write_text("raise ValueError('it does not fit')")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    told = reasons(diagnose().abilities)["write reports as pages"]
    assert str(told).startswith("the package jinja2 is installed but cannot be imported (ValueError: it does not fit);")
