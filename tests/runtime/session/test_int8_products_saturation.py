"""INT8 products whose sums need more than 16 bits are exact on every processor, in every engine for CPUs."""

from __future__ import annotations

import copy
import platform
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
import pytest
from bundles import Bundles, need, random_crops
from onnx import TensorProto, helper, numpy_helper

import vivit_export as ve
from vivit_export.precision import Precision
from vivit_export.runtime.session import device, openvino
from vivit_export.runtime.session import onnxruntime as session_module
from vivit_export.runtime.session.device import saturates
from vivit_export.runtime.session.int8_products import use_int8_products
from vivit_export.runtime.session.onnxruntime import _options

ROWS, INNER, COLUMNS, SCALE, WEIGHT_SCALE = 9, 64, 48, 0.02, 0.01
Float32 = npt.NDArray[np.float32]


@pytest.fixture(scope="module")
def extremes() -> tuple[onnx.ModelProto, Float32, Float32]:
    """A product of codes over the whole range of INT8, clips for it, and the exact result."""
    rng = np.random.default_rng(0)
    weight = rng.choice(np.array([-127, -126, 126, 127], np.int8), (INNER, COLUMNS))
    codes = rng.choice(np.array([-128, 127, 1], np.int8), (ROWS, INNER))
    constants: dict[str, npt.NDArray[Any]] = {
        "s": np.array(SCALE, np.float32),
        "z": np.array(0, np.int8),
        "w": weight,
        "ws": np.full(COLUMNS, WEIGHT_SCALE, np.float32),
        "wz": np.zeros(COLUMNS, np.int8),
    }
    nodes = [
        helper.make_node("QuantizeLinear", ["x", "s", "z"], ["q"]),
        helper.make_node("DequantizeLinear", ["q", "s", "z"], ["d"]),
        helper.make_node("DequantizeLinear", ["w", "ws", "wz"], ["dw"], axis=1),
        helper.make_node("MatMul", ["d", "dw"], ["y"]),
    ]
    graph = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", INNER])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["n", COLUMNS])],
        [numpy_helper.from_array(array, name) for name, array in constants.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
    exact = (codes.astype(np.int64) @ weight.astype(np.int64)) * (SCALE * WEIGHT_SCALE)
    return model, (codes * np.float32(SCALE)).astype(np.float32), exact.astype(np.float32)


def in_onnxruntime(model: onnx.ModelProto, rows: Float32, options: Callable[[Any], Any]) -> Float32:
    import onnxruntime

    session = onnxruntime.InferenceSession(
        model.SerializeToString(), options(onnxruntime), providers=["CPUExecutionProvider"]
    )
    found: Float32 = session.run(None, {"x": rows})[0]
    return found


def in_openvino(model: onnx.ModelProto, rows: Float32, hints: dict[str, str], folder: Path) -> Float32:
    import openvino as library

    onnx.save(model, str(folder / "model.onnx"))
    found: Float32 = library.Core().compile_model(str(folder / "model.onnx"), "CPU", hints)([rows])[0]
    return found


@pytest.mark.needs_onnxruntime
@pytest.mark.field_case("onnxruntime 6004", "onnxruntime 14642", "pytorch 103646")
@pytest.mark.parametrize("prepared", [True, False])
def test_onnxruntime_is_exact(extremes: tuple[onnx.ModelProto, Float32, Float32], prepared: bool) -> None:
    model, rows, exact = extremes
    if prepared:
        model = copy.deepcopy(model)
        assert use_int8_products(model) == 1
    np.testing.assert_allclose(in_onnxruntime(model, rows, _options), exact, atol=1e-3)
    if saturates():  # so that this test can fail
        assert abs(in_onnxruntime(model, rows, lambda library: library.SessionOptions()) - exact).max() > 1


@pytest.mark.needs_onnxruntime
@pytest.mark.parametrize("saturating", [True, False])
def test_slower_products_are_asked_for_only_where_others_saturate(
    monkeypatch: pytest.MonkeyPatch, saturating: bool
) -> None:
    """On a processor with VNNI they take twice the time."""
    import onnxruntime

    monkeypatch.setattr(session_module, "saturates", lambda: saturating)
    options = _options(onnxruntime)
    if saturating:
        assert options.get_session_config_entry("session.x64quantprecision") == "1"
    else:
        with pytest.raises(RuntimeError):
            options.get_session_config_entry("session.x64quantprecision")


@pytest.mark.field_case("openvino 25342")
def test_openvino_is_exact(extremes: tuple[onnx.ModelProto, Float32, Float32], tmp_path: Path) -> None:
    need("openvino")
    model, rows, exact = extremes
    hints = openvino.hints_of(Precision.FP32, saturates())
    np.testing.assert_allclose(in_openvino(model, rows, hints, tmp_path), exact, atol=1e-3)
    if saturates():
        wrong = in_openvino(model, rows, openvino.hints_of(Precision.FP32, False), tmp_path)
        assert abs(wrong - exact).max() > 1


@pytest.mark.parametrize(
    ("machine", "flags", "expected"),
    [
        ("x86_64", "avx2 avx512f avx512bw", True),
        ("AMD64", "avx2", True),
        ("x86_64", "avx2 avx512_vnni", False),
        ("x86_64", "avx2 avx_vnni", False),
        ("aarch64", "asimd", False),  # its kernels add in 32 bits
        ("x86_64", None, True),  # unknown
    ],
)
def test_which_processors_saturate(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, machine: str, flags: str | None, expected: bool
) -> None:
    if flags is not None:
        (tmp_path / "cpuinfo").write_text(f"flags : {flags}\n")
    monkeypatch.setattr(device, "_CPU", tmp_path / "cpuinfo")
    monkeypatch.setattr(platform, "machine", lambda: machine)
    assert saturates() is expected


@pytest.mark.needs_onnxruntime
@pytest.mark.parametrize(
    ("saturating", "told"), [(True, "int8 codes, computed in fp32"), (False, "int8 Linears, fp32 otherwise")]
)
def test_a_session_says_how_it_computes(
    bundles: Bundles, monkeypatch: pytest.MonkeyPatch, saturating: bool, told: str
) -> None:
    need("openvino")
    monkeypatch.setattr(openvino, "saturates", lambda: saturating)
    bundle = bundles.demo(precision="int8")
    clips = random_crops(bundle, 1)
    with ve.open_session(bundle, "openvino", self_test=False) as session:
        assert told in session.details
        assert np.isfinite(session.infer(clips)).all()
