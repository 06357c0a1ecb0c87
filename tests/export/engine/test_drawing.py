"""The plan of an engine drawn for Netron: valid ONNX with a node per layer."""

from __future__ import annotations

from pathlib import Path

import onnx
import pytest
from onnx import TensorProto
from plan_logs import LOGS, log

from vivit_export.errors import OutputError
from vivit_export.export.engine.drawing import DOMAIN, plan_to_onnx, write_plan_onnx
from vivit_export.export.engine.layers import Layer, PlanTensor, layers_from_log


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
    with pytest.raises(OutputError, match=r"plan\.onnx is a folder, not a file that can be replaced"):
        write_plan_onnx((), "p", tmp_path / "plan.onnx", force=True)
    assert [p.name for p in tmp_path.iterdir()] == ["plan.onnx"]
    (tmp_path / "other.onnx").write_text("mine")
    with pytest.raises(OutputError, match=r"other\.onnx exists; pass force to replace that file"):
        write_plan_onnx((), "p", tmp_path / "other.onnx")
    assert (tmp_path / "other.onnx").read_text() == "mine"
    write_plan_onnx((), "p", tmp_path / "other.onnx", force=True)
    assert onnx.load(tmp_path / "other.onnx").graph.name == "p"
