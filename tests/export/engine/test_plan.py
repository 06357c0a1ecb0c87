"""Reading layer plans and proving precision on them.

The logs under data/ are real: tensorrt-rtx 1.7.1 on small ViViTs (heads of 64, 257 tokens, or 9 of our own
graph), cut to the plan and the memory lines. JSON of the engine inspector needs a GPU, so it is
made here in the two spellings that TensorRT uses.
"""

from __future__ import annotations

import dataclasses
import json
from typing import Any

import pytest
from plan_logs import ONE_ROW, log

from vivit_export.bundle.engines import PlanSummary
from vivit_export.errors import BuildError, InputError, PrecisionError
from vivit_export.export.engine.plan import memory_from_log, parse_inspector, parse_rtx_log, prove
from vivit_export.precision import Precision
from vivit_export.records import from_json, to_json


def test_fp16_plan_of_two_blocks_without_qkv_bias() -> None:
    plan = parse_rtx_log(log("rtx_fp16_two_blocks"))
    # 8 reshapes and casts of a shape run on the host, beside one call that computes shapes.
    assert (plan.layers, plan.kernels) == (29, 20)
    assert (plan.attention_fused, plan.attention_dtypes, plan.unfused_matmuls) == (2, {"Half": 2}, 0)
    assert plan.copies == 1  # the input, to channels last for the patch convolution
    assert plan.gemms == {"Half": 10}
    assert [g.encoder for g in plan.gemm_layers] == [False, *[True] * 8, False]
    assert plan.gemm_layers[1].nodes == ("node_MatMul_28", "node_MatMul_20", "node_MatMul_12")
    assert (plan.activation_bytes, plan.weight_bytes) == memory_from_log(log("rtx_fp16_two_blocks"))
    assert prove(plan, precision=Precision.FP16, num_attention=2, num_gemms=8) == [
        "attention fused in 2 of 2 blocks (Half)",
        "8 of 8 encoder GEMMs in Half",
        "other GEMMs: 2 in Half",
    ]


def test_fp32_plan_has_no_fused_attention_and_that_is_no_failure() -> None:
    plan = parse_rtx_log(log("rtx_fp32_one_block"))
    assert (plan.layers, plan.kernels) == (22, 21)
    assert (plan.attention_fused, plan.unfused_matmuls) == (0, 2)
    assert plan.gemms == {"Float": 6}
    assert sum(g.encoder for g in plan.gemm_layers) == 4
    assert prove(plan, precision=Precision.FP32, num_attention=1, num_gemms=4)[0] == (
        "attention fused in 0 of 1 blocks (no fused kernel exists for fp32)"
    )
    with pytest.raises(PrecisionError, match=r"fused in 0 of 1 blocks \(fp16\), 2 products were left outside"):
        prove(plan, precision=Precision.FP16, num_attention=1, num_gemms=4)
    with pytest.raises(PrecisionError, match="4 of 4 encoder GEMMs run in Float instead of Half"):
        prove(plan, precision=Precision.FP16, num_attention=1, num_gemms=4, allow_unfused=True)


def test_int8_plan_leaves_the_patch_embedding_and_the_head_in_half() -> None:
    plan = parse_rtx_log(log("rtx_int8_one_block"))
    assert plan.gemms == {"Half": 2, "Int8": 4}
    assert [g.dtype for g in plan.gemm_layers if not g.encoder] == ["Half", "Half"]
    assert plan.attention_dtypes == {"Half": 1}  # it writes Int8, but multiplies in Half
    assert prove(plan, precision=Precision.INT8, num_attention=1, num_gemms=4)[1:] == [
        "4 of 4 encoder GEMMs in Int8",
        "other GEMMs: 2 in Half",
    ]
    with pytest.raises(PrecisionError, match=r"4 of 4 encoder GEMMs run in Int8 instead of FP8 .*node_MatMul_\d+"):
        prove(plan, precision=Precision.FP8, num_attention=1, num_gemms=4)


def test_a_recipe_may_promise_some_linears_only() -> None:
    plan = parse_rtx_log(log("rtx_int8_one_block"))
    first, *others = [g for g in plan.gemm_layers if g.encoder]
    evidence = prove(plan, precision=Precision.INT8, num_attention=1, num_gemms=4, linears=first.nodes)
    assert evidence[1] == "1 of 1 encoder GEMMs in Int8"
    assert evidence[2] == f"other GEMMs: 2 in Half, {len(others)} in Int8"
    with pytest.raises(PrecisionError, match="no GEMM for not_there, so int8 cannot be proven"):
        prove(plan, precision=Precision.INT8, num_attention=1, num_gemms=4, linears=[*first.nodes, "not_there"])


def test_a_gemm_that_ran_as_something_else_is_missed() -> None:
    lines = log("rtx_fp16_two_blocks").splitlines(keepends=True)
    out_projection = next(i for i, line in enumerate(lines) if "Name: __myl_FcAddAdd" in line)
    lines[out_projection] = (
        lines[out_projection].replace("__myl_FcAddAdd", "__myl_MulAddAdd").replace("runtime_fusion", "kgen")
    )
    with pytest.raises(PrecisionError, match="7 encoder GEMMs where 8 are expected") as caught:
        prove(parse_rtx_log("".join(lines)), precision=Precision.FP16, num_attention=2, num_gemms=8)
    advice = "report it with the options used, or try another batches.max, for which the compiler may choose others"
    assert str(caught.value).endswith(advice)


ROW_KERNELS = {
    "rtx_fp16_one_row": ("Half", ["attention.o_proj", "mlp.fc1", "mlp.fc2"]),
    "rtx_bf16_one_row_wide": ("BFloat16", ["attention.o_proj", "mlp.fc2"]),
    "rtx_fp32_one_row": ("Float", ["attention.o_proj", "mlp.fc2"]),
}
"""The type, and the Linears of the last block that generated kernels execute, as a reader of the log sees them."""


@pytest.mark.parametrize("name", ONE_ROW)
def test_products_of_one_row_are_gemms_of_the_encoder_or_the_head(name: str) -> None:
    dtype, linears = ROW_KERNELS[name]
    plan = parse_rtx_log(log(name))
    rows = [gemm for gemm in plan.gemm_layers if "MulSum" in gemm.name]
    assert [gemm.encoder for gemm in rows] == [*[True] * len(linears), False]
    assert [next(n for n in gemm.nodes if n.endswith(("/MatMul", "/Gemm"))) for gemm in rows] == [
        *(f"layers.1.{linear}/MatMul" for linear in linears),
        "classifier/Gemm",
    ]
    assert {gemm.dtype for gemm in plan.gemm_layers} == {dtype}
    precision = next(p for p in Precision if p.plan_type == dtype)
    evidence = prove(plan, precision=precision, num_attention=2, num_gemms=8, single_query=1)
    assert evidence[1:] == [f"8 of 8 encoder GEMMs in {dtype}", f"other GEMMs: 2 in {dtype}"]
    other = Precision.BF16 if precision is Precision.FP16 else Precision.FP16
    with pytest.raises(PrecisionError, match=f"8 of 8 encoder GEMMs run in {dtype} instead of {other.plan_type}"):
        prove(plan, precision=other, num_attention=2, num_gemms=8, single_query=1, allow_unfused=True)


@pytest.mark.parametrize("name", ["rtx_fp16_one_row", "rtx_bf16_one_row_wide"])
def test_one_wide_product_of_a_row_is_named(name: str) -> None:
    text, (dtype, _) = log(name), ROW_KERNELS[name]
    line = next(x for x in text.splitlines() if "layers.1.mlp.fc2/MatMul]" in x)
    before, weights = line.split("Constants: ")
    changed = f"{before}Constants: {weights.replace(f'Datatype: {dtype}', 'Datatype: Float')}"
    precision = next(p for p in Precision if p.plan_type == dtype)
    with pytest.raises(PrecisionError, match="1 of 8 encoder GEMMs run in Float") as caught:
        prove(
            parse_rtx_log(text.replace(line, changed)),
            precision=precision,
            num_attention=2,
            num_gemms=8,
            single_query=1,
        )
    assert line.split("Name: ")[1].split(",")[0] in str(caught.value)


def test_one_wide_gemm_is_named() -> None:
    text = log("rtx_int8_one_block")
    line = next(x for x in text.splitlines() if "LayerType: gemm" in x and "Datatype: Int8" in x)
    plan = parse_rtx_log(text.replace(line, line.replace("Datatype: Int8", "Datatype: Half")))
    name = line.split("Name: ")[1].split(",")[0]
    with pytest.raises(PrecisionError, match="1 of 4 encoder GEMMs run in Half instead of Int8") as caught:
        prove(plan, precision=Precision.INT8, num_attention=1, num_gemms=4)
    assert name in str(caught.value)


def test_unfused_attention_can_be_allowed() -> None:
    plan = parse_rtx_log(log("rtx_fp32_one_block").replace("Datatype: Float", "Datatype: Half"))
    evidence = prove(plan, precision=Precision.FP16, num_attention=1, num_gemms=4, allow_unfused=True)
    assert evidence[0] == "attention fused in 0 of 1 blocks (allowed)"


def test_attention_of_the_class_token_alone_may_be_unfused() -> None:
    text = log("rtx_fp16_two_blocks")
    last = [line for line in text.splitlines() if "Name: _gemm_mha_v2" in line][-1]
    plan = parse_rtx_log(text.replace(last, last.replace("_gemm_mha_v2", "qk").replace(": kgen", ": gemm")))
    assert plan.attention_fused == 1
    evidence = prove(plan, precision=Precision.FP16, num_attention=2, num_gemms=8, single_query=1)
    assert evidence[0] == "attention fused in 1 of 2 blocks (Half); the class token's own needs no fused kernel"
    with pytest.raises(PrecisionError, match="attention fused in 1 of 2 blocks"):
        prove(plan, precision=Precision.FP16, num_attention=2, num_gemms=8)


def test_lines_of_other_loggers_are_read_too() -> None:
    text = log("rtx_int8_one_block")
    plain = text.replace("[X] Layers:", "[01/31/2026-10:00:00] [V] [TRT] Layers:").replace("\n    Name:", "\nName:")
    assert parse_rtx_log(plain) == parse_rtx_log(text)


@pytest.mark.parametrize(("copies", "count"), [(0, 0), (2, 2)])
def test_a_log_without_exactly_one_plan_proves_nothing(copies: int, count: int) -> None:
    with pytest.raises(BuildError, match=f"holds {count} layer plans"):
        parse_rtx_log("[V] nothing\n" + log("rtx_int8_one_block") * copies)


@pytest.mark.parametrize("name", ["rtx_fp16_two_blocks", "rtx_fp32_one_block", "rtx_int8_one_block"])
def test_json_both_ways(name: str) -> None:
    plan = parse_rtx_log(log(name))
    data = json.loads(json.dumps(to_json(plan)))
    assert data == to_json(plan)
    assert data["gemms"] == plan.gemms
    assert from_json(PlanSummary, data, "plan") == plan


@pytest.mark.parametrize("change", [{"layers": None}, {"more": 1}])
def test_json_of_another_version_is_refused(change: dict[str, Any]) -> None:
    data = {**to_json(parse_rtx_log(log("rtx_int8_one_block"))), **change}
    with pytest.raises(InputError, match=r"plan (lacks the field 'layers'|has an unknown field 'more')"):
        from_json(PlanSummary, {k: v for k, v in data.items() if v is not None}, "plan")


# --- the engine inspector ----------------------------------------------------------------------


def tensor(name: str, dims: list[int], dtype: str, *, spelled: str) -> dict[str, Any]:
    if spelled == "new":
        return {"Name": name, "Dimensions": dims, "Datatype": dtype, "Format": "(Linear) Row major linear format"}
    return {"Name": name, "Dimensions": dims, "Format/Datatype": dtype}


def block(spelled: str) -> list[dict[str, Any]]:
    """One fp16 block whose ONNX names contain mha, Conv and const on purpose, and a head."""

    def layer(
        name: str, kind: str, inputs: list[Any], weights: list[int], output: Any, node: str = ""
    ) -> dict[str, Any]:
        constant = [tensor(f"{name}_dconst", weights, "Half", spelled=spelled)] if weights else []
        scalar = [tensor(f"{name}_alpha", [1], "Float", spelled=spelled)]
        ins = [tensor(n, d, "Half", spelled=spelled) for n, d in inputs]
        fields: dict[str, Any] = {"Inputs": ins, "Constants": constant + scalar if weights else []}
        if spelled == "old":
            # TensorRT 10.0 lists scalars, and sometimes weights, among the inputs.
            fields = {"Inputs": ins + (scalar if weights else [])}
        out = tensor(output[0], output[1], "Half", spelled=spelled)
        return {
            "Name": name, "LayerType": kind, **fields, "Outputs": [out],
            "TacticName": "sm90_xmma_gemm_f16f16" if kind == "gemm" else name, "StreamId": 0,
            "Metadata": f"[ONNX Layer: {name}]",
        }  # fmt: skip

    wide, four = [-1, 257, 128], [-1, 257, 512]
    return [
        layer("/patch/Conv", "CaskGemmConvolution", [("x", wide)], [128, 128], ("patches", wide)),
        layer("/0/mha/qkv/MatMul_myl0_1", "gemm", [("patches", wide)], [128, 384], ("qkv", [-1, 257, 384]), "qkv"),
        layer("_gemm_mha_v2_myl0_2", "kgen", [("qkv", [-1, 257, 64])] * 3, [], ("attended", wide)),
        layer("/0/mha/out/MatMul_myl0_3", "gemm", [("attended", wide), ("patches", wide)], [128, 128], ("a", wide)),
        layer("__myl_CastMeanSubMul_myl0_4", "kgen", [("a", wide)], [], ("b", wide)),
        layer("/0/fc1/MatMul_myl0_5", "gemm", [("b", wide)], [128, 512], ("c", four)),
        layer("/0/fc2/MatMul_myl0_6", "gemm", [("c", four), ("a", wide)], [512, 128], ("d", wide)),
        layer("/head/Gemm_myl0_7", "gemm", [("d", [-1, 128])], [128, 10], ("logits", [-1, 10])),
    ]


@pytest.mark.parametrize("spelled", ["old", "new"])
def test_inspector_in_both_spellings(spelled: str) -> None:
    plan = parse_inspector(json.dumps({"Layers": block(spelled), "Bindings": []}), activation_bytes=7, weight_bytes=9)
    assert (plan.layers, plan.kernels, plan.attention_fused) == (8, 8, 1)
    assert (plan.unfused_matmuls, plan.activation_bytes, plan.weight_bytes) == (0, 7, 9)
    assert [g.encoder for g in plan.gemm_layers] == [False, True, True, True, True, False]
    assert prove(plan, precision=Precision.FP16, num_attention=1, num_gemms=4)[1] == "4 of 4 encoder GEMMs in Half"


def test_separate_projections_of_an_unfused_attention_belong_to_the_encoder() -> None:
    patch, qkv, mha, *others = block("new")

    def like(layer: dict[str, Any], name: str, inputs: list[tuple[str, list[int]]], output: str) -> dict[str, Any]:
        ins = [tensor(n, d, "Half", spelled="new") for n, d in inputs]
        out = [tensor(output, [-1, 257, 128], "Half", spelled="new")]
        return {**layer, "Name": name, "Inputs": ins, "Outputs": out, "TacticName": ""}

    wide, across = [-1, 257, 128], [-1, 128, 257]
    projections = [like(qkv, f"{x}_proj", [("patches", wide)], x) for x in "vqk"]
    scores = like({**mha, "LayerType": "gemm"}, "qk", [("q", wide), ("k", across)], "scores")
    softmax = like(mha, "__myl_MaxrSubExpSumDivMul_myl0_3", [("scores", [-1, 257, 257])], "p")
    mixed = like({**mha, "LayerType": "gemm"}, "pv", [("p", [-1, 257, 257]), ("v", wide)], "attended")
    plan = parse_inspector(json.dumps({"Layers": [patch, *projections, scores, softmax, mixed, *others]}))
    assert plan.unfused_matmuls == 2
    assert [g.encoder for g in plan.gemm_layers] == [False, *[True] * 6, False]


def test_layers_outside_myelin() -> None:
    half, full = "Row major linear FP16 format", "Row major linear FP32"
    reformat = {
        "Name": "Reformatting CopyNode for Input Tensor 0 to head", "LayerType": "Reformat", "TacticName": "",
        "Inputs": [{"Name": "x", "Dimensions": [8, 64], "Format/Datatype": full}],
        "Outputs": [{"Name": "y", "Dimensions": [8, 64], "Format/Datatype": half}], "Metadata": "",
    }  # fmt: skip
    product = {**reformat, "Name": "head", "LayerType": "MatrixMultiply", "Inputs": reformat["Outputs"]}
    plan = parse_inspector(json.dumps({"Layers": [reformat, product]}))
    assert (plan.kernels, plan.copies, plan.gemms) == (2, 1, {"Half": 1})


def test_stored_type_of_weights_is_not_the_type_of_the_product() -> None:
    weight_only = block("new")
    weight_only[1]["Constants"][0]["Datatype"] = "Int8"
    plan = parse_inspector(json.dumps({"Layers": weight_only}))
    assert plan.gemm_layers[1].dtype == "Half"
    quantized = block("new")
    quantized[3]["Inputs"][0]["Datatype"] = quantized[3]["Constants"][0]["Datatype"] = "Int8"
    assert parse_inspector(json.dumps({"Layers": quantized})).gemm_layers[2].dtype == "Int8"  # the residual stays Half


@pytest.mark.parametrize("text", ["", "{}", '{"Layers": ["just a name"]}'])
def test_an_answer_without_details_proves_nothing(text: str) -> None:
    with pytest.raises(BuildError, match="no layer details"):
        parse_inspector(text)


def test_quantized_attention_without_a_kernel_is_advised_to_be_left_out() -> None:
    """Heads of 16 and few tokens: the pattern is in the graph already, and fp16 attention would fuse."""
    plan = dataclasses.replace(parse_rtx_log(log("rtx_fp16_two_blocks")), attention_fused=0, attention_dtypes={})
    with pytest.raises(PrecisionError, match=r"fused in 0 of 2 blocks: .* no kernel .*; leave out fp8_attention$"):
        prove(plan, precision=Precision.FP8, num_attention=2, num_gemms=8, attention_dtype="FP8")
