"""The session on ONNX Runtime: its provider, what it is given to run there, and graphs that it refuses."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

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
from vivit_export.packages import ORT_WITH_CODES_BESIDE_ATTENTION, is_older
from vivit_export.runtime.session.onnxruntime import _options, sharing_cores


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


@pytest.mark.parametrize(
    ("precision", "refuses", "said"),
    [
        ("fp16", "", "GPU 0, fp16, 3 fused attention layers"),  # the last layer's single query is no such operator
        (
            "fp16",
            "MultiHeadAttention",
            "GPU 0, fp16, attention as in the graph, because fused attention does not load: ",
        ),
        ("fp32", "", "GPU 0, fp32, attention as in the graph"),
    ],
)
def test_cuda_runs_narrow_types_with_fused_attention_where_that_loads(
    bundles: Bundles, monkeypatch: pytest.MonkeyPatch, precision: str, refuses: str, said: str
) -> None:
    need("onnxruntime")
    import onnxruntime

    loaded: list[object] = []

    class Loads:
        def __init__(self, model: object, _options: object, providers: list[object], **_more: object) -> None:
            if refuses and isinstance(model, bytes) and refuses.encode() in model:
                raise RuntimeError("no kernel\nfor it")
            loaded.append(model)
            assert providers[0] == ("CUDAExecutionProvider", {"device_id": "0", "use_tf32": "0"})

        def get_providers(self) -> list[str]:
            return ["CUDAExecutionProvider"]

    monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: ["CUDAExecutionProvider"])
    monkeypatch.setattr(onnxruntime, "InferenceSession", Loads)
    with ve.open_session(bundles.demo(precision=precision), prefer="onnxruntime-cuda") as session:
        assert said in session.details
    (model,) = loaded
    assert isinstance(model, bytes)  # which were verified: no path
    fused = "3 fused" in said
    assert (b"MultiHeadAttention" in model) == fused
    assert (onnx.load_model_from_string(model) == onnx.load(bundles.demo(precision=precision).model)) == (not fused)


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


@pytest.mark.parametrize(
    ("version", "precision", "disabled"), [("1.23.2", "fp8", 2), ("1.23.2", "int8", 0), ("1.24.1", "fp8", 0)]
)
def test_what_onnxruntime_1_23_does_wrong_with_fp8_is_turned_off(
    bundles: Bundles, monkeypatch: pytest.MonkeyPatch, version: str, precision: str, disabled: int
) -> None:
    """`make test-lowest` runs the real one."""
    need("onnxruntime")
    import onnxruntime

    bundle = bundles.demo(precision=precision, calibration=CalibrationOptions(num_clips=32))
    given: list[Any] = []
    real = onnxruntime.InferenceSession

    def load(model: bytes, options: Any, providers: list[Any], disabled_optimizers: Sequence[str] = ()) -> Any:
        given.extend(disabled_optimizers)
        # Whatever version it is told to be, the real one gets what it needs.
        return real(model, options, providers=providers, disabled_optimizers=wrong if is_old else [])

    wrong = ["QDQPropagationTransformer", "QDQSelectorActionTransformer"]
    is_old = is_older(onnxruntime.__version__, ORT_WITH_CODES_BESIDE_ATTENTION)
    monkeypatch.setattr(onnxruntime, "InferenceSession", load)
    monkeypatch.setattr(onnxruntime, "__version__", version)
    with ve.open_session(bundle, prefer="onnxruntime-cpu"):
        assert len(given) == disabled
