"""Where Q/DQ nodes stand, that what surrounds them is exact, and what the codes mean."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx_ir as ir
import pytest
from anatomies import vivit
from checkpoints import Checkpoints
from graphs import inferred_types, ops, run_ort, to_double
from made_ranges import DEEP, LAYERS, ranges
from rewriting import assert_same_function, double_pixels

from vivit_export.bundle.manifest import ClipsRecord, PrecisionRecord, QuantizedLayer
from vivit_export.calibration.linears import LinearGroup, quantize_input, quantize_weights
from vivit_export.calibration.ranges import LayerRange, Ranges
from vivit_export.choices import AttentionForm
from vivit_export.errors import CalibrationError
from vivit_export.export.graph.build import Quantization, build_graph, rewrite_graph
from vivit_export.export.graph.quantize import _divide, find_groups, name_inputs, quantize
from vivit_export.precision import Precision

PRECISIONS = (Precision.INT8, Precision.FP8)
CODES = {Precision.INT8: ir.DataType.INT8, Precision.FP8: ir.DataType.FLOAT8E4M3FN}

Build = Callable[..., tuple[ir.Model, PrecisionRecord]]


def told_of(facts: PrecisionRecord) -> Mapping[str, QuantizedLayer]:
    assert facts.quantization is not None
    return facts.quantization.layers


@pytest.fixture
def build(checkpoints: Checkpoints) -> Build:
    def make(
        precision: Precision, *, keep: tuple[str, ...] = (), form: AttentionForm = "pattern", **options: Any
    ) -> Any:
        checkpoint = checkpoints.load(**DEEP)
        rewritten = rewrite_graph(checkpoint, ("logits", "embedding"), Precision.INT8)
        made = build_graph(
            checkpoint,
            precision=precision,
            form=form,
            opset=23,
            input_mode="pixels",
            outputs=("logits", "embedding"),
            quantization=Quantization(rewritten, ranges(precision, **options), keep),
        )
        return made.model, made.facts

    return make


# --- placement ---------------------------------------------------------------------------------


@pytest.mark.parametrize("precision", PRECISIONS)
@pytest.mark.parametrize("form", ["pattern", "fused-op"])
def test_each_layer_is_quantized_once_and_qkv_share_it(build: Build, precision: Precision, form: str) -> None:
    model, facts = build(precision, form=form)
    assert [str(node.name).rpartition("/")[0] for node in ops(model, "QuantizeLinear")] == LAYERS
    assert len(ops(model, "DequantizeLinear")) == 8 + 12
    for place in find_groups_behind(model):
        source, matmuls = place
        assert source.op_type == "DequantizeLinear"
        assert len(matmuls) == (3 if "q_proj" in str(matmuls[0].name) else 1)
    assert set(facts.layers.values()) == {CODES[precision].name.lower(), "float16"}
    assert facts.layers["classifier"] == facts.layers["embeddings.patch_embeddings.projection"] == "float16"


def find_groups_behind(model: ir.Model) -> list[tuple[ir.Node, list[ir.Node]]]:
    found = []
    for node in ops(model, "DequantizeLinear"):
        users = [use.node for use in node.outputs[0].uses()]
        if node.inputs[0].producer() is not None:  # type: ignore[union-attr]
            found.append((node, users))
    return found


@pytest.mark.parametrize("precision", PRECISIONS)
def test_the_graph_is_strongly_typed(build: Build, precision: Precision) -> None:
    model, _ = build(precision, smooth=True)
    types = inferred_types(model)
    for node in model.graph:
        for value in node.outputs:
            assert value.dtype is not None
            assert types[str(value.name)] == value.dtype.numpy(), node.name
    assert all(node.outputs[0].dtype == ir.DataType.FLOAT16 for node in ops(model, "MatMul"))
    assert all(node.outputs[0].dtype == ir.DataType.FLOAT for node in ops(model, "Softmax"))
    for node in (*ops(model, "QuantizeLinear"), *ops(model, "DequantizeLinear")):
        scale, zero = (v.const_value.numpy() for v in node.inputs[1:3])  # type: ignore[union-attr]
        assert scale.dtype == np.float16 and (scale > 0).all()
        assert not zero.astype(np.float32).any()


@pytest.mark.parametrize("precision", PRECISIONS)
def test_nothing_else_is_touched(build: Build, checkpoints: Checkpoints, precision: Precision) -> None:
    quantized, _ = build(precision)
    checkpoint = checkpoints.load(**DEEP)
    plain = build_graph(
        checkpoint,
        precision=Precision.FP16,
        form="pattern",
        opset=23,
        input_mode="pixels",
        outputs=("logits", "embedding"),
    ).model
    extra = {"QuantizeLinear", "DequantizeLinear"}
    assert [n.op_type for n in quantized.graph if n.op_type not in extra] == [n.op_type for n in plain.graph]


def test_kept_layers_stay_as_they_are(build: Build) -> None:
    model, facts = build(Precision.INT8, keep=("layers.1.mlp.fc2", "layers.0.attention.qkv"))
    assert len(ops(model, "QuantizeLinear")) == 6
    kept = {name for name, layer in told_of(facts).items() if not layer.quantized}
    assert kept == {"layers.1.mlp.fc2", "layers.0.attention.qkv"}
    assert facts.layers["layers.0.attention.k_proj"] == facts.layers["layers.1.mlp.fc2"] == "float16"
    assert facts.layers["layers.1.attention.k_proj"] == "int8"


def test_smoothing_goes_into_layernorm_or_one_multiplication(build: Build) -> None:
    model, _ = build(Precision.INT8, smooth=True)
    smooth = [node.name for node in ops(model, "Mul")]
    assert smooth == ["layers.0.mlp.fc2/Smooth", "layers.1.mlp.fc2/Smooth"]
    norms = [n for n in ops(model, "LayerNormalization") if "layernorm_" in str(n.name)]
    for norm in norms:
        gamma = norm.inputs[1].const_value.numpy().astype(np.float64)  # type: ignore[union-attr]
        assert set(np.log2(gamma)) == {-2, -1, 0, 1, 2}


def test_ranges_that_lack_a_layer_are_refused(checkpoints: Checkpoints) -> None:
    model = rewrite_graph(checkpoints.load(**DEEP), ("logits",), Precision.INT8).model
    with pytest.raises(CalibrationError, match=r"the ranges say nothing about layers\.0\.attention\.qkv; calibrate"):
        quantize(model, vivit(2), Ranges(Precision.INT8, "mse", {}, ClipsRecord("", 0), {}))


def test_a_layer_without_a_range_is_named_unless_it_is_kept(build: Build) -> None:
    with pytest.raises(
        CalibrationError, match=r"the input of layers\.0\.attention\.qkv, .* is zero on all 1 .* keep_fp16"
    ):
        build(Precision.INT8, amax=0.0)
    build(Precision.INT8, amax=0.0, keep=tuple(LAYERS[1:]), fields={LAYERS[0]: {"amax": 8.0}})


# --- what is around the codes is exact ---------------------------------------------------------


def test_smoothing_changes_no_result(checkpoints: Checkpoints) -> None:
    checkpoint = checkpoints.load(**DEEP)
    before = rewrite_graph(checkpoint, ("logits", "embedding"), Precision.INT8).model
    after = before.clone()
    rng = np.random.default_rng(0)
    for place in find_groups(after, checkpoint.anatomy):
        if place.group.smoothing == "none":
            continue
        factors = np.exp2(rng.integers(-4, 5, place.group.joined.shape[0])).astype(np.float32)
        source = _divide(after.graph, place, factors)
        for matmul in place.matmuls:
            weight = matmul.inputs[1].const_value.numpy()  # type: ignore[union-attr]
            constant = ir.tensor(weight * factors[:, None], name=matmul.inputs[1].name)  # type: ignore[union-attr]
            matmul.inputs[1].const_value = constant  # type: ignore[union-attr]
            matmul.replace_input_with(0, source)
    assert_same_function(to_double(before), to_double(after), double_pixels(checkpoint), of_range=1e-12)


def test_naming_the_inputs_changes_names_only(checkpoints: Checkpoints) -> None:
    model = rewrite_graph(checkpoints.load(**DEEP), ("logits",), Precision.INT8).model
    layers = name_inputs(model, vivit(2))
    assert [group.name for group in layers] == LAYERS
    produced = {v.name for node in model.graph for v in node.outputs}
    assert {group.tensor for group in layers} <= produced


# --- what the codes mean -----------------------------------------------------------------------


@pytest.mark.needs_onnxruntime
@pytest.mark.parametrize("precision", PRECISIONS)
def test_onnxruntime_reads_the_codes_as_we_do(precision: Precision) -> None:
    """One layer in ONNX Runtime against NumPy: input and weight rounded by our own functions, then multiplied."""
    rng = np.random.default_rng(0)
    weight = rng.standard_normal((16, 8)).astype(np.float32)
    group = LinearGroup("layers.0.mlp.fc1", "x", ("layers.0.mlp.fc1",), (weight,), "none")
    x = ir.Value(name="x", type=ir.TensorType(ir.DataType.FLOAT), shape=ir.Shape(["n", 16]))
    constant = ir.Value(name="w", const_value=ir.tensor(weight, name="w"), type=ir.TensorType(ir.DataType.FLOAT))
    matmul = ir.node("MatMul", [x, constant], name="layers.0.mlp.fc1/MatMul")
    out = matmul.outputs[0]
    out.name, out.type, out.shape = "y", ir.TensorType(ir.DataType.FLOAT), ir.Shape(["n", 8])
    graph = ir.Graph([x], [out], nodes=[matmul], initializers=[constant], opset_imports={"": 20}, name="g")
    model = ir.Model(graph, ir_version=10)
    quantize(
        model,
        vivit(2),
        Ranges(precision, "mse", {}, ClipsRecord("", 0), {group.name: LayerRange(2.5, 4, None, None, 0)}),
    )
    rows = (2 * rng.standard_normal((50, 16))).astype(np.float32)
    (stored,) = quantize_weights(group, precision)
    expected = quantize_input(rows, 2.5, precision) @ stored.values
    np.testing.assert_allclose(run_ort(model, rows)["y"], expected, rtol=1e-5, atol=1e-4)


# --- bias correction ---------------------------------------------------------------------------


def test_a_shift_goes_into_the_bias_that_is_there(build: Build) -> None:
    bare, _ = build(Precision.INT8)
    shifts = {"layers.0.mlp.fc1": np.linspace(-1, 1, 48), "layers.1.attention.o_proj": np.full(32, 0.25)}
    shifted, facts = build(Precision.INT8, fields={name: {"shift": tuple(shift)} for name, shift in shifts.items()})

    def biases(model: ir.Model) -> dict[str, npt.NDArray[np.float32]]:
        found = {}
        for matmul in ops(model, "MatMul"):
            uses = [use.node for use in matmul.outputs[0].uses() if use.node.op_type == "Add"]
            for add in uses:
                constants = [v.const_value for v in add.inputs if v is not None and v.const_value is not None]
                if constants and len(constants[0].shape) == 1:
                    found[str(matmul.name).rpartition("/")[0]] = constants[0].numpy().astype(np.float32)
        return found

    before, after = biases(bare), biases(shifted)
    assert before.keys() == after.keys()
    changed = {name for name in before if not np.array_equal(before[name], after[name])}
    assert changed == set(shifts)
    for name, shift in shifts.items():
        np.testing.assert_allclose(after[name] - before[name], shift, atol=1e-3)
    told = told_of(facts)
    assert [name for name, layer in told.items() if layer.bias_corrected] == sorted(changed)


def test_the_reach_of_weights_goes_into_their_scale(build: Build) -> None:
    name = "layers.1.attention.qkv"
    (bare, _), (clipped, facts) = build(Precision.INT8), build(Precision.INT8, fields={name: {"percent": 80}})

    def scales(model: ir.Model) -> dict[str, npt.NDArray[np.float64]]:
        found = {}
        for node in ops(model, "DequantizeLinear"):
            path, _, op = str(node.name).rpartition("/")
            if op == "DequantizeWeight":
                scale = node.inputs[1]
                assert scale is not None and scale.const_value is not None
                found[path] = scale.const_value.numpy().astype(np.float64)
        return found

    before, after = scales(bare), scales(clipped)
    changed = {
        path: float(after[path] / before[path]) for path in after if not np.array_equal(after[path], before[path])
    }
    assert changed == {f"layers.1.attention.{n}_proj": pytest.approx(0.8, rel=2e-3) for n in "qkv"}
    told = told_of(facts)
    assert {layer: one.weight_percent for layer, one in told.items()} == {**dict.fromkeys(LAYERS, 100), name: 80}


@pytest.mark.parametrize("field", ["shift", "exponents"])
def test_ranges_of_another_size_are_refused(build: Build, field: str) -> None:
    with pytest.raises(CalibrationError, match=rf"ranges of layers\.0\.mlp\.fc1 have 3 {field} where \d+ are needed"):
        build(Precision.INT8, fields={"layers.0.mlp.fc1": {field: (1, 2, 3)}})
