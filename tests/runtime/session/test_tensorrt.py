"""The TensorRT session's logic, on a GPU made of NumPy (fake_gpu.py)."""

from __future__ import annotations

import importlib
import logging
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Barrier
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from bundles import Bundles, add_plan, need, random_crops
from fake_gpu import TENSORS, FakeCuda, FakeTensorRT, Status, compute

import vivit_export as ve
from vivit_export.bundle import Bundle
from vivit_export.errors import BundleError, EnvironmentFault
from vivit_export.flavour import Flavour
from vivit_export.runtime import Preprocessor
from vivit_export.runtime.session.tensorrt import open_engine


class Machine:
    """A bundle with an engine, and a machine that can run it unless a test changes something."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.folder = folder
        self._monkeypatch = monkeypatch
        self.bundle: Bundle = add_plan(folder, "tensorrt", b"ftrt plan")
        self.install(FakeCuda())

    def install(self, cuda: FakeCuda, **options: Any) -> None:
        self.cuda = cuda
        self.trt = FakeTensorRT(cuda, options.pop("tensors", TENSORS), compute, **options)
        for name, module in (("tensorrt", self.trt), ("tensorrt_rtx", self.trt), ("cuda.bindings.runtime", cuda)):
            self._monkeypatch.setitem(sys.modules, name, module)

    def open(self, **options: Any) -> ve.Session:
        return ve.open_session(self.bundle, **options)


@pytest.fixture
def machine(bundles: Bundles, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Machine:
    return Machine(bundles.copy(tmp_path / "bundle"), monkeypatch)


def test_it_is_preferred_and_runs(machine: Machine) -> None:
    with machine.open() as session:
        assert session.engine == "tensorrt"
        assert session.details == "TensorRT 11.4.0.106, GPU 0 (sm_90), fp32, engine tensorrt"
        assert "comes first in the order" in session.passed_over["onnxruntime-cpu"]
        assert session.batches == (1, 4)
        assert machine.trt.plans == [b"ftrt plan"]
        for count in (1, 3, 4, 11, 3):
            clips = random_crops(machine.bundle, count, seed=count)
            results = session.run(clips)
            for name, expected in compute(clips).items():
                np.testing.assert_array_equal(results[name], expected)
    assert not machine.cuda.memory
    assert not machine.cuda.queues
    assert not machine.cuda.graphs


def test_each_batch_size_is_captured_once(machine: Machine) -> None:
    with machine.open() as session:
        for _ in range(3):
            session.infer(random_crops(machine.bundle, 5))  # 4 and 1
        assert machine.cuda.launched == 4
        assert len(machine.cuda.graphs) == 2
        assert len(machine.trt.contexts) == 1


def test_threads_have_contexts_of_their_own(machine: Machine) -> None:
    clips = [random_crops(machine.bundle, 1 + i % 4, seed=i) for i in range(8)]
    together = Barrier(4)

    def work(i: int) -> npt.NDArray[np.float32]:
        together.wait(10)
        return session.infer(clips[i % 8])

    with machine.open() as session:
        with ThreadPoolExecutor(4) as pool:
            results = list(pool.map(work, range(200)))
        for i, logits in enumerate(results):
            np.testing.assert_array_equal(logits, compute(clips[i % 8])["logits"])
        assert 1 <= len(machine.trt.contexts) <= 4
    assert not machine.cuda.memory


def test_clips_of_an_iterator_go_to_the_gpu_from_where_they_were_written(
    machine: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    clips = random_crops(machine.bundle, 23)
    crops = Preprocessor.from_bundle(machine.bundle.path).crops
    expected = compute(np.stack([crops(clip) for clip in clips]))["logits"]
    copied: list[int] = []
    copyto = np.copyto

    def counted(*arguments: Any, **named: Any) -> None:
        copied.append(1)
        copyto(*arguments, **named)

    monkeypatch.setattr(np, "copyto", counted)
    with machine.open() as session:
        for logits, found in zip(expected, session.run(iter(clips), readers=2), strict=True):
            assert found.logits is not None
            np.testing.assert_array_equal(found.logits, logits)
        assert not copied
        session.run(clips[:1])  # an ordinary array is copied
        assert copied
        assert len(machine.trt.contexts) <= 2
    assert not machine.cuda.memory and not machine.cuda.host


def test_without_a_graph_it_runs_and_says_so(machine: Machine, caplog: pytest.LogCaptureFixture) -> None:
    machine.trt.failing.add("capture")
    clips = random_crops(machine.bundle, 2)
    with machine.open() as session, caplog.at_level(logging.WARNING):
        for _ in range(3):
            np.testing.assert_array_equal(session.infer(clips), compute(clips)["logits"])
    assert machine.cuda.launched == 0
    assert [r.getMessage() for r in caplog.records] == [
        "batches of 2 run without a CUDA graph: the engine could not run a batch of 2"
    ]


def test_the_flavour_for_rtx_compiles_kernels_before_they_are_captured(machine: Machine) -> None:
    machine.install(FakeCuda(sm=89), version="1.7.1.116")
    machine.bundle = add_plan(
        machine.folder, "tensorrt-rtx-sm89", b"vtrt", flavour="tensorrt-rtx", version="1.7.1.116", sms=[89, 120]
    )
    with machine.open() as session:
        assert session.engine == "tensorrt-rtx"
        assert "TensorRT 1.7.1.116 is installed" in session.passed_over["tensorrt"]
        session.infer(random_crops(machine.bundle, 1))
    strategy = machine.trt.contexts[0]["config"].dynamic_shapes_kernel_specialization_strategy
    assert strategy.name == "EAGER"


# --- what does not fit -------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("cuda", "message"),
    [
        (FakeCuda(status=Status.cudaErrorInsufficientDriver), r"no NVIDIA GPU can be used here \(cudaErrorInsuff"),
        (FakeCuda(status=Status.cudaErrorNoDevice), r"\(cudaErrorNoDevice\)"),
        (FakeCuda(devices=0), r"\(none is visible\)"),
        (FakeCuda(devices=1), "there is no GPU 1: this machine has 1"),
    ],
)
def test_no_gpu_no_tensorrt(machine: Machine, cuda: FakeCuda, message: str) -> None:
    machine.install(cuda)
    with pytest.raises(EnvironmentFault, match=message):
        machine.open(prefer="tensorrt", device="cuda:1")
    assert not machine.trt.plans


@pytest.mark.parametrize(
    ("cuda", "version", "has"),
    [
        (FakeCuda(sm=90), "11.3.0.1", "TensorRT 11.3.0.1 on sm_90"),
        (FakeCuda(sm=100), "11.4.0.106", "TensorRT 11.4.0.106 on sm_100"),
    ],
)
@pytest.mark.field_case("TensorRT 2176")
def test_an_engine_for_another_machine_is_not_touched(machine: Machine, cuda: FakeCuda, version: str, has: str) -> None:
    machine.install(cuda, version=version)
    with pytest.raises(EnvironmentFault, match=r"was built for TensorRT 11\.4\.0\.106 on sm_90; this machine has") as e:
        machine.open(prefer="tensorrt")
    assert has in str(e.value)
    assert "vivit build" in str(e.value)
    assert not machine.trt.plans


@pytest.mark.parametrize(
    ("flavour", "version", "lowest", "extra"),
    [(Flavour.TENSORRT, "10.2.0", "10.3", "gpu"), (Flavour.TENSORRT_RTX, "1.4.0.76", "1.5", "rtx")],
)
def test_versions_that_were_never_checked_are_refused(
    machine: Machine, flavour: Flavour, version: str, lowest: str, extra: str
) -> None:
    machine.bundle = add_plan(machine.folder, str(flavour), b"plan", flavour=flavour, version=version)
    machine.install(FakeCuda(), version=version)
    with pytest.raises(EnvironmentFault, match=f"{version} is installed, but {lowest} or newer is needed") as e:
        machine.open(prefer=str(flavour))
    assert f'pip install --upgrade "vivit-export[{extra}]"' in str(e.value)
    assert not machine.trt.plans


@pytest.mark.field_case("TensorRT 564")
def test_the_engine_that_fits_is_found_among_several(machine: Machine) -> None:
    machine.bundle = add_plan(machine.folder, "another", b"other", sms=[100])
    machine.install(FakeCuda(sm=100))
    with machine.open() as session:
        assert session.details.endswith("engine another")
    with pytest.raises(EnvironmentFault, match="tensorrt was built for TensorRT"):
        open_engine(machine.bundle, Flavour.TENSORRT, "tensorrt")
    with machine.open(prefer="another") as session:
        assert machine.trt.plans == [b"other", b"other"]


def test_an_engine_swapped_after_the_check_is_refused(machine: Machine) -> None:
    machine.bundle.engine_path("tensorrt").write_bytes(b"ftrt evil")
    with pytest.raises(BundleError, match="was altered"):
        machine.open()
    assert not machine.trt.plans


def test_an_engine_of_another_graph_is_refused(machine: Machine) -> None:
    machine.bundle = add_plan(machine.folder, "tensorrt", b"ftrt plan", onnx_sha256="0" * 64)
    with pytest.raises(BundleError, match=r"built from another model\.onnx"):
        machine.open()
    assert not machine.trt.plans


@pytest.mark.parametrize(
    ("name", "tensor", "message"),
    [
        ("frames", ("INPUT", "HALF", (8, 64, 64, 3)), "has frames as HALF"),
        ("logits", ("OUTPUT", "FLOAT", (9,)), r"has logits as FLOAT \(9,\), but the contract says float32 \(8,\)"),
        ("logits", ("INPUT", "FLOAT", (8,)), "has no output logits"),
        ("embedding", None, "has no output embedding"),
    ],
)
def test_other_inputs_and_outputs_are_refused(machine: Machine, name: str, tensor: Any, message: str) -> None:
    tensors = {n: t for n, t in {**TENSORS, name: tensor}.items() if t is not None}
    machine.install(FakeCuda(), tensors=tensors)
    with pytest.raises(BundleError, match=message):
        machine.open()


# --- what fails on the way ---------------------------------------------------------------------


@pytest.mark.parametrize(
    ("method", "message"),
    [
        ("create_execution_context", "cannot make an execution context"),
        ("set_tensor_address", "could not bind frames"),
        ("set_input_shape", "could not take a batch of 2"),
        ("execute_async_v3", "could not run a batch of 2"),
    ],
)
def test_no_status_is_ignored(machine: Machine, method: str, message: str) -> None:
    session = machine.open()
    machine.trt.failing.add(method)
    with pytest.raises(EnvironmentFault, match=message):
        session.infer(random_crops(machine.bundle, 2))
    machine.trt.failing.clear()
    clips = random_crops(machine.bundle, 2)
    np.testing.assert_array_equal(session.infer(clips), compute(clips)["logits"])
    session.close()
    assert not machine.cuda.memory
    assert not machine.cuda.queues


def test_what_tensorrt_said_is_told(machine: Machine) -> None:
    machine.trt.failing.add("deserialize_cuda_engine")
    with pytest.raises(EnvironmentFault, match=r"TensorRT refuses the engine tensorrt \(.*magic tag mismatch\)"):
        machine.open(prefer="tensorrt")


@pytest.mark.parametrize("budget", [100, 8 * 64 * 64 * 3 * 4 + 100])
def test_full_memory_is_told_and_all_is_freed(machine: Machine, budget: int) -> None:
    machine.cuda.budget = budget
    session = machine.open()
    with pytest.raises(EnvironmentFault, match="failed with cudaErrorMemoryAllocation; free GPU memory"):
        session.infer(random_crops(machine.bundle, 1))
    session.close()
    assert not machine.cuda.memory
    assert not machine.cuda.queues


def test_the_real_rtx_runtime_refuses_what_is_no_engine(machine: Machine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(sys.modules, "tensorrt_rtx")
    need("tensorrt_rtx")
    trt = importlib.import_module("tensorrt_rtx")
    machine.cuda._sm = 89
    options = {"flavour": "tensorrt-rtx", "version": trt.__version__, "sms": [89]}
    machine.bundle = add_plan(machine.folder, "rtx", b"not an engine at all" * 100, **options)
    with pytest.raises(EnvironmentFault, match="TensorRT for RTX refuses the engine rtx"):
        machine.open(prefer="rtx")


def test_steps_are_timed_apart_and_give_the_same_result(machine: Machine) -> None:
    clips = random_crops(machine.bundle, 2)
    with machine.open(prefer="tensorrt") as session:
        steps = session.run_in_steps(clips)
        assert list(steps) == ["host to device", "compute", "device to host"]
        assert all(seconds >= 0 for seconds in steps.values())
        np.testing.assert_array_equal(session.run(clips)["logits"], compute(clips)["logits"])
        launched = machine.cuda.launched
        session.run_in_steps(clips)
        assert machine.cuda.launched == launched  # its graph would be one step
