"""Graphs in correctly hashed files that no export writes: refused before another library sees them, by every reader."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from attacked import edit, entry, make, within_limits
from onnx import TensorProto, helper, numpy_helper

from vivit_export.bundle import read_bundle
from vivit_export.bundle.graph import require_sound_graph
from vivit_export.deploy.cpp.deploy import deploy_cpp
from vivit_export.deploy.triton.deploy import deploy_triton
from vivit_export.errors import BundleError
from vivit_export.export.build import build_engines
from vivit_export.export.recheck import check
from vivit_export.runtime.select import open_session

Attack = Callable[[onnx.ModelProto], object]


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make(tmp_path_factory.mktemp("whole") / "bundle")


@pytest.fixture
def bundle(tmp_path: Path) -> Path:
    return make(tmp_path / "bundle")


def node(model: onnx.ModelProto, op: str) -> onnx.NodeProto:
    found: onnx.NodeProto = next(n for n in model.graph.node if n.op_type == op)
    return found


def nested(depth: int) -> onnx.GraphProto:
    inner = helper.make_graph([], "leaf", [], [])
    for _ in range(depth):
        branches = {"then_branch": inner, "else_branch": inner}
        inner = helper.make_graph([helper.make_node("If", ["c"], ["o"], **branches)], "g", [], [])
    return inner


def add_node(op: str, inputs: list[str], outputs: list[str], **attributes: Any) -> Attack:
    """Put a node in front of all others."""

    def attack(model: onnx.ModelProto) -> None:
        model.graph.node.insert(0, helper.make_node(op, inputs, outputs, name="extra", **attributes))

    return attack


def circle(model: onnx.ModelProto) -> None:
    for source, to in (("a", "b"), ("b", "a")):
        model.graph.node.insert(0, helper.make_node("Cast", [source], [to], to=1))


def loop(model: onnx.ModelProto) -> None:
    turns = numpy_helper.from_array(np.array(2**62, np.int64), "turns")
    model.graph.initializer.append(turns)
    body = helper.make_graph([], "body", [], [])
    model.graph.node.insert(0, helper.make_node("Loop", ["turns", ""], ["x"], body=body))


def outside(**told: str) -> Attack:
    """Keep the first weight somewhere else."""

    def attack(model: onnx.ModelProto) -> None:
        weight = model.graph.initializer[0]
        weight.ClearField("raw_data")
        weight.data_location = TensorProto.EXTERNAL
        for key, value in told.items():
            weight.external_data.add(key=key, value=value)

    return attack


def input_dim(model: onnx.ModelProto) -> onnx.TensorShapeProto.Dimension:
    dim: onnx.TensorShapeProto.Dimension = model.graph.input[0].type.tensor_type.shape.dim[1]
    return dim


def wide_logits(model: onnx.ModelProto) -> None:
    model.graph.output[0].type.tensor_type.shape.dim[1].dim_value = 20


def pad(model: onnx.ModelProto) -> None:
    pads = numpy_helper.from_array(np.array([0, 0, 0, 0, 0, 0, 2**40, 0, 0, 0], np.int64), "pads")
    model.graph.initializer.append(pads)
    model.graph.node.insert(0, helper.make_node("Pad", [model.graph.input[0].name, "pads"], ["huge"]))


def many(model: onnx.ModelProto) -> None:
    model.graph.node.extend(helper.make_node("Abs", ["frames"], [f"n{i}"]) for i in range(20_001))


def function(model: onnx.ModelProto) -> None:
    identity = helper.make_node("Identity", ["x"], ["y"])
    model.functions.append(helper.make_function("mine", "F", ["x"], ["y"], [identity], model.opset_import))


def sparse(model: onnx.ModelProto) -> None:
    values = helper.make_tensor("v", TensorProto.FLOAT, [1], [1.0])
    indices = helper.make_tensor("i", TensorProto.INT64, [1], [0])
    model.graph.sparse_initializer.append(helper.make_sparse_tensor(values, indices, [10**9]))


ATTACKS: dict[str, Attack] = {
    "an opset of 10^9": lambda m: setattr(m.opset_import[0], "version", 10**9),
    "an opset of 1": lambda m: setattr(m.opset_import[0], "version", 1),
    "no opset": lambda m: m.ClearField("opset_import"),
    "a custom domain": lambda m: m.opset_import.add(domain="com.microsoft", version=1),
    "a format of the future": lambda m: setattr(m, "ir_version", 10**6),
    "a function": function,
    "training": lambda m: m.training_info.add(),
    "sparse weights": sparse,
    "an op of another domain": lambda m: setattr(m.graph.node[0], "domain", "com.microsoft"),
    "an unknown op": lambda m: setattr(m.graph.node[0], "op_type", "Nonsense"),
    "a random op": add_node("RandomNormal", [], ["r"], shape=[2**31]),
    "a loop of 2^62 turns": loop,
    "ten levels of If": add_node("If", ["c"], ["o"], then_branch=nested(10), else_branch=nested(1)),
    "an If in a harmless op": add_node("Abs", ["frames"], ["o"], then_branch=nested(1)),
    "a constant": add_node("Constant", [], ["o"], value=helper.make_tensor("v", 1, [1], [0.0])),
    "a node without outputs": add_node("Abs", ["frames"], []),
    "a node without inputs": add_node("Abs", [], ["o"]),
    "a Cast without attributes": lambda m: node(m, "Cast").ClearField("attribute"),
    "an attribute of another type": add_node("Cast", ["frames"], ["o"], to="float"),
    "two Casts in a circle": circle,
    "a node that reads itself": add_node("Abs", ["o"], ["o"]),
    "a tensor that is written twice": add_node("Abs", ["frames"], ["frames"]),
    "a tensor of nowhere": lambda m: node(m, "Cast").input.__setitem__(0, "nowhere"),
    "nodes in reverse": lambda m: m.graph.node.reverse(),
    "no nodes": lambda m: m.graph.ClearField("node"),
    "too many nodes": many,
    "a negative dimension of the input": lambda m: setattr(input_dim(m), "dim_value", -4),
    "an absurd dimension of the input": lambda m: setattr(input_dim(m), "dim_value", 2**62),
    "an input of another type": lambda m: setattr(m.graph.input[0].type.tensor_type, "elem_type", 7),
    "two inputs": lambda m: m.graph.input.add(name="more"),
    "no input": lambda m: m.graph.ClearField("input"),
    "20 logits for 5 labels": wide_logits,
    "outputs of int64": lambda m: setattr(m.graph.output[0].type.tensor_type, "elem_type", 7),
    "outputs of float64": lambda m: setattr(m.graph.output[0].type.tensor_type, "elem_type", 11),
    "outputs of strings": lambda m: setattr(m.graph.output[0].type.tensor_type, "elem_type", 8),
    "one output less": lambda m: m.graph.output.pop(),
    "an output that is a sequence": lambda m: m.graph.output[0].type.CopyFrom(
        helper.make_sequence_type_proto(helper.make_tensor_type_proto(1, [1]))
    ),
    "a fixed batch": lambda m: setattr(m.graph.input[0].type.tensor_type.shape.dim[0], "dim_value", 3),
    "padding by 2^40": pad,
    "a tensor of a negative side": lambda m: m.graph.value_info.append(helper.make_tensor_value_info("v", 1, [-1, 4])),
    "a tensor of 2^40": lambda m: m.graph.value_info.append(helper.make_tensor_value_info("v", 1, [2**40])),
    "a weight of a negative side": lambda m: m.graph.initializer[0].dims.__setitem__(0, -1),
    "a weight of 2^60": lambda m: m.graph.initializer[0].dims.__setitem__(0, 2**60),
    "a weight without data": lambda m: m.graph.initializer[0].ClearField("raw_data"),
    "a weight of strings": lambda m: setattr(m.graph.initializer[0], "data_type", TensorProto.STRING),
    "two weights of one name": lambda m: m.graph.initializer.append(m.graph.initializer[0]),
    "weights above the bundle": outside(location="../secret", offset="0", length="4"),
    "weights in /etc": outside(location="/etc/passwd", offset="0", length="4"),
    "weights in an unlisted file": outside(location="model.onnx.data", offset="0", length="4"),
    "weights in the manifest": outside(location="bundle.json", offset="0", length="4"),
    "weights nowhere": outside(),
    "weights at a negative offset": outside(location="model.onnx.data", offset="-4", length="4"),
    "weights with a checksum of their own": outside(location="model.onnx.data", checksum="0"),
}


def attack_graph(folder: Path, change: Attack) -> None:
    """Change the graph, and make its hash right."""
    model = onnx.load(folder / "model.onnx", load_external_data=False)
    change(model)
    (folder / "model.onnx").write_bytes(model.SerializeToString())
    edit(folder, lambda manifest: None)


@pytest.mark.parametrize("change", ATTACKS.values(), ids=ATTACKS)
def test_a_graph_that_no_export_writes_is_refused(bundle: Path, change: Attack) -> None:
    attack_graph(bundle, change)
    found = read_bundle(bundle)
    with within_limits(), pytest.raises(BundleError, match=r"model\.onnx"):
        require_sound_graph(found)


NO_GRAPHS = {
    "empty": b"",
    "garbage": b"\x08\x0a\xff" * 5000,
    "text": b"not a graph",
    "another protobuf": b"\x0a\x03abc",
    "deep groups": b"\x0b" * 100_000,
    "endless length": b"\x3a\xff\xff\xff\xff\x7f",
}


@pytest.mark.parametrize("data", NO_GRAPHS.values(), ids=NO_GRAPHS)
def test_what_is_no_graph_is_refused(bundle: Path, data: bytes) -> None:
    (bundle / "model.onnx").write_bytes(data)
    edit(bundle, lambda manifest: None)
    found = read_bundle(bundle)
    with within_limits(), pytest.raises(BundleError, match=r"is not an ONNX graph"):
        require_sound_graph(found)


@pytest.mark.parametrize("share", [0.1, 0.5, 0.9, 0.999])
def test_a_graph_that_is_cut_short_is_refused(bundle: Path, share: float) -> None:
    data = (bundle / "model.onnx").read_bytes()
    (bundle / "model.onnx").write_bytes(data[: int(share * len(data))])
    edit(bundle, lambda manifest: None)
    found = read_bundle(bundle)
    with within_limits(), pytest.raises(BundleError, match=r"model\.onnx"):
        require_sound_graph(found)


def test_names_that_are_no_text_are_refused(bundle: Path) -> None:
    """Protobuf takes any bytes for a string, until somebody reads it."""
    data = (bundle / "model.onnx").read_bytes()
    for name in set(re.findall(rb"[a-z]{5,}", data)):
        (bundle / "model.onnx").write_bytes(data.replace(name, name[:-1] + b"\xff"))
        edit(bundle, lambda manifest: None)
        with pytest.raises(BundleError, match=r"model\.onnx"):
            require_sound_graph(read_bundle(bundle))


READERS: dict[str, Callable[[Path, Path], object]] = {
    "open_session": lambda bundle, _: open_session(bundle),
    "open_session on OpenVINO": lambda bundle, _: open_session(bundle, "openvino"),
    "check": lambda bundle, _: check(bundle),
    "deploy cpp": deploy_cpp,
    "deploy triton": deploy_triton,
    "build": lambda bundle, _: build_engines(bundle, ("tensorrt",)),
}


@pytest.mark.parametrize("read", READERS.values(), ids=READERS)
def test_every_reader_refuses_it_and_writes_nothing(bundle: Path, tmp_path: Path, read: Callable[..., object]) -> None:
    attack_graph(bundle, ATTACKS["two Casts in a circle"])
    before = sorted(tmp_path.rglob("*"))
    with within_limits(), pytest.raises(BundleError, match="which no export writes"):
        read(bundle, tmp_path / "out")
    assert sorted(tmp_path.rglob("*")) == before


def test_a_graph_that_was_replaced_after_the_check_of_hashes_is_refused(bundle: Path) -> None:
    found = read_bundle(bundle)
    (bundle / "model.onnx").write_bytes((bundle / "model.onnx").read_bytes() + b"\x3a\x00")
    with pytest.raises(BundleError, match="altered or cut short"):
        require_sound_graph(found)


def test_external_weights_in_the_listed_file_are_fine(bundle: Path) -> None:
    model = onnx.load(bundle / "model.onnx")
    weight = max(model.graph.initializer, key=lambda w: len(w.raw_data))
    (bundle / "model.onnx.data").write_bytes(weight.raw_data)
    length = str(len(weight.raw_data))

    def move(m: onnx.ModelProto) -> None:
        (moved,) = (w for w in m.graph.initializer if w.name == weight.name)
        m.graph.initializer.remove(moved)
        m.graph.initializer.insert(0, moved)
        outside(location="model.onnx.data", offset="0", length=length)(m)

    attack_graph(bundle, move)
    found = read_bundle(bundle)
    require_sound_graph(found)
    for key, value in (("offset", "4"), ("length", "4"), ("offset", "9" * 30)):
        change: Attack = lambda m, k=key, v=value: _tell(m, k, v)  # type: ignore[misc]  # noqa: E731
        attack_graph(bundle, change)
        found = read_bundle(bundle)
        with pytest.raises(BundleError, match=r"model\.onnx"):
            require_sound_graph(found)
        _restore(bundle, length)


def _tell(model: onnx.ModelProto, key: str, value: str) -> None:
    (item,) = (item for item in model.graph.initializer[0].external_data if item.key == key)
    item.value = value


def _restore(folder: Path, length: str) -> None:
    def put_back(model: onnx.ModelProto) -> None:
        _tell(model, "offset", "0")
        _tell(model, "length", length)

    attack_graph(folder, put_back)


def test_what_is_whole_is_accepted(whole: Path) -> None:
    found = read_bundle(whole)
    require_sound_graph(found)
    assert entry(whole / "model.onnx")["size"] == found.manifest.files["model.onnx"].size
