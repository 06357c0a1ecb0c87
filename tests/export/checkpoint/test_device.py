"""Eager networks on a GPU: which one, in which arithmetic, and what happens when its memory is full.

``meta`` stands in for a GPU: it has shapes and no values, and no operation takes tensors of it and of the CPU together.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import torch
from checkpoints import Checkpoints, normal_pixels
from family_checkpoints import CASES, folder

from vivit_export.errors import EnvironmentFault
from vivit_export.export.checkpoint.device import device_beside, named_device
from vivit_export.export.checkpoint.load import Checkpoint, load_checkpoint
from vivit_export.export.checkpoint.tapped_network import run_tapped
from vivit_export.precision import Precision

META = torch.device("meta")
NO_VALUES = "Cannot copy out of meta tensor"


@pytest.mark.parametrize("precision", [Precision.FP32, Precision.BF16])
@pytest.mark.parametrize("case", CASES)
def test_all_of_a_network_moves_to_the_device(case: str, precision: Precision) -> None:
    checkpoint = load_checkpoint(str(folder(case)))
    checkpoint.move(META)
    assert checkpoint.device == META
    pixels = normal_pixels(checkpoint, 1)
    with torch.inference_mode():
        outputs = checkpoint.outputs(torch.from_numpy(pixels).to(META))
    assert {output.device for output in outputs.values()} == {META}
    for run in (checkpoint.run_eager, lambda *given: run_tapped(checkpoint, *given)):
        with pytest.raises(NotImplementedError, match=NO_VALUES):  # the first copy to the host, not an operation
            run(pixels, precision)


FULL = (
    torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 452.00 MiB"),
    RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"),
)


class Full:
    """A network on a device whose memory is full."""

    def __init__(self, checkpoint: Checkpoint, error: RuntimeError, monkeypatch: pytest.MonkeyPatch) -> None:
        self.attempts: list[str] = []
        self._error = error
        self._embedding = checkpoint.adapter.embedding
        monkeypatch.setattr(type(checkpoint.adapter), "embedding", lambda _, *given: self(*given))

    def __call__(self, network: Any, pixels: torch.Tensor) -> torch.Tensor:
        self.attempts.append(pixels.device.type)
        if pixels.device == META:
            raise self._error
        return self._embedding(network, pixels)


@pytest.mark.parametrize(("precision", "error"), [(Precision.FP32, FULL[0]), (Precision.FP16, FULL[1])])
def test_a_gpu_without_the_memory_leaves_the_work_to_the_cpu(
    checkpoints: Checkpoints, precision: Precision, error: RuntimeError, monkeypatch: pytest.MonkeyPatch
) -> None:
    checkpoint, other = checkpoints.load(), checkpoints.load()
    pixels = normal_pixels(checkpoint, 2)
    expected = other.run_eager(pixels, precision)
    taps, _ = run_tapped(other, pixels[:1], precision)
    weights = checkpoint.network.state_dict()
    full = Full(checkpoint, error, monkeypatch)
    move = Checkpoint.move

    def moved(self: Checkpoint, device: torch.device) -> None:  # meta has lost the values
        if device.type == "cpu":
            self.network.to_empty(device=device)
            self.network.load_state_dict(weights)
        move(self, device)

    monkeypatch.setattr(Checkpoint, "move", moved)
    for run in (lambda: checkpoint.run_eager(pixels, precision), lambda: run_tapped(checkpoint, pixels[:1], precision)):
        checkpoint.move(META)
        full.attempts.clear()
        found = run()
        assert full.attempts[:2] == ["meta", "cpu"] and checkpoint.device.type == "cpu"
        values = found.values() if isinstance(found, dict) else found[0]
        for value, right in zip(values, expected.values() if isinstance(found, dict) else taps, strict=True):
            np.testing.assert_allclose(value, right, rtol=0, atol=1e-6)


def test_another_fault_of_a_gpu_is_not_hidden(checkpoints: Checkpoints, monkeypatch: pytest.MonkeyPatch) -> None:
    checkpoint = checkpoints.load()
    monkeypatch.setattr(Checkpoint, "device", META)
    Full(checkpoint, RuntimeError("CUDA error: an illegal memory access was encountered"), monkeypatch)
    with pytest.raises(RuntimeError, match="illegal memory access"):
        checkpoint.run_eager(normal_pixels(checkpoint, 1))


def test_a_full_cpu_is_not_tried_again(checkpoints: Checkpoints, monkeypatch: pytest.MonkeyPatch) -> None:
    checkpoint = checkpoints.load()
    attempts = []

    def embedding(_: Any, __: Any, pixels: torch.Tensor) -> torch.Tensor:
        attempts.append(pixels)
        raise torch.OutOfMemoryError

    monkeypatch.setattr(type(checkpoint.adapter), "embedding", embedding)
    with pytest.raises(torch.OutOfMemoryError):
        checkpoint.run_eager(normal_pixels(checkpoint, 1))
    assert len(attempts) == 1


def with_cuda(monkeypatch: pytest.MonkeyPatch, *, fails: bool = False) -> None:
    """Let PyTorch say that it has CUDA, with kernels for this GPU or without."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)

    def zeros(*_: Any, device: torch.device) -> torch.Tensor:
        assert device.type == "cuda"
        if fails:
            raise RuntimeError("CUDA error: no kernel image is available for execution on the device")
        return torch.ones(1)

    monkeypatch.setattr(torch, "zeros", zeros)


@pytest.mark.parametrize(
    ("name", "there", "fails", "expected"),
    [
        (None, True, False, "cuda"),
        ("cuda:1", True, False, "cuda:1"),
        ("cpu", True, False, "cpu"),
        (None, True, True, "cpu"),
        ("cuda:1", True, True, "cpu"),
        (None, False, False, "cpu"),
        ("cuda", False, False, "cpu"),
    ],
)
def test_the_reference_runs_beside_the_engine(
    name: str | None, there: bool, fails: bool, expected: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    if there:
        with_cuda(monkeypatch, fails=fails)
    assert str(device_beside(name)) == expected


def test_a_device_to_be_timed_is_not_exchanged(monkeypatch: pytest.MonkeyPatch) -> None:
    assert named_device(None).type == named_device("cpu").type == "cpu"
    with pytest.raises(EnvironmentFault, match=r"PyTorch .* cannot use cuda:0 here; check nvidia-smi"):
        named_device("cuda:0")
    with_cuda(monkeypatch)
    assert str(named_device(None)) == "cuda" and str(named_device("cuda:2")) == "cuda:2"


@pytest.fixture
def tf32() -> Iterator[tuple[Any, Any]]:
    """The switches of matrix products and convolutions, both on."""
    switches: tuple[Any, Any] = (torch.backends.cuda.matmul, torch.backends.cudnn)
    before = [switch.allow_tf32 for switch in switches]
    for switch in switches:
        switch.allow_tf32 = True
    yield switches
    for switch, value in zip(switches, before, strict=True):
        switch.allow_tf32 = value


def test_float32_is_not_tf32(checkpoints: Checkpoints, tf32: tuple[Any, Any]) -> None:
    checkpoints.load().move(torch.device("cpu"))
    assert [switch.allow_tf32 for switch in tf32] == [False, False]


def test_a_report_names_the_gpu(checkpoints: Checkpoints, monkeypatch: pytest.MonkeyPatch) -> None:
    checkpoint = checkpoints.load()
    assert checkpoint.framework == f"PyTorch {torch.__version__}"
    monkeypatch.setattr(Checkpoint, "device", torch.device("cuda:1"))
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: f"GPU {device.index}")
    assert checkpoint.framework == f"PyTorch {torch.__version__} on GPU 1"
