"""The precisions: one frozen record each, and the only place that states facts about them.

Nothing heavy is imported, so that a mistake on the command line is reported at once.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import TYPE_CHECKING, Literal

from vivit_export.choices import NamedRecord
from vivit_export.errors import UsageError

if TYPE_CHECKING:
    import onnx_ir as ir


PrecisionName = Literal["fp32", "fp16", "bf16", "int8", "fp8"]
"""What callers may write for a `Precision`."""


def _gate(largest: float, cosine: float) -> Mapping[str, float]:
    return MappingProxyType(
        {"max": largest, "cosine": cosine, "embedding_cosine": cosine, "clear_flips": 0, "nonfinite": 0}
    )


class Precision(NamedRecord):
    """Type of the encoder's weights and GEMMs; equal to its name, which JSON and Python callers use.

    Attributes:
        onnx_type: name of the element type in ONNX.
        plan_type: name of the type in a plan; the promise is that every GEMM of the encoder runs in it.
        lowest_opset: first ONNX opset whose ops take the type (Gelu is an op since 20, bfloat16 Conv since 22).
        oldest_sm: first compute capability with arithmetic in the type.
        cpu_kernels: whether ONNX Runtime's CPU provider computes in it (1.32).
        gate: default drift limits by metric of `vivit_export.runtime.drift.metrics.Drift`, about five times the drift
            of the demo and of a random ViViT-B/16x2 (``benchmarks/results/export.json``). In INT8, the drift was
            0.002 of the range for the demo and 0.015 for ViViT-B, with a cosine of 0.9997. FP8 drifts up to three
            times as far on the demo, and its limits are twice as wide. A flip is clear if the reference's margin is
            more than twice the allowed ``max``: below that, an error within the gate can flip the class. Without a
            head, only the embedding's cosine can be limited; it drifts like the cosine of the logits.
        tap_error: largest relative error at a tap that is no reason for suspicion (`vivit_export.bundle.taps`), about
            five times the largest that the demo has at any: 8e-7 in fp32, 9e-4 in fp16 (1.4e-3 for a random
            ViViT-B/16x2), 8e-3 in bf16, 2.2e-2 in FP8; ten times 7e-3 in INT8, which costs ViViT-B more than the demo.
    """

    #       name    ONNX            plan        base    wider  opset SM  CPU
    FP32 = "fp32", "FLOAT", "Float", "fp32", None, 20, 0, True, _gate(1e-4, 0.999999), 1e-5
    FP16 = "fp16", "FLOAT16", "Half", "fp16", "bf16", 20, 0, True, _gate(0.01, 0.9999), 5e-3
    BF16 = "bf16", "BFLOAT16", "BFloat16", "bf16", "fp32", 22, 80, False, _gate(0.05, 0.999), 4e-2
    INT8 = "int8", "INT8", "Int8", "fp16", "fp16", 20, 0, True, _gate(0.05, 0.995), 0.08
    FP8 = "fp8", "FLOAT8E4M3FN", "FP8", "fp16", "fp16", 20, 89, True, _gate(0.1, 0.99), 0.12

    if not TYPE_CHECKING:  # a type checker would take it for the signature of ``Precision("fp16")``

        def __new__(
            cls, name, onnx_type, plan_type, base, wider, lowest_opset, oldest_sm, cpu_kernels, gate, tap_error
        ):
            """Make a member that is equal to its name."""
            member = str.__new__(cls, name)
            member._value_ = name
            member.onnx_type, member.plan_type = onnx_type, plan_type
            member._base, member._wider = base, wider
            member.lowest_opset, member.oldest_sm, member.cpu_kernels = lowest_opset, oldest_sm, cpu_kernels
            member.gate, member.tap_error = gate, tap_error
            return member

    onnx_type: str
    plan_type: str
    _base: str
    _wider: str | None
    lowest_opset: int
    oldest_sm: int
    cpu_kernels: bool
    gate: Mapping[str, float]
    tap_error: float

    @property
    def base(self) -> Precision:
        """Type of everything that is not quantized: itself, or the type around the codes."""
        return Precision(self._base)

    @property
    def wider(self) -> Precision | None:
        """Precision to use if a value does not fit; None: nothing is wider."""
        return Precision(self._wider) if self._wider else None

    @property
    def quantized(self) -> bool:
        """Whether weights and activations of the encoder's Linears are codes with a scale."""
        return self.base is not self

    @property
    def rounds(self) -> bool:
        """Whether anything in the graph is rounded to less than float32."""
        return self is not Precision.FP32

    @property
    def emulated(self) -> str:
        """What a run is called that emulates the rounding of this type."""
        return f"{self} rounding emulated"

    @property
    def dtype(self) -> ir.DataType:
        """Element type of the operands of GEMMs, with its limits and its NumPy type."""
        import onnx_ir as ir

        return ir.DataType[self.onnx_type]


def find_precision(name: str) -> Precision:
    """Return the precision of a name.

    Raises:
        UsageError: there is no such precision.
    """
    try:
        return Precision(name)
    except ValueError:
        raise UsageError(f"precision {name!r} is not one of {', '.join(Precision)}") from None
