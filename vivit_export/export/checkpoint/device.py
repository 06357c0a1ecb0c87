"""The device that PyTorch's networks run on, a GPU if PyTorch can use one, and with what precision."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from typing import Any

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


@contextmanager
def by_default() -> Iterator[None]:
    """Let PyTorch make float32 tensors on the CPU, and compute with all their bits, as it does by default."""
    with ExitStack() as stack:
        if torch.get_default_device().type != "cpu":
            stack.enter_context(torch.device("cpu"))
        for kind in ("cpu", "cuda"):
            if torch.is_autocast_enabled(kind):
                stack.enter_context(torch.autocast(kind, enabled=False))
        stack.callback(torch.set_default_dtype, torch.get_default_dtype())
        torch.set_default_dtype(torch.float32)
        _restore_precision(stack)
        torch.set_float32_matmul_precision("highest")  # on CPUs, others round to bfloat16
        convolutions: Any = getattr(torch.backends.mkldnn, "conv", None)
        if hasattr(convolutions, "fp32_precision"):
            convolutions.fp32_precision = "ieee"
        yield


def _restore_precision(stack: ExitStack) -> None:
    """Put back what `use_full_float32` and others change.

    PyTorch has an old and a new way to say it, and refuses to read by the old one what was set by the new one.
    """
    backends: Any = torch.backends
    owners = (backends.cuda, "matmul"), (backends.cudnn, "conv"), (backends.mkldnn, "matmul"), (backends.mkldnn, "conv")
    for place in [getattr(owner, name, None) for owner, name in owners]:
        if place is not None and hasattr(place, "fp32_precision"):  # from PyTorch 2.9 on
            stack.callback(setattr, place, "fp32_precision", place.fp32_precision)
    with suppress(RuntimeError):
        stack.callback(setattr, backends.cudnn, "allow_tf32", backends.cudnn.allow_tf32)
    with suppress(RuntimeError):
        stack.callback(torch.set_float32_matmul_precision, torch.get_float32_matmul_precision())
