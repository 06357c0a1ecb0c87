"""What identifies a device, as the kernels of several machines tell it."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
from fake_gpu import FakeCuda, Status

from vivit_export.runtime.session import device
from vivit_export.runtime.session.cuda import Cuda, device_of
from vivit_export.runtime.session.device import Device, cpu, gpu_driver


@pytest.mark.parametrize(
    ("text", "driver"),
    [
        (
            "NVRM version: NVIDIA UNIX x86_64 Kernel Module  535.104.05  Sat Aug 19 01:15:15 UTC 2023\nGCC: 12.2",
            "535.104.05, CUDA 13.0",
        ),
        (
            "NVRM version: NVIDIA UNIX Open Kernel Module for x86_64  580.65.06  Release Build  (dvs-builder)  \n",
            "580.65.06, CUDA 13.0",
        ),
        ("NVRM version: NVIDIA UNIX Open Kernel Module for aarch64  570.86  Release Build\n", "570.86, CUDA 13.0"),
        ("", "CUDA 13.0"),
        (None, "CUDA 13.0"),
    ],
)
def test_the_driver_of_a_gpu(text: str | None, driver: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(device, "_GPU_DRIVER", tmp_path / "version")
    if text is not None:
        (tmp_path / "version").write_text(text)
    assert gpu_driver(13000) == driver


def test_the_cuda_of_a_driver_has_a_dot() -> None:
    assert gpu_driver(12080).endswith("CUDA 12.8")


def test_a_gpu_is_its_name_and_driver(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "cuda.bindings.runtime", FakeCuda(name="NVIDIA L4\0\0"))
    assert Cuda(0, "gpu").device == device_of(0) == Device("NVIDIA L4", gpu_driver(13000))
    monkeypatch.setitem(sys.modules, "cuda.bindings.runtime", FakeCuda(status=Status.cudaErrorNoDevice))
    assert device_of(0) is None


X86 = "processor\t: {0}\nmodel name\t: AMD EPYC 7B13\ncpu MHz\t\t: {1}\nflags\t\t: fpu {2}\n\n"
ARM = "processor\t: 0\nBogoMIPS\t: 50.00\nFeatures\t: fp asimd\nCPU implementer\t: 0x41\nCPU part\t: 0xd4f\n\n"


def of(text: str, folder: Path, monkeypatch: pytest.MonkeyPatch) -> Device:
    (folder / "cpuinfo").write_text(text)
    monkeypatch.setattr(device, "_CPU", folder / "cpuinfo")
    return cpu()


def test_a_cpu_is_its_model_and_its_instructions(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    one = of(X86.format(0, "2445.404", "avx2") + X86.format(1, "2445.404", "avx2"), tmp_path, monkeypatch)
    assert one.name == "AMD EPYC 7B13"
    assert one == of(X86.format(0, "3400.1", "avx2"), tmp_path, monkeypatch)
    assert one != of(X86.format(0, "2445.404", "avx2 avx512f"), tmp_path, monkeypatch)  # of another virtual machine
    assert of(ARM, tmp_path, monkeypatch).name == "0x41 0xd4f"
    (tmp_path / "cpuinfo").unlink()
    assert cpu().name


def test_this_cpu_is_always_the_same() -> None:
    assert cpu() == cpu()
    assert str(cpu()) == f"{cpu().name} ({cpu().driver})"
