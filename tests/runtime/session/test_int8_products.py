"""INT8 and FP8 bundles on the CPU: the function of the bundle's graph, in integer products where it counts."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
from bundles import Bundles, need, random_crops
from onnx import TensorProto, helper, numpy_helper

import vivit_export as ve
from vivit_export.bundle import Bundle
from vivit_export.calibration.options import CalibrationOptions
from vivit_export.packages import is_older
from vivit_export.runtime.session import device
from vivit_export.runtime.session.device import saturates
from vivit_export.runtime.session.int8_products import use_int8_products
from vivit_export.runtime.session.onnxruntime import OnnxRuntimeSession, prepare_for_cpu
from vivit_export.runtime.session.widen import load_widened

# ONNX Runtime 1.23 runs codes beside attention as one op in a session alone, but not the graph as it is.
OPTIONS = {
    "calibration": CalibrationOptions(num_clips=32),
    "attention": "pattern" if is_older(onnxruntime.__version__, "1.24") else "fused-op",
}


@pytest.fixture(params=["int8", "fp8"])
def bundle(request: pytest.FixtureRequest, bundles: Bundles) -> Bundle:
    return bundles.demo(precision=request.param, **OPTIONS)


@pytest.fixture
def int8(bundles: Bundles) -> Bundle:
    return bundles.demo(precision="int8", **OPTIONS)


@pytest.mark.parametrize("engine", ["onnxruntime-cpu", "openvino"])
def test_a_session_computes_what_the_graph_does(bundle: Bundle, engine: str) -> None:
    need("onnxruntime", engine.removesuffix("-cpu"))
    clips = random_crops(bundle, 5)
    expected = OnnxRuntimeSession(bundle.model).run(clips)
    in_float = engine == "openvino" and saturates()
    of_int8 = "int8 codes, computed in fp32" if in_float else "int8 Linears, fp32 otherwise"
    words = {"int8": of_int8, "fp8": "fp8 roundings emulated in fp32"}
    with ve.open_session(bundle, prefer=engine) as session:
        assert words[bundle.precision] in session.details
        for name, array in session.run(clips).items():
            # A value that lies on the edge of two codes may fall to either side; the graph rounds to fp16 between.
            np.testing.assert_allclose(array, expected[name], rtol=0, atol=0.02 * float(np.ptp(expected[name])))


def test_every_product_becomes_an_integer_one(int8: Bundle) -> None:
    model = load_widened(int8)
    assert use_int8_products(model) == 24
    found = Counter(node.op_type for node in model.graph.node)
    assert found["MatMulIntegerToFloat"] == 24
    assert found["QuantizeLinear"] == 16
    assert not found["DequantizeLinear"]
    assert use_int8_products(model) == 0


@pytest.mark.parametrize("unsigned_weights", [True, False])
def test_integer_products_are_exact(int8: Bundle, unsigned_weights: bool) -> None:
    """Also with weights that were made unsigned, as a session makes them on processors without VNNI."""
    if not unsigned_weights and saturates():
        pytest.skip("this CPU has no VNNI: sums of products with signed weights saturate")
    clips = random_crops(int8, 3)
    before, after = (load_widened(int8) for _ in range(2))
    use_int8_products(after)
    results = []
    for model in (before, after):
        options = onnxruntime.SessionOptions()
        if unsigned_weights and model is after:
            options.add_session_config_entry("session.x64quantprecision", "1")
        else:
            options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
        session = onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
        results.append(session.run(["logits"], {"frames": clips})[0])
    np.testing.assert_allclose(results[1], results[0], rtol=0, atol=2e-3 * np.ptp(results[0]))


def product(*, bias: str = "vector", extra_output: bool = False) -> onnx.ModelProto:
    """Quantize, multiply 3 channels by 2 columns, add; input (4, 3)."""
    rng = np.random.default_rng(0)
    constants: dict[str, np.ndarray] = {
        "s": np.array(0.05, np.float32),
        "z": np.array(0, np.int8),
        "w": rng.integers(-127, 128, (3, 2), dtype=np.int8),
        "ws": np.array([0.01, 0.02], np.float32),
        "wz": np.zeros(2, np.int8),
        "b": np.array([0.5, -0.5], np.float32) if bias == "vector" else np.ones((4, 2), np.float32),
    }
    nodes = [
        helper.make_node("QuantizeLinear", ["x", "s", "z"], ["q"]),
        helper.make_node("DequantizeLinear", ["q", "s", "z"], ["d"]),
        helper.make_node("DequantizeLinear", ["w", "ws", "wz"], ["dw"], axis=1),
        helper.make_node("MatMul", ["d", "dw"], ["p"], name="m"),
        helper.make_node("Add", ["p", "b"], ["y"]),
    ]
    outputs = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [4, 2]) for name in ("y", "p")]
    graph = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [4, 3])],
        outputs if extra_output else outputs[:1],
        [numpy_helper.from_array(array, name) for name, array in constants.items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)


@pytest.mark.parametrize(
    ("options", "ops"),
    [
        ({}, ["QuantizeLinear", "MatMulIntegerToFloat"]),
        ({"bias": "array"}, ["QuantizeLinear", "MatMulIntegerToFloat", "Add"]),
        ({"extra_output": True}, ["QuantizeLinear", "MatMulIntegerToFloat", "Add"]),
    ],
)
def test_a_bias_is_taken_along_where_nothing_else_reads_the_product(options: dict[str, object], ops: list[str]) -> None:
    model = product(**options)  # type: ignore[arg-type]
    x = np.linspace(-9, 9, 12, dtype=np.float32).reshape(4, 3)  # beyond the range of the codes on both sides

    def run() -> np.ndarray:
        session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
        return np.asarray(session.run(["y"], {"x": x})[0])

    expected = run()
    assert use_int8_products(model) == 1
    assert [node.op_type for node in model.graph.node] == ops
    np.testing.assert_allclose(run(), expected, rtol=1e-5, atol=1e-5)


def test_other_products_are_left_alone() -> None:
    dynamic, unsigned = product(), product()
    dynamic.graph.node[3].input[1] = "d2"
    for tensor in unsigned.graph.initializer:
        if tensor.name == "z":
            tensor.CopyFrom(numpy_helper.from_array(np.array(0, np.uint8), "z"))
    for model in (dynamic, unsigned):
        before = model.SerializeToString()
        assert use_int8_products(model) == 0
        assert model.SerializeToString() == before


def test_what_is_prepared_is_for_any_cpu(int8: Bundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is deployed must not depend on the machine that deploys it."""
    here, _ = prepare_for_cpu(int8)
    assert sum(node.op_type == "MatMulIntegerToFloat" for node in here.graph.node) == 24
    monkeypatch.setattr(device, "_CPU", tmp_path / "nowhere")
    assert prepare_for_cpu(int8)[0].SerializeToString(deterministic=True) == here.SerializeToString(deterministic=True)
