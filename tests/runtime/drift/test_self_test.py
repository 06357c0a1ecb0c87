"""One golden clip before a session answers: when it runs, what is refused, and what is remembered."""

from __future__ import annotations

import shutil
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from bundles import Bundles, add_plan, need
from empty_cache import cache
from fake_gpu import FakeCuda
from safetensors.numpy import load_file, save_file
from stand_in_engine import StandInTensorRT, damaged, plan_of

import vivit_export as ve
from vivit_export.bundle import Bundle, read_bundle, write_manifest
from vivit_export.bundle.engines import Verification
from vivit_export.cli.flags import flag
from vivit_export.errors import BundleError, DriftError
from vivit_export.records import to_json
from vivit_export.runtime.drift.check import first_golden_clip, golden_clips
from vivit_export.runtime.session.device import cpu, gpu_driver

__all__ = ["cache"]
pytestmark = pytest.mark.needs_onnxruntime


@pytest.fixture(scope="module")
def good(bundles: Bundles) -> Bundle:
    return bundles.demo(check=True, num_clips=3)


def copied(bundle: Bundle, to: Path) -> Path:
    return Path(shutil.copytree(bundle.path, to))


def with_graph(folder: Path, graph: bytes) -> Bundle:
    """A bundle whose graph was replaced after the export's check, as by a library that computes it otherwise."""
    (folder / "model.onnx").write_bytes(graph)
    write_manifest(folder, read_bundle(folder, verify=False).manifest.content)
    return read_bundle(folder)


@pytest.fixture
def wrong(good: Bundle, tmp_path: Path) -> Bundle:
    """A bundle that computes wrongly in one block."""
    return with_graph(copied(good, tmp_path / "wrong"), damaged(good.model.read_bytes()))


def test_it_runs_once_on_a_device(good: Bundle, cache: Path) -> None:
    with ve.open_session(good, "onnxruntime-cpu") as session:
        assert session.self_test.startswith("passed: clear_flips 0, cosine 1, embedding_cosine 1, max ")
    assert len(list(cache.iterdir())) == 1
    with ve.open_session(good, "onnxruntime-cpu") as session:
        assert session.self_test == "not needed: passed on this device before"


def test_a_copy_of_the_bundle_needs_no_other(good: Bundle, tmp_path: Path) -> None:
    ve.open_session(good, "onnxruntime-cpu").close()
    with ve.open_session(copied(good, tmp_path / "copy"), "onnxruntime-cpu") as session:
        assert session.self_test == "not needed: passed on this device before"


def test_another_engine_device_or_library_does(good: Bundle, monkeypatch: pytest.MonkeyPatch) -> None:
    need("openvino")
    ve.open_session(good, "onnxruntime-cpu").close()
    with ve.open_session(good, "openvino") as session:
        assert session.self_test.startswith("passed: ")
    other = type(cpu())("Another CPU", cpu().driver)
    monkeypatch.setattr("vivit_export.runtime.session.onnxruntime.cpu", lambda: other)
    with ve.open_session(good, "onnxruntime-cpu") as session:
        assert session.self_test.startswith("passed: ")


def test_an_engine_that_computes_wrongly_in_one_block_is_refused(wrong: Bundle, cache: Path) -> None:
    for _ in range(2):  # a failure is not remembered
        with pytest.raises(DriftError, match=r"max [\d.]+ is above 0\.0001") as e:
            ve.open_session(wrong, "onnxruntime-cpu")
    sentence = str(e.value)
    assert sentence.startswith("ONNX Runtime ")
    assert f" computes wrongly on {cpu()}: for the first golden clip of {wrong.path}, " in sentence
    assert sentence.endswith("or choose another one (self_test=False opens it anyway)")
    assert "(--no-self-test opens it anyway)" in e.value.worded(flag)
    assert e.value.exit_code == 5
    assert not cache.exists()


def test_it_is_refused_without_a_preference_too(wrong: Bundle) -> None:
    """Another engine would hide it, and this one may be a hundred times as fast."""
    with pytest.raises(DriftError, match="computes wrongly"):
        ve.open_session(wrong)


def test_a_caller_can_leave_it_out(wrong: Bundle) -> None:
    with ve.open_session(wrong, "onnxruntime-cpu", self_test=False) as session:
        assert session.self_test == "left out"


def test_a_check_measures_by_itself(wrong: Bundle, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("vivit_export.runtime.drift.self_test.self_test", None)
    assert not ve.check(wrong, engine="onnxruntime-cpu").passed


def test_a_bundle_without_golden_clips_opens(bundles: Bundles, cache: Path) -> None:
    with ve.open_session(bundles.demo(), "onnxruntime-cpu") as session:
        assert session.self_test == "not run: the bundle has no golden clips"
    assert not cache.exists()


def test_limits_on_all_clips_do_not_refuse_one(good: Bundle, tmp_path: Path) -> None:
    """An agreement of one clip is 0 or 1, and a near flip is within what the gate allows."""
    folder = copied(good, tmp_path / "bundle")
    arrays = load_file(folder / "golden.safetensors")
    two = np.sort(arrays["logits"][0])[-2:]
    first = int(arrays["logits"][0].argmax())
    second = int(arrays["logits"][0].argsort()[-2])
    scale = float(np.ptp(arrays["logits"]))
    assert two[1] > two[0]
    arrays["logits"][0, [first, second]] += np.array([-1, 1], np.float32) * ((two[1] - two[0]) / 2 + 2e-5 * scale)
    save_file(arrays, folder / "golden.safetensors")
    content = read_bundle(folder, verify=False).manifest.content
    content.checks.gate.limits.update(top1=1.0, rms=1e-9, max=0.9, cosine=0.5)  # type: ignore[union-attr]
    write_manifest(folder, content)
    with ve.open_session(folder, "onnxruntime-cpu") as session:
        assert session.self_test.startswith("passed: ")


def test_a_lower_type_that_was_asked_for_may_drift_as_it_does(good: Bundle) -> None:
    need("openvino")
    try:
        session = ve.open_session(good, "openvino", cpu_precision="bf16")
    except ve.errors.EnvironmentFault as e:
        pytest.skip(str(e))
    with session:
        assert session.self_test.startswith("passed: ")


# --- compiled engines, on a GPU made of NumPy ------------------------------------------------------


class Gpu:
    """A machine with a GPU and a bundle with an engine for it."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.folder = folder
        self._monkeypatch = monkeypatch

    def build(self, plan: bytes, **sidecar: Any) -> None:
        add_plan(self.folder, "tensorrt", plan, **sidecar)

    def open(self, **device: Any) -> ve.Session:
        cuda = FakeCuda(**device)
        for name, module in (("tensorrt", StandInTensorRT(cuda)), ("cuda.bindings.runtime", cuda)):
            self._monkeypatch.setitem(sys.modules, name, module)
        return ve.open_session(self.folder, "tensorrt")


@pytest.fixture
def gpu(good: Bundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Gpu:
    return Gpu(copied(good, tmp_path / "gpu"), monkeypatch)


def verified(device: str, driver: str) -> dict[str, Any]:
    return dict(to_json(Verification(device, driver, {}, 3, ())))


def test_where_it_was_verified_at_the_build_nothing_runs(gpu: Gpu, good: Bundle) -> None:
    graph = good.model.read_bytes()
    driver = gpu_driver(13000)
    gpu.build(plan_of(b"", damaged(graph), 1), verified_on=[verified("NVIDIA L4", driver)])
    with gpu.open(name="NVIDIA L4") as session:
        assert session.self_test == "not needed: verified on NVIDIA L4 when the engine was built"
    with pytest.raises(DriftError, match=r"GPU 0 \(sm_90\).* computes wrongly on NVIDIA H100"):
        gpu.open()
    gpu.build(plan_of(b"", damaged(graph), 1), verified_on=[verified("NVIDIA L4", "470.1, CUDA 11.4")])
    with pytest.raises(DriftError, match="computes wrongly on NVIDIA L4"):
        gpu.open(name="NVIDIA L4")


def test_another_gpu_of_the_same_kind_needs_no_other_and_a_rebuilt_engine_does(gpu: Gpu, good: Bundle) -> None:
    graph = good.model.read_bytes()
    gpu.build(plan_of(graph))
    for found in ("passed: ", "not needed: passed on this device before"):
        with gpu.open() as session:
            assert session.self_test.startswith(found)
    with gpu.open(name="NVIDIA H200") as session:
        assert session.self_test.startswith("passed: ")
    gpu.build(plan_of(graph, graph, 1000))
    with gpu.open() as session:
        assert session.self_test.startswith("passed: ")


def test_what_was_opened_for_a_refused_test_is_freed(gpu: Gpu, good: Bundle) -> None:
    gpu.build(plan_of(b"", damaged(good.model.read_bytes()), 1))
    with pytest.raises(DriftError):
        gpu.open()
    cuda: Any = sys.modules["cuda.bindings.runtime"]
    assert not cuda.memory and not cuda.queues and not cuda.graphs


# --- the first golden clip -------------------------------------------------------------------------


def test_the_first_clip_is_read_alone(good: Bundle) -> None:
    frames, outputs = golden_clips(good)
    first, all_outputs = first_golden_clip(good)
    np.testing.assert_array_equal(first, frames[:1])
    assert all_outputs.keys() == outputs.keys()
    for name, rows in outputs.items():
        np.testing.assert_array_equal(all_outputs[name], rows)


def test_golden_clips_that_were_altered_are_refused(good: Bundle, tmp_path: Path) -> None:
    folder = copied(good, tmp_path / "altered")
    bundle = read_bundle(folder)
    path = folder / "golden.safetensors"
    data = bytearray(path.read_bytes())
    data[-100_000] ^= 1  # in a clip that is not even used
    path.write_bytes(data)
    with pytest.raises(BundleError, match=r"is not the file that bundle\.json describes"):
        ve.open_session(bundle, "onnxruntime-cpu")
    path.write_bytes(data + b"\0")
    with pytest.raises(BundleError):
        ve.open_session(bundle, "onnxruntime-cpu")


def test_a_test_costs_less_than_opening(good: Bundle, monkeypatch: pytest.MonkeyPatch) -> None:
    """On the demo; where a clip takes seconds, so does loading the graph."""

    def seconds(self_test: bool) -> float:
        start = time.process_time()
        ve.open_session(good, "onnxruntime-cpu", self_test=self_test).close()
        return time.process_time() - start

    monkeypatch.setattr("vivit_export.runtime.drift.self_test.passed_before", lambda _: False)
    seconds(True)
    without = min(seconds(False) for _ in range(5))
    assert min(seconds(True) for _ in range(5)) < 2 * without
