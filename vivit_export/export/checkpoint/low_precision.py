"""Run a network in fp16 or bf16 for a while; its float32 weights come back untouched.

PyTorch's CPU kernels for these types add products up in float32 and round the sums
(``aten/src/ATen/native/cpu/BlasKernel.cpp``). On processors without instructions for the type they are slow, so there
matrix products and convolutions run in float32 on the same inputs and are rounded: the same arithmetic, with sums in
another order. All other operations are PyTorch's own in that type.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode

from vivit_export.precision import Precision

_LOW = (torch.float16, torch.bfloat16)
_ATEN: Any = torch.ops.aten
_PRODUCTS = frozenset(
    getattr(_ATEN, name).default
    for name in ("linear", "matmul", "mm", "addmm", "bmm", "baddbmm", "conv2d", "conv3d", "convolution")
)


def torch_dtype(precision: Precision) -> torch.dtype:
    """Return the type that PyTorch computes in; for a quantized precision, its base."""
    found: torch.dtype = getattr(torch, str(precision.base.dtype.numpy()))
    return found


@contextmanager
def in_dtype(network: torch.nn.Module, dtype: torch.dtype) -> Iterator[None]:
    """Convert the parameters to ``dtype`` for a while, and let products be quick on CPUs without that type."""
    if dtype == torch.float32:
        yield
        return
    originals = {name: p.data for name, p in network.named_parameters()}
    on_cpu = next(network.parameters()).device.type == "cpu"
    try:
        for p in network.parameters():
            p.data = p.data.to(dtype)
        with wide_products() if on_cpu and not has_kernels(dtype) else nullcontext():
            yield
    finally:
        for name, p in network.named_parameters():
            p.data = originals[name]


def wide_products() -> AbstractContextManager[object]:
    """Compute products of fp16 or bf16 in float32 for a while, and round each result once."""
    return _WideProducts()  # type: ignore[no-untyped-call]


class _WideProducts(TorchDispatchMode):  # type: ignore[no-untyped-call]
    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        low = next((a.dtype for a in args if isinstance(a, torch.Tensor) and a.dtype in _LOW), None)
        if func not in _PRODUCTS or low is None:
            return func(*args, **(kwargs or {}))
        wide = (a.float() if isinstance(a, torch.Tensor) and a.dtype in _LOW else a for a in args)
        return func(*wide, **(kwargs or {})).to(low)


def has_kernels(dtype: torch.dtype) -> bool:
    """Whether PyTorch's library for this processor (oneDNN) multiplies in the type."""
    mkldnn: Any = torch.ops.mkldnn
    supported = mkldnn._is_mkldnn_bf16_supported if dtype == torch.bfloat16 else mkldnn._is_mkldnn_fp16_supported
    return bool(supported())
