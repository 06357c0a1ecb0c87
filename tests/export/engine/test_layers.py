"""The layers of a plan: what each does, and the compact form in the sidecar."""

from __future__ import annotations

import json
from collections import Counter
from typing import Any

import pytest
from plan_logs import LOGS, log

from vivit_export.bundle.engines import LayerRecord
from vivit_export.errors import BuildError, InputError
from vivit_export.export.engine.layers import Layer, PlanTensor, layers_from_inspector, layers_from_log
from vivit_export.export.engine.plan import parse_rtx_log
from vivit_export.records import from_json, to_json


@pytest.mark.parametrize("name", LOGS)
def test_every_layer_has_one_role_and_the_summary_counts_them(name: str) -> None:
    roles = Counter(layer.role for layer in layers_from_log(log(name)))
    plan = parse_rtx_log(log(name))
    assert sum(roles.values()) == plan.layers
    assert plan.layers - roles["host"] == plan.kernels
    counted = (roles["attention"], roles["product"], roles["copy"], roles["gemm"])
    assert counted == (plan.attention_fused, plan.unfused_matmuls, plan.copies, len(plan.gemm_layers))


@pytest.mark.parametrize("name", LOGS)
def test_layers_survive_their_json(name: str) -> None:
    layers = layers_from_log(log(name))
    stored = json.loads(json.dumps([to_json(layer.record()) for layer in layers]))
    assert tuple(Layer.from_record(from_json(LayerRecord, layer, "layer")) for layer in stored) == layers


def generated(
    operations: str, inputs: list[str], constants: list[str], output: str, node: str = "p/MatMul"
) -> tuple[str, str]:
    """Role and type of a generated kernel; tensors are written as in ``Half[1,1,128]``."""
    ins, weights, outs = (
        tuple(PlanTensor.from_text(f"{text} {i}") for i, text in enumerate(group))
        for group in (inputs, constants, [output])
    )
    layer = Layer(f"__myl_{operations}_myl0_1", "kgen", ins, weights, outs, "", (node,))
    return layer.role, layer.dtype


ROW, STATISTICS, AFFINE = "Half[1,1,128]", ["Float[1,1,128]", "Float[1,1,1]"], ["Half[1,1,128]", "Half[1,1,128]"]


@pytest.mark.parametrize(
    ("kernel", "dtype"),
    [
        (("ReshMulSum", ["Float[1,1,128]"], ["Float[1,128,512]"], "Float[1,1,512]"), "Float"),
        (("AddSqrtDivMulMulAddMoveCastReshMulSum", STATISTICS, ["Half[1,128,512]"], "Half[1,1,512]"), "Half"),
        (("AddSqrtDivMulCastMulMoveAddReshMulSum", STATISTICS, ["Half[1,128,512]", *AFFINE], "Half[1,1,512]"), "Half"),
        # The weights decide, not the narrower constants of LayerNormalization beside them.
        (
            ("AddSqrtDivMulCastMulMoveAddCastReshMulSum", STATISTICS, ["Float[1,128,512]", *AFFINE], "Float[1,1,512]"),
            "Float",
        ),
        # Only stored as codes: they are multiplied in Half.
        (
            ("CastMulAddSqrtDivMulCastMulMoveAddReshMulSum", STATISTICS, ["Int8[1,128,512]", *AFFINE], "Half[1,1,512]"),
            "Half",
        ),
        (("MulSum", ["Int8[1,1,128]"], ["Int8[1,128,512]"], "Half[1,1,512]"), "Int8"),
        (("MulSum", ["Half[1,128,1]"], ["Half[1,128,1]"], "Half[1,1,1]"), "Half"),  # a head of one label
    ],
)
def test_a_generated_product_of_a_row_has_the_type_that_it_multiplies_in(kernel: Any, dtype: str) -> None:
    """The first five are real: what tensorrt-rtx 1.7.1 makes of graphs whose types are known."""
    assert generated(*kernel) == ("gemm", dtype)


@pytest.mark.parametrize(
    "kernel",
    [
        ("MulSum", [ROW], ["Half[1,128,512]"], "Half[1,1,512]", "norm/ReduceSum"),  # no product of the graph
        ("CastMulSum", [ROW], ["Half[1,1,128]"], "Half[1,1,1]"),  # no matrix
        ("MulSum", [ROW], ["Half[1,64,512]"], "Half[1,1,512]"),  # of another size than what is read
        ("MulSum", [ROW], ["Half[1,128,512]"], "Half[1,1,256]"),  # or written
        ("MulAdd", [ROW], ["Half[1,128,512]"], "Half[1,1,512]"),  # adds nothing up
        ("MoveTranSlicTranReshMulSum", ["Half[1,9,64]"], [], "Half[1,1,9]", "attention/QK"),  # no weights
    ],
)
def test_what_only_looks_like_a_product_with_weights_is_none(kernel: Any) -> None:
    assert generated(*kernel)[0] == "other"


@pytest.mark.parametrize(
    ("tensor", "text"),
    [
        (PlanTensor("q", (-1, 257, 64), "Half"), "Half[-1,257,64] q"),
        (PlanTensor("Reformatted Input [0] to head", (), "Float"), "Float[] Reformatted Input [0] to head"),
    ],
)
def test_a_tensor_is_one_string(tensor: PlanTensor, text: str) -> None:
    assert str(tensor) == text
    assert PlanTensor.from_text(text) == tensor


@pytest.mark.parametrize("change", [{"name": None}, {"inputs": ["no tensor"]}, {"nodes": 3}])
def test_a_damaged_layer_is_refused(change: dict[str, Any]) -> None:
    data = {**to_json(layers_from_log(log(LOGS[0]))[0].record()), **change}
    with pytest.raises(InputError, match=r"damaged or of another version|lacks the field 'name'|nodes must be a list"):
        Layer.from_record(from_json(LayerRecord, {k: v for k, v in data.items() if v is not None}, "layer"))


LINE = "Name: a, LayerType: kgen, Inputs: [ { Name: x, Dimensions: [1,4], Format/Datatype: Half }], Outputs: []"


@pytest.mark.parametrize(
    "line",
    [
        LINE.replace("Name: x, ", ""),
        LINE.replace("1,4", "1" * 5000),
    ],
)
def test_a_log_of_another_form_is_a_failed_build(line: str) -> None:
    assert len(layers_from_log(f"[V] Layers:\n{LINE}\n")) == 1
    with pytest.raises(BuildError, match=r"a layer of another form .* so the precision cannot be proven|0 layer plans"):
        layers_from_log(f"[V] Layers:\n{line}\n")


@pytest.mark.parametrize("text", ["[" * 100_000, '{"Layers": 7}', '{"Layers": [[]]}', '{"Layers": [{"Name": "a"}]}'])
def test_an_answer_of_another_form_is_a_failed_build(text: str) -> None:
    with pytest.raises(BuildError, match="has no layer details"):
        layers_from_inspector(text)
