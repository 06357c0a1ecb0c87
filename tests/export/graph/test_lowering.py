"""Strong typing: ONNX's own inference, not our annotations, says which tensors are low."""

from __future__ import annotations

from typing import Any

import ml_dtypes
import numpy as np
import numpy.typing as npt
import onnx
import onnx_ir as ir
import pytest
from checkpoints import Checkpoints, normal_pixels
from graphs import inferred_types, ops, run_ort, serialize

from vivit_export.choices import AttentionForm
from vivit_export.errors import BuildError
from vivit_export.export.graph.build import build_graph
from vivit_export.export.graph.lowering import Lowered, lower_precision
from vivit_export.export.graph.rewrites import lower_attention
from vivit_export.precision import Precision

NUMPY = {Precision.FP16: np.dtype(np.float16), Precision.BF16: np.dtype(ml_dtypes.bfloat16)}
FLOAT32 = np.dtype(np.float32)
PRECISIONS = sorted(NUMPY)
FORMS = ("fused-op", "pattern")
LAYERS = 2


def lowered(checkpoints: Checkpoints, precision: Precision, form: str, **fields: Any) -> tuple[ir.Model, Lowered]:
    model = checkpoints.trace(**{"num_hidden_layers": LAYERS, **fields})
    if form == "pattern":
        lower_attention(model)
    return model, lower_precision(model, precision)


@pytest.mark.parametrize("precision", PRECISIONS)
@pytest.mark.parametrize("form", FORMS)
def test_every_tensor_is_low_but_for_the_islands(checkpoints: Checkpoints, precision: Precision, form: str) -> None:
    model, facts = lowered(checkpoints, precision, form)
    types = inferred_types(model)
    floats = {name for name, dtype in types.items() if dtype in (FLOAT32, NUMPY[precision])}
    wide = {name for name in floats if types[name] == FLOAT32}
    islands = {f"layers.{i}.attention/Softmax" for i in range(LAYERS)} if form == "pattern" else set()
    inside = {f"{name}{end}" for name in islands for end in ("/CastUp_out", "_out")}
    assert wide == {"pixel_values", "logits", "embedding", *inside}
    assert set(facts.float32_ops) == islands
    assert len(floats) > 80


@pytest.mark.parametrize("precision", PRECISIONS)
@pytest.mark.parametrize("form", FORMS)
def test_declared_types_are_those_onnx_infers(checkpoints: Checkpoints, precision: Precision, form: str) -> None:
    model, _ = lowered(checkpoints, precision, form)
    types = inferred_types(model)
    values = [v for node in model.graph for v in node.outputs] + [
        *model.graph.inputs,
        *model.graph.initializers.values(),
    ]
    for value in values:
        assert value.dtype is not None
        assert value.dtype.numpy() == types[str(value.name)], value.name


@pytest.mark.parametrize("precision", PRECISIONS)
@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("headless", [False, True])
def test_no_cast_more_than_needed(checkpoints: Checkpoints, precision: Precision, form: str, headless: bool) -> None:
    fields = {"headless": True, "num_hidden_layers": 1} if headless else {}
    model, _ = lowered(checkpoints, precision, form, **fields)
    boundary = 1 + len(model.graph.outputs)
    around_softmax = 2 * len(ops(model, "Softmax"))
    assert boundary == (2 if headless else 3)
    assert around_softmax == (2 * fields.get("num_hidden_layers", LAYERS) if form == "pattern" else 0)
    assert len(ops(model, "Cast")) == boundary + around_softmax


@pytest.mark.parametrize("precision", PRECISIONS)
def test_softmax_runs_in_float32_between_two_casts(checkpoints: Checkpoints, precision: Precision) -> None:
    model, _ = lowered(checkpoints, precision, "pattern")
    for node in ops(model, "Softmax"):
        source = node.inputs[0]
        assert source is not None and source.producer() is not None
        up = source.producer()
        (down,) = (use.node for use in node.outputs[0].uses())
        assert up is not None and (up.op_type, down.op_type) == ("Cast", "Cast")
        assert up.attributes["to"].as_int() == onnx.TensorProto.FLOAT
        low = {Precision.FP16: onnx.TensorProto.FLOAT16, Precision.BF16: onnx.TensorProto.BFLOAT16}[precision]
        assert down.attributes["to"].as_int() == low


@pytest.mark.parametrize("precision", PRECISIONS)
def test_layer_norm_stays_one_op_with_float32_statistics(checkpoints: Checkpoints, precision: Precision) -> None:
    model, _ = lowered(checkpoints, precision, "pattern")
    found = ops(model, "LayerNormalization")
    assert len(found) == 2 * LAYERS + 1
    for node in found:
        assert node.attributes.get_int("stash_type", 1) == 1
        assert {value.dtype.numpy() for value in node.inputs if value is not None and value.dtype} == {NUMPY[precision]}


@pytest.mark.parametrize("precision", PRECISIONS)
def test_weights_are_rounded_to_nearest_even(checkpoints: Checkpoints, precision: Precision) -> None:
    full = checkpoints.trace(num_hidden_layers=LAYERS)
    model, facts = lowered(checkpoints, precision, "fused-op")
    count, largest = 0, ("", 0.0)
    for name, value in full.graph.initializers.items():
        before, after = value.const_value, model.graph.initializers[name].const_value
        assert before is not None and after is not None
        array = before.numpy()
        if array.dtype != np.float32:
            assert np.array_equal(after.numpy(), array)
            continue
        expected = array.astype(np.float16) if precision is Precision.FP16 else to_bfloat16(array)
        np.testing.assert_array_equal(after.numpy().view(np.uint16), expected.view(np.uint16))
        count += 1
        largest = max(largest, (name, float(np.abs(array).max())), key=lambda item: item[1])
    assert facts.num_weights == count
    assert facts.largest_weight == largest


def to_bfloat16(array: npt.NDArray[np.float32]) -> npt.NDArray[np.uint16]:
    """The upper half of a float32, rounded to nearest, ties to even (without ml_dtypes)."""
    bits = np.ascontiguousarray(array).view(np.uint32)
    rounded: npt.NDArray[np.uint16] = ((bits + 0x7FFF + ((bits >> 16) & 1)) >> 16).astype(np.uint16)
    return rounded


@pytest.mark.parametrize(
    ("precision", "value", "advice"),
    [
        (Precision.FP16, 65505.0, "precision=bf16"),
        (Precision.FP16, -1e9, "precision=bf16"),
        (Precision.BF16, 3.4e38, "precision=fp32"),
    ],
)
def test_a_weight_beyond_the_range_is_named(
    checkpoints: Checkpoints, precision: Precision, value: float, advice: str
) -> None:
    model = checkpoints.trace()
    set_weight(model, "layers.0.mlp.fc1.bias", value)
    with pytest.raises(BuildError) as caught:
        lower_precision(model, precision)
    said = str(caught.value)
    assert said.startswith(f"weight layers.0.mlp.fc1.bias reaches {abs(value):.4g}, beyond the {precision} range of ")
    assert said.endswith(f"; use {advice}")


@pytest.mark.parametrize(
    ("precision", "value"), [(Precision.FP16, 65504.0), (Precision.BF16, 3.3895e38), (Precision.BF16, 1e6)]
)
def test_a_weight_at_the_edge_of_the_range_is_taken(
    checkpoints: Checkpoints, precision: Precision, value: float
) -> None:
    model = checkpoints.trace()
    set_weight(model, "layers.0.mlp.fc1.bias", value)
    facts = lower_precision(model, precision)
    assert facts.largest_weight == ("layers.0.mlp.fc1.bias", float(np.float32(value)))
    weight = model.graph.initializers["layers.0.mlp.fc1.bias"].const_value
    assert weight is not None
    assert np.isfinite(weight.numpy().astype(np.float64)).all()


def set_weight(model: ir.Model, name: str, value: float) -> None:
    weight = model.graph.initializers[name]
    assert weight.const_value is not None
    array = weight.const_value.numpy().copy()
    array.flat[3] = value
    weight.const_value = ir.tensor(array, name=name)


VALID = [
    *((p, "pattern", opset) for p in (Precision.FP32, Precision.FP16) for opset in (20, 22, 23, 24)),
    *((Precision.BF16, "pattern", opset) for opset in (22, 23, 24)),
    *((p, "fused-op", opset) for p in (Precision.FP32, Precision.FP16, Precision.BF16) for opset in (23, 24)),
]


@pytest.mark.parametrize(("precision", "form", "opset"), VALID)
def test_graph_is_valid_at_every_opset(
    checkpoints: Checkpoints, monkeypatch: pytest.MonkeyPatch, precision: Precision, form: AttentionForm, opset: int
) -> None:
    monkeypatch.setattr("vivit_export.export.graph.build.trace", lambda *_: checkpoints.trace())
    graph = build_graph(
        checkpoints.load(), precision=precision, form=form, opset=opset, input_mode="crops", outputs=("logits",)
    )
    proto = ir.to_proto(graph.model)
    assert {entry.domain: entry.version for entry in proto.opset_import} == {"": opset}
    onnx.checker.check_model(proto, full_check=True)
    inferred_types(graph.model)  # raises where a node's types do not fit its schema at this opset


@pytest.mark.needs_onnxruntime
@pytest.mark.parametrize("form", FORMS)
def test_fp16_graph_runs_and_stays_close(checkpoints: Checkpoints, form: str) -> None:
    model, _ = lowered(checkpoints, Precision.FP16, form)
    full = checkpoints.trace(num_hidden_layers=LAYERS)
    pixels = normal_pixels(checkpoints.load(), 3)
    got, expected = run_ort(model, pixels), run_ort(full, pixels)
    for name in ("logits", "embedding"):
        assert got[name].dtype == np.float32
        # 2**-11 per rounding, some tens of roundings one after the other.
        np.testing.assert_allclose(got[name], expected[name], rtol=0, atol=0.005 * np.ptp(expected[name]))
        assert not np.array_equal(got[name], expected[name])


def test_clone_and_lowering_leave_the_traced_graph_alone(checkpoints: Checkpoints) -> None:
    before = serialize(checkpoints.trace())
    lowered(checkpoints, Precision.FP16, "pattern", num_hidden_layers=1)
    assert serialize(checkpoints.trace()) == before


@pytest.mark.parametrize(("precision", "below"), [(Precision.FP16, 1), (Precision.BF16, 0)])
def test_values_below_the_normal_range_are_counted(checkpoints: Checkpoints, precision: Precision, below: int) -> None:
    model = checkpoints.trace()
    values = 0
    for value in model.graph.initializers.values():
        array = None if value.const_value is None else value.const_value.numpy()
        if array is not None and array.dtype == np.float32:
            large = np.where(np.abs(array) < 1e-3, np.float32(1e-3), array)
            value.const_value = ir.tensor(large, name=value.name)
            values += array.size
    set_weight(model, "layers.0.mlp.fc1.bias", 6e-5)
    assert lower_precision(model, precision).subnormal == below / values
