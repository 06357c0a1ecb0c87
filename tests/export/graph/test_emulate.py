"""The emulated graph rounds after every op that is typed low, and nowhere else."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
import onnx_ir as ir
import pytest
from checkpoints import Checkpoints, normal_pixels
from graphs import ops, parse, run_ort, serialize

from vivit_export.contract import Contract
from vivit_export.export.checkpoint.load import Checkpoint
from vivit_export.export.clips import load_check_clips
from vivit_export.export.graph.build import build_graph, signature
from vivit_export.export.graph.emulate import emulate_low_precision
from vivit_export.export.graph.lowering import lower_precision
from vivit_export.export.graph.rewrites import lower_attention
from vivit_export.precision import Precision

pytestmark = pytest.mark.needs_onnxruntime

Float32 = npt.NDArray[np.float32]


def to_fp16(array: Float32) -> Float32:
    return array.astype(np.float16).astype(np.float32)


def to_bf16(array: Float32) -> Float32:
    """The upper half of a float32, rounded to nearest, ties to even."""
    bits = np.ascontiguousarray(array, np.float32).view(np.uint32)
    rounded: Float32 = (((bits + 0x7FFF + ((bits >> 16) & 1)) >> 16) << 16).astype(np.uint32).view(np.float32)
    return rounded


ROUND: dict[Precision, Callable[[Float32], Float32]] = {Precision.FP16: to_fp16, Precision.BF16: to_bf16}
PRECISIONS = sorted(ROUND)


def emulated(text: str, precision: Precision, **weights: Float32) -> ir.Model:
    model = parse(text, **weights)
    lower_precision(model, precision)
    return emulate_low_precision(model)


# --- against NumPy, to the bit -----------------------------------------------------------------
# Every sum below is exact in float32 in whatever order it is added up, so that only the roundings
# between ops, which are what is tested, decide the result.

PERCEPTRON = """
<ir_version: 10, opset_import: ["" : 23]>
perceptron (float[batch, 8] x) => (float[batch, 3] y, float[batch, 2] h) {
    product = MatMul(x, w1)
    sum = Add(product, b1)
    positive = Relu(sum)
    turned = Transpose<perm = [1, 0]>(positive)
    h = Transpose<perm = [1, 0]>(turned)
    square = Mul(h, h)
    y = MatMul(square, w2)
}
"""


@pytest.mark.parametrize("precision", PRECISIONS)
def test_matches_numpy_with_a_rounding_after_every_op(precision: Precision) -> None:
    rng, rounded = np.random.default_rng(0), ROUND[precision]
    x = (rng.integers(-16, 17, (500, 8)) / 8).astype(np.float32)
    w1 = (rng.uniform(2**-6, 1, (8, 2)) * rng.choice([-1, 1], (8, 2))).astype(np.float32)
    b1 = rng.standard_normal(2).astype(np.float32)
    w2 = rng.standard_normal((2, 3)).astype(np.float32)

    product = rounded(x @ rounded(w1))
    h = np.maximum(rounded(product + rounded(b1)), 0)
    y = rounded(rounded(h * h) @ rounded(w2))

    got = run_ort(emulated(PERCEPTRON, precision, w1=w1, b1=b1, w2=w2), x)
    np.testing.assert_array_equal(got["h"], h)
    np.testing.assert_array_equal(got["y"], y)
    # Without any one of the roundings the result is another one.
    for other in (rounded(x @ w1), x @ rounded(w1)):
        assert not np.array_equal(np.maximum(rounded(other + rounded(b1)), 0), h)
    assert not np.array_equal(rounded((h * h) @ rounded(w2)), y)


SOFTMAX = """
<ir_version: 10, opset_import: ["" : 23]>
attend (float[batch, 4] scores) => (float[batch, 3] y) {
    probabilities = Softmax<axis = -1>(scores)
    y = MatMul(probabilities, values)
}
"""


@pytest.mark.parametrize("precision", PRECISIONS)
def test_softmax_is_rounded_once_after_float32(precision: Precision) -> None:
    # exp(0) = 1 and exp(-200) = 0 in float32: probabilities are exactly 1, 1/2, 1/3 and 1/4.
    kept = np.array([[1, 0, 0, 0], [1, 1, 0, 0], [0, 1, 1, 1], [1, 1, 1, 1]], np.float32)
    values = (np.random.default_rng(0).integers(-8, 9, (4, 3)) / 8).astype(np.float32)
    rounded = ROUND[precision]
    expected = rounded(rounded(kept / kept.sum(axis=1, keepdims=True)) @ values)
    got = run_ort(emulated(SOFTMAX, precision, values=values), (kept - 1) * 200)
    np.testing.assert_array_equal(got["y"], expected)


NORM = """
<ir_version: 10, opset_import: ["" : 23]>
norm (float[batch, 64] x) => (float[batch, 64] y) {
    y = LayerNormalization<axis = -1, epsilon = 1e-6, stash_type = 1>(x, scale, bias)
}
"""


@pytest.mark.field_case("onnxruntime 13639", "onnxsim 1742")
def test_layer_norm_statistics_do_not_overflow_fp16() -> None:
    # The sum of squares is 64 * 300**2, far beyond 65504.
    x = np.where(np.arange(64) % 2, 300, -300).astype(np.float32)[None]
    got = run_ort(emulated(NORM, Precision.FP16, scale=np.full(64, 3, np.float32), bias=np.zeros(64, np.float32)), x)
    np.testing.assert_array_equal(got["y"], np.sign(x) * 3)


# --- on the whole network ----------------------------------------------------------------------


def low_vivit(checkpoints: Checkpoints, precision: Precision, form: str) -> ir.Model:
    model = checkpoints.trace()
    if form == "pattern":
        lower_attention(model)
    lower_precision(model, precision)
    return model


@pytest.mark.parametrize("precision", PRECISIONS)
@pytest.mark.parametrize("form", ["fused-op", "pattern"])
def test_every_low_tensor_holds_low_values_only(checkpoints: Checkpoints, precision: Precision, form: str) -> None:
    low = low_vivit(checkpoints, precision, form)
    type_ = {Precision.FP16: ir.DataType.FLOAT16, Precision.BF16: ir.DataType.BFLOAT16}[precision]
    names = [str(v.name) for node in low.graph for v in node.outputs if v.dtype == type_]
    model = emulate_low_precision(low)
    pixels = normal_pixels(checkpoints.load(), 2)
    plain = run_ort(model, pixels)

    proto = ir.to_proto(model)
    made = {output: node for node in proto.graph.node for output in node.output}
    final = {name: f"{name}/Rounded_out" if f"{name}/Rounded_out" in made else name for name in names}
    proto.graph.output.extend(onnx.helper.make_empty_tensor_value_info(name) for name in final.values())
    watched = run_ort(ir.from_proto(proto), pixels)
    assert len(names) > 35
    for name in names:
        values = watched[final[name]]
        np.testing.assert_array_equal(values, ROUND[precision](values), err_msg=name)
    # Nor did ONNX Runtime drop a rounding where nobody watched.
    for name, array in plain.items():
        np.testing.assert_array_equal(array, watched[name])


@pytest.mark.parametrize("precision", PRECISIONS)
def test_emulated_graph_computes_in_float32_alone(checkpoints: Checkpoints, precision: Precision) -> None:
    model = emulate_low_precision(low_vivit(checkpoints, precision, "pattern"))
    onnx.checker.check_model(ir.to_proto(model), full_check=True)
    for node in model.graph:
        for value in node.outputs:
            is_rounding = node.op_type == "Cast" and str(node.name).endswith("/Round")
            assert is_rounding or value.dtype in (ir.DataType.FLOAT, ir.DataType.INT64)
    assert {v.dtype for v in model.graph.initializers.values()} <= {ir.DataType.FLOAT, ir.DataType.INT64}


@pytest.mark.parametrize("precision", PRECISIONS)
def test_the_model_passed_in_is_not_modified(checkpoints: Checkpoints, precision: Precision) -> None:
    model = low_vivit(checkpoints, precision, "pattern")
    before = serialize(model)
    emulate_low_precision(model)
    assert serialize(model) == before


@pytest.fixture(scope="module")
def demo_run(demo_checkpoint: Checkpoint) -> Any:
    """Traced demo, its clips as pixels, and what eager fp32 gives for them."""
    model = build_graph(
        demo_checkpoint, precision=Precision.FP32, form="pattern", opset=23, input_mode="pixels", outputs=("logits",)
    ).model
    contract = Contract(
        demo_checkpoint.clip, demo_checkpoint.preprocess, signature(model, "pixels"), demo_checkpoint.labels
    )
    pixels = np.stack(list(load_check_clips(contract, None, 3).each))
    return model, pixels, demo_checkpoint.run_eager(pixels)["logits"]


@pytest.mark.parametrize("precision", PRECISIONS)
def test_drifts_as_much_as_torch_in_that_type(demo_checkpoint: Checkpoint, demo_run: Any, precision: Precision) -> None:
    """Two ways to round in the same type differ in detail, but not in how far they drift."""
    traced, pixels, reference = demo_run
    model = traced.clone()
    lower_precision(model, precision)
    eager = demo_checkpoint.run_eager(pixels, precision)["logits"]
    ours = run_ort(emulate_low_precision(model), pixels)["logits"]

    def rms(logits: Float32) -> float:
        return float(np.sqrt(np.mean((logits - reference) ** 2)))

    # Measured: 1.17 (fp16) and 1.06 (bf16) times the drift of eager.
    assert rms(eager) / 2 < rms(ours) < rms(eager) * 2
    assert not ops(model, "Attention")
