"""The session on ONNX Runtime: its provider, what it is given to run there, and graphs that it refuses."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from bundles import Bundles, need, random_crops
from damage import rehash
from onnx import TensorProto, helper

import vivit_export as ve
from vivit_export.bundle import MODEL, read_bundle
from vivit_export.bundle.graph import require_sound_graph
from vivit_export.calibration.options import CalibrationOptions
from vivit_export.errors import EnvironmentFault
from vivit_export.runtime.session.multi_head_attention import use_multi_head_attention
from vivit_export.runtime.session.onnxruntime import _options, sharing_cores
from vivit_export.runtime.session.widen import widen_to_float32


@pytest.mark.parametrize(("starts", "device"), [(True, "cuda"), (False, "cpu")])
def test_a_calibration_runs_on_the_gpu_where_there_is_one(
    bundles: Bundles, monkeypatch: pytest.MonkeyPatch, starts: bool, device: str
) -> None:
    need("onnxruntime")
    import onnxruntime

    from vivit_export.runtime.session.onnxruntime import OnnxRuntimeSession

    asked = []
    real = onnxruntime.InferenceSession

    class Cuda:
        def __init__(self, model: object, options: object, providers: list[object], **more: object) -> None:
            asked.append(providers)
            self._session = real(model, options, providers=["CPUExecutionProvider"], **more)

        def __getattr__(self, name: str) -> object:
            return getattr(self._session, name)

        def get_providers(self) -> list[str]:
            return [*(["CUDAExecutionProvider"] if starts else []), "CPUExecutionProvider"]

    monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: ["CUDAExecutionProvider"])
    monkeypatch.setattr(onnxruntime, "InferenceSession", Cuda)
    model = bundles.demo().model
    assert OnnxRuntimeSession(model, prepared=True, gpu_if_there=True).name.endswith(device)
    assert asked == [[("CUDAExecutionProvider", {"use_tf32": "0"}), "CPUExecutionProvider"]]
    OnnxRuntimeSession(model, prepared=True)
    assert asked[1] == ["CPUExecutionProvider"]


FUSED = "3 fused attention layers"  # the last layer's single query is no such operator


@pytest.mark.parametrize("attention", ["fused-op", "pattern"])
@pytest.mark.parametrize("precision", ["fp32", "fp16", "bf16", "int8"])
@pytest.mark.parametrize("refuses", ["", "MultiHeadAttention"])
def test_cuda_runs_fused_attention_where_that_loads(
    bundles: Bundles, monkeypatch: pytest.MonkeyPatch, precision: str, attention: str, refuses: str
) -> None:
    """On an H100, an fp16 graph in the pattern form ran unfused, 2.5 times slower than PyTorch; bf16 did not load."""
    need("onnxruntime")
    import onnxruntime

    quantized = {"calibration": CalibrationOptions(num_clips=32)} if precision == "int8" else {}
    bundle = bundles.demo(precision=precision, attention=attention, **quantized)
    loaded: list[bytes] = []
    settings = {"device_id": "0", "use_tf32": "0", "arena_extend_strategy": "kSameAsRequested"}

    class Loads:
        def __init__(self, model: object, _options: object, providers: list[object]) -> None:
            assert isinstance(model, bytes)  # which were verified: no path
            if refuses and refuses.encode() in model:
                raise RuntimeError("no kernel\nfor it")
            loaded.append(model)
            assert providers[0] == ("CUDAExecutionProvider", settings)

        def get_providers(self) -> list[str]:
            return ["CUDAExecutionProvider"]

    monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: ["CUDAExecutionProvider"])
    monkeypatch.setattr(onnxruntime, "InferenceSession", Loads)
    with ve.open_session(bundle, prefer="onnxruntime-cuda", self_test=False) as session:
        said = "attention as in the graph, because fused attention does not load: " if refuses else FUSED
        assert f"GPU 0, {precision}, {said}" in session.details
    (content,) = loaded
    model, original = onnx.load_model_from_string(content), onnx.load(bundle.model, load_external_data=False)
    assert (b"MultiHeadAttention" in content) == (not refuses)
    if refuses:
        assert model == original
    inputs = {name for node in model.graph.node if node.op_type == "Pad" for name in (node.input[0], node.input[2])}
    types = {
        value.name: value.type.tensor_type.elem_type
        for value in onnx.shape_inference.infer_shapes(model).graph.value_info
    }
    types |= {tensor.name: tensor.data_type for tensor in model.graph.initializer}
    assert inputs
    assert {types[name] for name in inputs} < {TensorProto.FLOAT16, TensorProto.FLOAT}  # bfloat16 has no kernel


@pytest.mark.parametrize("precision", ["fp16", "bf16"])
def test_fused_attention_of_a_narrow_graph_computes_what_the_pattern_does(bundles: Bundles, precision: str) -> None:
    """The CPU has the operator in float32: with all types widened, only the fusion and the Casts around it differ."""
    need("onnxruntime")
    import onnxruntime

    bundle = bundles.demo(precision=precision, attention="pattern")
    results = []
    for fuse in (False, True):
        model = onnx.load(bundle.model)
        if fuse:
            assert use_multi_head_attention(model) == 3
        onnx.checker.check_model(model)
        widen_to_float32(model)
        session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
        results.append(session.run(["logits"], {session.get_inputs()[0].name: random_crops(bundle, 2)})[0])
    np.testing.assert_allclose(results[1], results[0], rtol=0, atol=1e-5)


@pytest.mark.parametrize("device", ["cuda", "cpu"])
def test_cuda_libraries_of_wheels_are_loaded_before_the_graph(
    bundles: Bundles, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str], device: str
) -> None:
    """ONNX Runtime's library finds only those of the system by itself."""
    need("onnxruntime")
    import onnxruntime

    order: list[str] = []
    real = onnxruntime.InferenceSession

    def preload() -> None:
        order.append("libraries")
        sys.stdout.write("Failed to load libcudnn.so.9")

    def load(*given: object, **more: object) -> object:
        order.append("graph")
        return real(*given, **{**more, "providers": ["CPUExecutionProvider"]})

    monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: ["CUDAExecutionProvider"])
    monkeypatch.setattr(onnxruntime, "preload_dlls", preload)
    monkeypatch.setattr(onnxruntime, "InferenceSession", load)
    if device == "cpu":
        ve.open_session(bundles.demo(), prefer="onnxruntime-cpu").close()
    else:
        with pytest.raises(EnvironmentFault, match="ONNX Runtime could not start CUDA on GPU 0"):
            ve.open_session(bundles.demo(), prefer="onnxruntime-cuda")
    assert order == (["libraries", "graph"] if device == "cuda" else ["graph"])
    assert capfd.readouterr().out == ""


def test_idle_threads_sleep_where_others_need_the_cores() -> None:
    need("onnxruntime")
    import onnxruntime

    key = "session.intra_op.allow_spinning"
    with sharing_cores():
        assert _options(onnxruntime).get_session_config_entry(key) == "0"
    with pytest.raises(RuntimeError):  # there is no such entry
        _options(onnxruntime).get_session_config_entry(key)


def test_steps_of_a_cpu_engine_are_one(bundles: Bundles) -> None:
    need("onnxruntime")
    with ve.open_session(bundles.demo(), prefer="onnxruntime-cpu") as session:
        steps = session.run_in_steps(random_crops(bundles.demo(), 1))
    assert list(steps) == ["compute"] and steps["compute"] > 0


def test_a_graph_that_the_engine_refuses_is_a_reason(bundles: Bundles, tmp_path: Path) -> None:
    need("onnxruntime")
    folder = bundles.copy(tmp_path / "bundle")
    model = onnx.load(folder / MODEL)
    (last,) = (node for node in model.graph.node if "logits" in node.output)
    last.output[list(last.output).index("logits")] = "whole"
    model.graph.node.extend([
        helper.make_node("Cast", ["whole"], ["narrow"], to=TensorProto.BFLOAT16),
        helper.make_node("Floor", ["narrow"], ["floor"]),  # ONNX has it in bf16, ONNX Runtime's CPU provider has not
        helper.make_node("Cast", ["floor"], ["logits"], to=TensorProto.FLOAT),
    ])  # fmt: skip
    onnx.save(model, folder / MODEL)
    rehash(folder, MODEL)
    require_sound_graph(read_bundle(folder))
    with pytest.raises(EnvironmentFault, match=r"onnxruntime-cpu was .*: ONNX Runtime cannot load model.onnx: .*Floor"):
        ve.open_session(folder, prefer="onnxruntime-cpu")


@pytest.mark.parametrize(("precision", "refused"), [("fp8", True), ("fp8", False), ("int8", False)])
def test_an_fp8_graph_that_the_optimizer_spoils_is_loaded_without_it(
    bundles: Bundles, monkeypatch: pytest.MonkeyPatch, precision: str, refused: bool
) -> None:
    """ONNX Runtime 1.23 to 1.31 do that in the pattern form of attention, 1.29 in every form."""
    need("onnxruntime")
    import onnxruntime

    bundle = bundles.demo(precision=precision, attention="pattern", calibration=CalibrationOptions(num_clips=32))
    given: list[list[str]] = []
    real = onnxruntime.InferenceSession

    def load(model: bytes, options: Any, providers: list[Any], disabled_optimizers: Sequence[str] = ()) -> Any:
        given.append(list(disabled_optimizers))
        if refused and not disabled_optimizers:
            raise RuntimeError("Type Error: Type 'tensor(float8e4m3fn)' of operator (Transpose) is invalid.")
        return real(model, options, providers=providers, disabled_optimizers=wrong if precision == "fp8" else [])

    wrong = ["QDQPropagationTransformer", "QDQSelectorActionTransformer"]
    monkeypatch.setattr(onnxruntime, "InferenceSession", load)
    ve.open_session(bundle, prefer="onnxruntime-cpu").close()
    assert given == ([[], wrong] if refused else [[]])
