"""Networks in fp16 and bf16 on CPUs without these types: the arithmetic of PyTorch's own kernels, only quicker."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any

import numpy as np
import pytest
import torch
from checkpoints import Checkpoints, normal_pixels
from family_checkpoints import CASES, folder

from vivit_export.export.checkpoint import low_precision
from vivit_export.export.checkpoint.load import load_checkpoint
from vivit_export.export.checkpoint.low_precision import in_dtype, wide_products
from vivit_export.precision import Precision

LOW = (torch.float16, torch.bfloat16)
F: Any = torch.nn.functional


def random(*shape: int) -> torch.Tensor:
    return torch.from_numpy(np.random.default_rng(len(shape)).standard_normal(shape))


PRODUCTS: dict[str, tuple[Callable[..., torch.Tensor], tuple[torch.Tensor, ...]]] = {
    "linear": (F.linear, (random(3, 5, 64), random(16, 64), random(16))),
    "linear without a bias": (F.linear, (random(3, 5, 64), random(16, 64))),
    "matmul": (torch.matmul, (random(2, 4, 6, 32), random(2, 4, 32, 7))),
    "bmm": (torch.bmm, (random(4, 6, 32), random(4, 32, 7))),
    "addmm": (torch.addmm, (random(16), random(5, 64), random(64, 16))),
    "conv2d": (lambda *given: F.conv2d(*given, stride=8), (random(2, 3, 16, 16), random(4, 3, 8, 8), random(4))),
    "conv3d": (lambda *given: F.conv3d(*given, stride=2), (random(2, 3, 4, 8, 8), random(4, 3, 2, 2, 2), random(4))),
}


@pytest.mark.parametrize("dtype", LOW)
@pytest.mark.parametrize("name", PRODUCTS)
def test_a_product_is_rounded_once(name: str, dtype: torch.dtype) -> None:
    product, given = PRODUCTS[name]
    low = [tensor.to(dtype) for tensor in given]
    with torch.inference_mode(), wide_products():
        found = product(*low)
    exact = product(*(tensor.double() for tensor in low))
    assert found.dtype == dtype
    # Half a step of the type, and what float32 rounds on the way.
    error = (found.double() - exact).abs()
    assert (error <= exact.abs() * torch.finfo(dtype).eps / 2 + 1e-5).all()
    with torch.inference_mode():
        native = product(*low)
    assert (found.double() - native.double()).abs().max() <= exact.abs().max() * 2 * torch.finfo(dtype).eps


@pytest.mark.parametrize("dtype", LOW)
def test_everything_else_is_pytorchs_own(dtype: torch.dtype) -> None:
    values, weight = random(4, 32).to(dtype), random(32).to(dtype)
    operations: tuple[Callable[[], torch.Tensor], ...] = (
        lambda: F.layer_norm(values, (32,), weight, weight),
        lambda: F.softmax(values, -1, dtype=torch.float32),
        lambda: F.gelu(values) + values * weight,
        lambda: F.linear(values.float(), random(8, 32).float()),
    )
    for own in operations:
        expected = own()
        with torch.inference_mode(), wide_products():
            found = own()
        assert found.dtype == expected.dtype and torch.equal(found, expected)


@pytest.mark.parametrize("precision", [Precision.FP16, Precision.BF16])
@pytest.mark.parametrize("case", CASES)
def test_a_network_drifts_as_with_pytorchs_kernels(
    case: str, precision: Precision, monkeypatch: pytest.MonkeyPatch
) -> None:
    checkpoint = load_checkpoint(str(folder(case)))
    pixels = normal_pixels(checkpoint, 3)
    exact = checkpoint.run_eager(pixels)["logits"]
    drifts = []
    for native in (True, False):
        monkeypatch.setattr(low_precision, "has_kernels", lambda _, native=native: native)
        drifts.append(float(np.sqrt(np.mean((checkpoint.run_eager(pixels, precision)["logits"] - exact) ** 2))))
    assert drifts[0] > 0 and drifts[1] == pytest.approx(drifts[0], rel=0.5)


def test_a_processor_with_the_type_uses_its_own_kernels(
    checkpoints: Checkpoints, monkeypatch: pytest.MonkeyPatch
) -> None:
    entered: list[bool] = []

    def counted() -> AbstractContextManager[object]:
        entered.append(True)
        return wide_products()

    monkeypatch.setattr(low_precision, "wide_products", counted)
    network = checkpoints.load().network
    for there in (True, False):
        monkeypatch.setattr(low_precision, "has_kernels", lambda _, there=there: there)
        with in_dtype(network, torch.float16):
            assert next(network.parameters()).dtype == torch.float16
        assert bool(entered) is not there
        assert next(network.parameters()).dtype == torch.float32
    with in_dtype(network, torch.float32):
        assert len(entered) == 1


def test_pytorch_is_asked_for_each_type(monkeypatch: pytest.MonkeyPatch) -> None:
    for dtype, name in zip(LOW, ("fp16", "bf16"), strict=True):
        for there in (True, False):
            monkeypatch.setattr(torch.ops.mkldnn, f"_is_mkldnn_{name}_supported", lambda there=there: there)
            assert low_precision.has_kernels(dtype) is there
