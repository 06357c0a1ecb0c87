"""The calls of CUDA that a session makes, on a GPU made of NumPy: each status is looked at, all memory goes back."""

from __future__ import annotations

import sys
from typing import Any

import numpy as np
import pytest
from fake_gpu import FakeCuda, Status

from vivit_export.errors import EnvironmentFault, MissingDependencyError
from vivit_export.runtime.session.cuda import Buffer, Cuda


@pytest.fixture
def fake(monkeypatch: pytest.MonkeyPatch) -> FakeCuda:
    gpu = FakeCuda(devices=2, sm=89)
    monkeypatch.setitem(sys.modules, "cuda.bindings.runtime", gpu)
    return gpu


def test_the_compute_capability_is_one_number(fake: FakeCuda) -> None:
    assert (Cuda(1, "gpu").sm, fake.calls[0]) == (89, "cudaGetDeviceCount")


@pytest.mark.parametrize("gpu", [2, 7])
def test_a_gpu_that_is_not_there(fake: FakeCuda, gpu: int) -> None:
    with pytest.raises(EnvironmentFault, match=f"there is no GPU {gpu}: this machine has 2, counted from 0"):
        Cuda(gpu, "gpu")


def test_without_a_driver_an_older_cuda_python_raises(fake: FakeCuda, monkeypatch: pytest.MonkeyPatch) -> None:
    """12.8, where newer ones return a status."""

    def refuse() -> None:
        raise RuntimeError('Function "cuInit" not found')

    monkeypatch.setattr(fake, "cudaGetDeviceCount", refuse)
    with pytest.raises(
        EnvironmentFault, match=r'^no NVIDIA GPU can be used here \(Function "cuInit" not found\); check '
    ):
        Cuda(0, "gpu")


def test_without_cuda_python_its_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "cuda.bindings.runtime", None)
    with pytest.raises(MissingDependencyError, match=r'pip install "vivit-export\[rtx\]"'):
        Cuda(0, "rtx")


@pytest.mark.parametrize(
    ("result", "given"), [((Status.cudaSuccess,), None), ((Status.cudaSuccess, 7), 7), ((0, "x"), "x")]
)
def test_what_a_call_gave_besides_its_status(fake: FakeCuda, result: tuple[Any, ...], given: object) -> None:
    assert Cuda(0, "gpu").check(result) == given


@pytest.mark.parametrize(
    ("status", "said"),
    [
        (Status.cudaErrorStreamCaptureUnsupported, "GPU 1 failed with cudaErrorStreamCaptureUnsupported$"),
        (Status.cudaErrorMemoryAllocation, "cudaErrorMemoryAllocation; free GPU memory, or take a smaller batch$"),
        (700, "GPU 1 failed with 700$"),
    ],
)
def test_a_status_is_a_sentence(fake: FakeCuda, status: Any, said: str) -> None:
    with pytest.raises(EnvironmentFault, match=said):
        Cuda(1, "gpu").check((status, 1))


@pytest.mark.parametrize("dtype", [np.uint8, np.float32])
@pytest.mark.parametrize("count", [1, 3])
def test_as_many_clips_are_copied_as_there_are(fake: FakeCuda, dtype: Any, count: int) -> None:
    cuda = Cuda(0, "gpu")
    buffer, stream = Buffer(cuda, (3, 4, 5), np.dtype(dtype)), cuda.stream()
    clips = np.arange(60, dtype=dtype).reshape(3, 4, 5)
    buffer.upload(clips[:count], stream)
    cuda.synchronize(stream)
    buffer.host[...] = 200
    buffer.download(count, stream)
    assert (buffer.host == 200).all(), "a copy is done when its stream is waited for"
    cuda.synchronize(stream)
    np.testing.assert_array_equal(buffer.host[:count], clips[:count])
    assert (buffer.host[count:] == 200).all()
    buffer.free()
    buffer.free()
    assert not fake.memory and not fake.host


def test_pinned_memory_is_copied_from_where_it_is_and_freed_with_its_last_reference(fake: FakeCuda) -> None:
    cuda = Cuda(0, "gpu")
    buffer, stream = Buffer(cuda, (3, 4, 5), np.dtype(np.uint8)), cuda.stream()
    clips = cuda.pinned((3, 4, 5), np.dtype(np.uint8))
    assert cuda.is_pinned(clips) and cuda.is_pinned(clips[1:]) and not cuda.is_pinned(clips[:, 1:])
    assert not cuda.is_pinned(clips.copy())
    clips[...] = 7
    buffer.host[...] = 0
    buffer.upload(clips[:2], stream)
    cuda.synchronize(stream)
    assert not buffer.host.any()
    buffer.download(2, stream)
    cuda.synchronize(stream)
    assert (buffer.host[:2] == 7).all()
    buffer.free()
    part = clips[1:]
    del clips
    assert len(fake.host) == 1
    del part
    assert not fake.memory and not fake.host


@pytest.mark.parametrize("budget", [0, 100])
def test_a_buffer_that_fits_in_part_is_freed(fake: FakeCuda, budget: int) -> None:
    cuda, fake.budget = Cuda(0, "gpu"), budget
    with pytest.raises(EnvironmentFault, match="cudaErrorMemoryAllocation"):
        Buffer(cuda, (1, 100), np.dtype(np.uint8))
    assert not fake.memory and not fake.host
