"""The device that PyTorch's networks run on: a GPU if PyTorch can use one."""

from __future__ import annotations

import torch

from vivit_export.errors import EnvironmentFault


def named_device(name: str | None) -> torch.device:
    """Return a device by name.

    Args:
        name: ``cpu``, ``cuda`` or ``cuda:N``; None: the first GPU, or the CPU.

    Raises:
        EnvironmentFault: PyTorch cannot use that GPU.
    """
    device = torch.device(name or ("cuda" if torch.cuda.is_available() else "cpu"))
    if device.type == "cuda" and not torch.cuda.is_available():
        raise EnvironmentFault(f"PyTorch {torch.__version__} cannot use {device} here; check nvidia-smi")
    return device


def device_beside(name: str | None) -> torch.device:
    """Return the device of an engine if PyTorch can use it too, else the CPU.

    A library that runs engines may use a GPU that PyTorch has no CUDA or no kernels for, so one is tried.

    Args:
        name: as for `named_device`.
    """
    device = torch.device(name or "cuda")
    if device.type == "cpu" or not torch.cuda.is_available():
        return torch.device("cpu")
    try:
        torch.zeros(1, device=device).add_(1)
    except RuntimeError:
        return torch.device("cpu")
    return device


def out_of_memory(error: RuntimeError) -> bool:
    """Whether a GPU had no memory left for PyTorch, or for the libraries that multiply matrices for it."""
    return isinstance(error, torch.OutOfMemoryError) or "ALLOC_FAILED" in str(error)


def use_full_float32() -> None:
    """Let matrix products and convolutions on GPUs be float32, not TF32, which rounds to 10 bits of mantissa."""
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = False
