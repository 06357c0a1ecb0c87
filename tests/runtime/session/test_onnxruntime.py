"""The session on ONNX Runtime: its provider, what it is given to run there, and graphs that it refuses."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from bundles import Bundles, need, random_crops

import vivit_export as ve
from vivit_export.errors import EnvironmentFault


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
        def __init__(self, model: object, options: object, providers: list[object]) -> None:
            asked.append(providers)
            self._session = real(model, options, providers=["CPUExecutionProvider"])

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
        def __init__(self, model: object, _options: object, providers: list[object]) -> None:
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
    assert isinstance(loaded[0], bytes) == ("3 fused" in said)


def test_steps_of_a_cpu_engine_are_one(bundles: Bundles) -> None:
    need("onnxruntime")
    with ve.open_session(bundles.demo(), prefer="onnxruntime-cpu") as session:
        steps = session.run_in_steps(random_crops(bundles.demo(), 1))
    assert list(steps) == ["compute"] and steps["compute"] > 0


def test_a_graph_that_the_engine_refuses_is_a_reason(bundles: Bundles, tmp_path: Path) -> None:
    need("onnxruntime")
    folder = bundles.copy(tmp_path / "bundle")
    manifest = json.loads((folder / "bundle.json").read_text())
    (folder / "model.onnx").write_bytes(b"")
    empty = {"sha256": "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855", "size": 0}
    manifest["files"]["model.onnx"] = empty
    (folder / "bundle.json").write_text(json.dumps(manifest))
    with pytest.raises(EnvironmentFault, match=r"ONNX Runtime cannot load model.onnx"):
        ve.open_session(folder, device="cpu")
