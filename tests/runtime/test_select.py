"""Which engine is taken, and what is said about the others."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
from bundles import Bundles, add_plan, need

import vivit_export as ve
from vivit_export.errors import BundleError, EnvironmentFault, MissingDependencyError, UsageError
from vivit_export.runtime.select import ORDER, _read_device


def test_every_engine_is_taken_or_has_its_reason(bundles: Bundles) -> None:
    need("onnxruntime", "openvino")
    with ve.open_session(bundles.demo(), device="cpu") as session:
        assert session.engine == next(name for name in ORDER if name in ("openvino", "onnxruntime-cpu"))
        assert {session.engine, *session.passed_over} == set(ORDER)
        assert session.passed_over["tensorrt"] == "it runs on cuda, but cpu was requested"
        other = ({"openvino", "onnxruntime-cpu"} - {session.engine}).pop()
        assert session.passed_over[other] == f"{session.engine} comes first in the order of preference"
        assert session.contract == bundles.demo().contract


def test_without_a_device_everything_is_tried(bundles: Bundles) -> None:
    need("onnxruntime")
    with ve.open_session(bundles.demo()) as session:
        assert "the bundle has no TensorRT engine; add one with: vivit build" in session.passed_over["tensorrt"]
        assert "the bundle has no TensorRT for RTX engine" in session.passed_over["tensorrt-rtx"]


@pytest.mark.field_case("onnxruntime 17801")
def test_a_cpu_build_of_onnxruntime_names_the_other(bundles: Bundles, monkeypatch: pytest.MonkeyPatch) -> None:
    need("onnxruntime")
    import onnxruntime

    monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: ["CPUExecutionProvider"])
    with pytest.raises(EnvironmentFault, match=r"this ONNX Runtime has no CUDA.*vivit-export\[gpu\]"):
        ve.open_session(bundles.demo(), prefer="onnxruntime-cuda")
    with ve.open_session(bundles.demo(), prefer="onnxruntime") as session:
        assert session.engine == "onnxruntime-cpu"
        assert "has no CUDA" in session.passed_over["onnxruntime-cuda"]
        assert session.passed_over["openvino"] == "onnxruntime was requested"


@pytest.mark.field_case("onnxruntime 23372")
def test_cuda_that_does_not_start_is_no_silent_cpu(bundles: Bundles, monkeypatch: pytest.MonkeyPatch) -> None:
    need("onnxruntime")
    import onnxruntime

    class Fallback:
        def __init__(self, *_args: object, **_kwargs: object) -> None: ...

        def get_providers(self) -> list[str]:
            return ["CPUExecutionProvider"]

    monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: ["CUDAExecutionProvider"])
    monkeypatch.setattr(onnxruntime, "InferenceSession", Fallback)
    with pytest.raises(EnvironmentFault, match="could not start CUDA on GPU 1"):
        ve.open_session(bundles.demo(), prefer="onnxruntime-cuda", device="cuda:1")


@pytest.mark.parametrize(
    ("module", "engine", "extra"),
    [
        ("onnxruntime", "onnxruntime-cpu", "cpu"),
        ("onnxruntime", "onnxruntime-cuda", "cpu"),
        ("openvino", "openvino", "openvino"),
        ("cuda.bindings.runtime", "tensorrt", "gpu"),
        ("cuda.bindings.runtime", "tensorrt-rtx", "rtx"),
    ],
)
def test_a_missing_package_names_its_extra(
    bundles: Bundles, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, module: str, engine: str, extra: str
) -> None:
    folder = bundles.copy(tmp_path / "bundle")
    add_plan(folder, "tensorrt", b"plan")
    bundle = add_plan(folder, "tensorrt-rtx", b"plan", flavour="tensorrt-rtx")
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(MissingDependencyError, match=rf"{engine} was requested.*vivit-export\[{extra}\]"):
        ve.open_session(bundle, prefer=engine)


def test_no_engine_at_all_lists_every_reason(bundles: Bundles, monkeypatch: pytest.MonkeyPatch) -> None:
    for module in ("onnxruntime", "openvino", "cuda.bindings.runtime"):
        monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(EnvironmentFault, match="no engine can run this bundle here: ") as caught:
        ve.open_session(bundles.demo())
    assert all(f"{name}: " in str(caught.value) for name in ORDER)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"prefer": "torch"}, "engine 'torch' is unknown; use one of tensorrt, "),
        ({"device": "gpu"}, "use cpu, cuda or cuda:N"),
        ({"device": "cuda:x"}, "use cpu, cuda or cuda:N"),
        ({"device": "cuda:"}, "use cpu, cuda or cuda:N"),
        ({"cpu_precision": "fp16"}, "use fp32 or bf16"),
        ({"cpu_precision": "bf16", "device": "cuda"}, "is for CPU engines"),
        ({"cpu_precision": "bf16", "prefer": "tensorrt"}, "is for CPU engines"),
    ],
)
def test_options_that_cannot_be(bundles: Bundles, options: dict[str, str], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        ve.open_session(bundles.demo(), **options)  # type: ignore[arg-type]


@pytest.mark.parametrize("file", ["model.onnx", "report.json", "engines/tensorrt.plan"])
def test_an_altered_file_is_refused_before_anything_is_loaded(bundles: Bundles, tmp_path: Path, file: str) -> None:
    folder = bundles.copy(tmp_path / "bundle")
    add_plan(folder, "tensorrt", b"plan")
    content = bytearray((folder / file).read_bytes())
    content[-1] ^= 1
    (folder / file).write_bytes(content)
    with pytest.raises(BundleError, match="was altered"):
        ve.open_session(folder)


@pytest.mark.parametrize("name", ["cpu", "cuda", "cuda:1"])
def test_a_device_of_pytorch_is_the_one_that_it_names(name: str) -> None:
    need("torch")
    import torch

    assert _read_device(torch.device(name)) == _read_device(name)  # type: ignore[arg-type]
