"""The layers of a plan: what each does, the compact form in the sidecar, the table, and the drawing for Netron."""

from __future__ import annotations

import dataclasses
import json
from collections import Counter
from pathlib import Path
from typing import Any

import onnx
import pytest
from onnx import TensorProto

from vivit_export.bundle import ENGINES, Bundle
from vivit_export.errors import BundleError, InputError, OutputError, UsageError
from vivit_export.export.engine.drawing import DOMAIN, plan_to_onnx, write_plan_onnx
from vivit_export.export.engine.layers import Layer, PlanTensor, layers_from_log
from vivit_export.export.engine.plan import parse_rtx_log
from vivit_export.export.engine.table import EnginePlan, choose_engine, plan_text, read_plan

DATA = Path(__file__).parent / "data"
LOGS = ["rtx_fp16_two_blocks", "rtx_fp32_one_block", "rtx_int8_one_block"]


def log(name: str) -> str:
    return (DATA / f"{name}.log").read_text()


def sidecar(name: str) -> dict[str, Any]:
    plan = parse_rtx_log(log(name)).to_json()
    return {"sms": [89, 120], "profiles": [{"min": 1, "opt": 4, "max": 8}], "plan": plan}


def bundle(folder: Path, **engines: dict[str, Any]) -> Bundle:
    return Bundle(folder, {"engines": engines}, None)  # type: ignore[arg-type]


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
    stored = json.loads(json.dumps([layer.to_json() for layer in layers]))
    assert tuple(Layer.from_json(layer) for layer in stored) == layers


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
    data = {**layers_from_log(log(LOGS[0]))[0].to_json(), **change}
    with pytest.raises(InputError, match="damaged or of another version"):
        Layer.from_json({k: v for k, v in data.items() if v is not None})


# --- the table ---------------------------------------------------------------------------------


def test_the_table_says_what_the_kernels_do() -> None:
    plan = EnginePlan("rtx", sidecar(LOGS[0]), layers_from_log(log(LOGS[0])))
    lines = plan_text(plan).splitlines()
    assert lines[0] == "  plan       rtx: SM89 SM120, 20 kernels in 29 layers"
    assert [line.split()[:2] for line in lines[1:6]] == [
        ["attention", "2"],
        ["gemm", "10"],
        ["copy", "1"],
        ["other", "7"],
        ["host", "9"],
    ]
    assert lines[1].split("fused, ")[1].startswith("2 Half: ")
    assert lines[2].endswith("10 Half")
    assert lines[6].split("activations ")[1].endswith(f"weights {plan.sidecar['plan']['weight_bytes'] / 1e6:.1f} MB")
    assert plan.to_json()["roles"] == {"attention": 2, "copy": 1, "gemm": 10, "host": 9, "other": 7}


def test_attention_is_named_after_its_modules() -> None:
    mha = next(layer for layer in layers_from_log(log(LOGS[0])) if layer.role == "attention")
    blocks = [0, 1, 2, 5]
    layers = [
        dataclasses.replace(mha, nodes=(f"layers.{i}.attention/Softmax/CastUp", f"layers.{i}.attention/QK"))
        for i in blocks
    ]
    plan = EnginePlan("rtx", sidecar(LOGS[0]), tuple(layers))
    assert plan.attention == [f"layers.{i}.attention" for i in blocks]
    assert plan_text(plan).splitlines()[1].endswith("fused, 4 Half: layers.0-2,5.attention")


def test_a_plan_without_layers_says_so(tmp_path: Path) -> None:
    (tmp_path / ENGINES).mkdir()
    (tmp_path / ENGINES / "rtx.json").write_text("{}")
    plan = read_plan(bundle(tmp_path, rtx=sidecar(LOGS[0])), "rtx")
    assert plan.layers == ()
    assert "its layers were not recorded; build the engine again with --force" in plan_text(plan)


@pytest.mark.parametrize("text", ["", "[]", '{"layers": [{}]}', None])
def test_a_damaged_sidecar_is_refused(tmp_path: Path, text: str | None) -> None:
    (tmp_path / ENGINES).mkdir()
    if text is not None:
        (tmp_path / ENGINES / "rtx.json").write_text(text)
    with pytest.raises(BundleError, match=r"rtx\.json cannot be read .*; build the engine again"):
        read_plan(bundle(tmp_path, rtx=sidecar(LOGS[0])), "rtx")


def test_which_engine(tmp_path: Path) -> None:
    one, two = bundle(tmp_path, a={}), bundle(tmp_path, a={}, b={})
    assert choose_engine(one, None) == choose_engine(two, "a") == "a"
    with pytest.raises(UsageError, match="holds 2 engines; name one with engine: a, b"):
        choose_engine(two, None)
    with pytest.raises(UsageError, match=r"'c' is not in .*; it holds a, b"):
        choose_engine(two, "c")
    with pytest.raises(UsageError, match="holds no engine, so there is no plan; run: vivit build"):
        choose_engine(bundle(tmp_path), None)


# --- the drawing -------------------------------------------------------------------------------


@pytest.mark.parametrize("name", LOGS)
def test_the_drawing_is_valid_onnx_with_a_node_per_layer(name: str, tmp_path: Path) -> None:
    layers = layers_from_log(log(name))
    write_plan_onnx(layers, "rtx", tmp_path / "plan.onnx")
    model = onnx.load(tmp_path / "plan.onnx")
    onnx.checker.check_model(model, full_check=True)
    assert [p.name for p in tmp_path.iterdir()] == ["plan.onnx"]
    assert [(n.name, n.op_type, n.domain) for n in model.graph.node] == [(x.name, x.role, DOMAIN) for x in layers]
    gemm = next(node for node in model.graph.node if node.op_type == "gemm")
    told = {a.name: onnx.helper.get_attribute_value(a) for a in gemm.attribute}
    layer = next(x for x in layers if x.role == "gemm")
    assert (told["kind"].decode(), told["compute_dtype"].decode()) == (layer.kind, layer.dtype)
    assert [n.decode() for n in told["onnx_nodes"]] == list(layer.nodes)
    assert [t.decode() for t in told["plan_constants"]] == [str(t) for t in layer.constants]


def test_edges_lead_from_where_a_tensor_was_last_written() -> None:
    def layer(name: str, inputs: str, outputs: str) -> Layer:
        ins, outs = (tuple(PlanTensor(t, (-1, 4), "Half") for t in names) for names in (inputs, outputs))
        return Layer(name, "kgen", ins, (), outs, "", ())

    model = plan_to_onnx([layer("1", "x", "a"), layer("2", "a", "a"), layer("2", "aa", "y"), layer("3", "", "")], "p")
    onnx.checker.check_model(model, full_check=True)
    nodes = model.graph.node
    assert [list(node.input) for node in nodes] == [["x"], ["a"], ["a'"], []]
    assert [node.name for node in nodes] == ["1", "2", "2'", "3"]
    assert [value.name for value in model.graph.input] == ["x"]
    assert [value.name for value in model.graph.output] == ["y"]
    element = model.graph.output[0].type.tensor_type
    assert element.elem_type == TensorProto.FLOAT16
    assert [d.dim_param or d.dim_value for d in element.shape.dim] == ["dynamic", 4]


def test_a_drawing_that_cannot_be_written_leaves_nothing(tmp_path: Path) -> None:
    (tmp_path / "plan.onnx").mkdir()
    with pytest.raises(OutputError, match=r"plan\.onnx cannot be written: .*; choose another place"):
        write_plan_onnx((), "p", tmp_path / "plan.onnx")
    assert [p.name for p in tmp_path.iterdir()] == ["plan.onnx"]
