"""What this machine's matrix products reach, for rooflines: fc1's shape in ViViT-B, in each type, by each library."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt
from onnx import NodeProto, TensorProto, helper, numpy_helper

M, K, N = 3137, 768, 3072  # tokens by hidden size, hidden size by intermediate size
_CALLS = 20
Run = Callable[[], object]


def gemm_rates() -> dict[str, dict[str, float]]:
    """GFLOP/s of the fastest of several calls, by type and library.

    No single library is the limit: PyTorch's float32 product is half as fast as the others' on some processors. The
    int8 product is a MatMul between Q/DQ pairs, as in our INT8 graphs, with float32 input and output.
    """
    import openvino

    core = openvino.Core()  # one for all: see `vivit_export.runtime.session.openvino`
    rng = np.random.default_rng(0)
    a, b = (rng.standard_normal(shape, dtype=np.float32) for shape in ((M, K), (K, N)))
    plain, quantized = _model(b), _quantized_model(a, b)
    runs: dict[str, dict[str, Run]] = {
        "float32": {
            "pytorch": _torch(a, b, "float32"),
            "onnxruntime": _onnxruntime(plain, a),
            "openvino": _openvino(core, plain, a, "f32"),
        },
        "bfloat16": {"pytorch": _torch(a, b, "bfloat16"), "openvino": _openvino(core, plain, a, "bf16")},
        "int8": {"onnxruntime": _onnxruntime(quantized, a), "openvino": _openvino(core, quantized, a, "f32")},
    }
    flop = 2 * M * K * N
    return {
        kind: {library: flop / min(_seconds(run) for _ in range(_CALLS)) / 1e9 for library, run in of.items()}
        for kind, of in runs.items()
    }


def _seconds(run: Run) -> float:
    start = time.perf_counter()
    run()
    return time.perf_counter() - start


def _torch(a: npt.NDArray[np.float32], b: npt.NDArray[np.float32], dtype: str) -> Run:
    import torch

    left, right = (torch.from_numpy(x).to(getattr(torch, dtype)) for x in (a, b))
    return lambda: torch.mm(left, right)


def _onnxruntime(model: bytes, a: npt.NDArray[np.float32]) -> Run:
    import onnxruntime

    session = onnxruntime.InferenceSession(model, providers=["CPUExecutionProvider"])
    return lambda: session.run(None, {"a": a})


def _openvino(core: Any, model: bytes, a: npt.NDArray[np.float32], precision: str) -> Run:
    hints = {"INFERENCE_PRECISION_HINT": precision, "PERFORMANCE_HINT": "LATENCY"}
    request = core.compile_model(core.read_model(model), "CPU", hints).create_infer_request()
    return lambda: request.infer([a], share_inputs=True, share_outputs=True)


def _model(b: npt.NDArray[np.float32]) -> bytes:
    nodes = [helper.make_node("MatMul", ["a", "b"], ["c"])]
    return _serialize(nodes, {"b": b})


def _quantized_model(a: npt.NDArray[np.float32], b: npt.NDArray[np.float32]) -> bytes:
    a_scale, b_scale = (np.array(np.abs(x).max() / 127, np.float32) for x in (a, b))
    weights: dict[str, Any] = {
        "b8": np.round(b / b_scale).astype(np.int8),
        "a_scale": a_scale, "b_scale": b_scale, "zero": np.array(0, np.int8),
    }  # fmt: skip
    nodes = [
        helper.make_node("QuantizeLinear", ["a", "a_scale", "zero"], ["a8"]),
        helper.make_node("DequantizeLinear", ["a8", "a_scale", "zero"], ["a_dq"]),
        helper.make_node("DequantizeLinear", ["b8", "b_scale", "zero"], ["b_dq"]),
        helper.make_node("MatMul", ["a_dq", "b_dq"], ["c"]),
    ]
    return _serialize(nodes, weights)


def _serialize(nodes: list[NodeProto], weights: dict[str, Any]) -> bytes:
    a, c = (helper.make_tensor_value_info(n, TensorProto.FLOAT, s) for n, s in (("a", (M, K)), ("c", (M, N))))
    initializers = [numpy_helper.from_array(array, name) for name, array in weights.items()]
    graph = helper.make_graph(nodes, "gemm", [a], [c], initializers)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
    return bytes(model.SerializeToString())
