"""Sessions on ONNX Runtime give the logits of the Python runtime, and say what they run on."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path
from typing import Any, get_args

import family_checkpoints
import numpy as np
import numpy.typing as npt
import onnx
import onnxruntime
import pytest
from bundles import Bundles, random_crops
from cpp_project import Cpp
from onnx import numpy_helper

import vivit_export
from vivit_export.bundle import read_bundle
from vivit_export.calibration.options import CalibrationOptions
from vivit_export.contract import Task
from vivit_export.deploy.cpp.deploy import deploy_cpp
from vivit_export.files import sha256_of
from vivit_export.runtime import Preprocessor
from vivit_export.runtime.clips.views import average_views, read_views
from vivit_export.runtime.session import device
from vivit_export.runtime.session.device import saturates
from vivit_export.runtime.session.onnxruntime import OnnxRuntimeSession
from vivit_export.runtime.session.prediction import Prediction

pytestmark = pytest.mark.needs_onnxruntime


GPU_ENGINES = ("tensorrt", "tensorrt-rtx", "onnxruntime-cuda")


@pytest.mark.parametrize("precision", ["fp32", "fp16"])
def test_the_logits_are_pythons(cpp: Cpp, bundles: Bundles, tmp_path: Path, precision: str) -> None:
    bundle = bundles.demo(precision=precision)
    deploy_cpp(bundle, tmp_path / "app")
    clips = random_crops(bundle, 35)  # more than one call takes
    clips.tofile(tmp_path / "clips")
    folders = [str(tmp_path / "app/bundle"), str(bundle.path)]
    requests = [{"do": "infer", "bundle": folder, "clips": str(tmp_path / "clips")} for folder in folders]
    deployed, portable = cpp.ask(requests, "avx2")
    with vivit_export.open_session(bundle, prefer="onnxruntime-cpu") as session:
        require_close(deployed, session.run(clips))
        assert deployed["details"] == session.details
    # A bundle that was not deployed has no graph for the CPU: the portable one runs.
    require_close(portable, OnnxRuntimeSession(bundle.model).run(clips))
    assert portable["details"] == re.sub(r"CPU, .*", f"CPU, {precision}", deployed["details"])
    assert portable["passed_over"] == dict.fromkeys(GPU_ENGINES, "onnxruntime-cpu was requested")


def test_the_logits_of_other_families_are_pythons(cpp: Cpp, tmp_path: Path) -> None:
    """One token fewer, tokens of several sequences, two stacks, rotations: nothing in C++ counts on ViViT's."""
    cases = ("videomae", "timesformer", "encoder", "vjepa2")
    requests, expected = [], []
    for case in cases:
        bundle = vivit_export.export_model(
            family_checkpoints.folder(case), tmp_path / case, precision="fp16", targets=("onnx",), num_clips=1
        )
        deploy_cpp(bundle, tmp_path / f"{case}-app")
        clips = random_crops(bundle, 5)
        clips.tofile(tmp_path / f"{case}-clips")
        place = str(tmp_path / f"{case}-app/bundle")
        requests.append({"do": "infer", "bundle": place, "clips": str(tmp_path / f"{case}-clips")})
        with vivit_export.open_session(bundle, prefer="onnxruntime-cpu") as session:
            expected.append((session.run(clips), session.details))
    for answer, (outputs, details) in zip(cpp.ask(requests, "avx2"), expected, strict=True):
        require_close(answer, outputs)
        assert answer["details"] == details


@pytest.mark.parametrize("precision", ["fp32", "fp16", "int8"])
def test_on_a_gpu_attention_is_fused_where_that_loads(
    cpp: Cpp, bundles: Bundles, tmp_path: Path, precision: str
) -> None:
    """On an H100, ViViT-B in fp16 took 3 ms per clip with fused attention and 19 ms without."""
    quantized = {"calibration": CalibrationOptions(num_clips=32)} if precision == "int8" else {}
    deploy_cpp(bundles.demo(precision=precision, attention="pattern", **quantized), tmp_path / "fused")
    folders = {name: tmp_path / name / "bundle" for name in ("fused", "unknown", "broken")}
    for name in ("unknown", "broken"):  # to this ONNX Runtime
        shutil.copytree(tmp_path / "fused", tmp_path / name)
        for graph in ("model.cuda.onnx", "model.onnx")[: 1 if name == "unknown" else 2]:
            model = onnx.load(str(folders[name] / graph))
            model.graph.node[0].op_type = "NoSuchOperator"
            onnx.save(model, str(folders[name] / graph))
        rehash(folders[name])
    bundle = read_bundle(folders["fused"])
    clips = random_crops(bundle, 3)
    clips.tofile(tmp_path / "clips")
    common = {"do": "infer_as_gpu", "clips": str(tmp_path / "clips"), "count": 3}
    answers = cpp.ask([{**common, "bundle": str(folder)} for folder in folders.values()])
    fused, unknown, broken = answers
    require_close(fused, OnnxRuntimeSession(bundle.path / "model.cuda.onnx").run(clips))
    assert fused["details"] == f"ONNX Runtime {onnxruntime.__version__}, GPU 0, {precision}, 3 fused attention layers"
    assert fused["files"] == ["model.cuda.onnx"]
    require_close(unknown, OnnxRuntimeSession(bundle.model).run(clips))
    because = f"GPU 0, {precision}, attention as in the graph, because fused attention does not load: ONNX Runtime "
    assert f"{because}cannot load model.cuda.onnx: " in unknown["details"]
    assert unknown["files"] == ["model.onnx"]
    assert "GPU 0 cannot be used by ONNX Runtime (" in broken["error"] and broken["code"] == 7


def test_codes_at_the_ends_of_their_range_are_multiplied_exactly(cpp: Cpp, bundles: Bundles, tmp_path: Path) -> None:
    """Sums of their products need more than the 16 bits that processors without VNNI give them by default."""
    folder = bundles.copy(tmp_path / "ends", precision="int8")
    model = onnx.load(str(folder / "model.onnx"))
    for tensor in model.graph.initializer:
        codes = numpy_helper.to_array(tensor)
        if codes.dtype == np.int8 and codes.ndim == 2:
            tensor.raw_data = np.where(codes < 0, np.int8(-127), np.int8(127)).tobytes()
    onnx.save(model, str(folder / "model.onnx"))
    rehash(folder)
    deploy_cpp(read_bundle(folder), tmp_path / "app")
    deployed = read_bundle(tmp_path / "app/bundle")
    clips, graph = random_crops(deployed, 3), deployed.path / "model.cpu.onnx"
    clips.tofile(tmp_path / "clips")
    (answer,) = cpp.ask([{"do": "infer", "bundle": str(deployed.path), "clips": str(tmp_path / "clips")}], "avx2")
    require_close(answer, OnnxRuntimeSession(graph).run(clips))
    if saturates():  # so that this test can fail
        plain = onnxruntime.InferenceSession(str(graph), providers=["CPUExecutionProvider"])
        (name,) = (tensor.name for tensor in deployed.contract.io.inputs)
        (logits,) = plain.run(["logits"], {name: clips})
        assert np.abs(logits - np.reshape(answer["logits"], logits.shape)).max() > 1


@pytest.mark.parametrize("flags", ["avx2 avx512f", "avx2 avx512_vnni", "avx2 avx_vnni", ""])
def test_processors_that_saturate_are_those_of_python(
    cpp: Cpp, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, flags: str
) -> None:
    (tmp_path / "cpuinfo").write_text(f"processor\t: 0\nflags\t\t: fpu {flags}\n\nprocessor\t: 1\n\n")
    monkeypatch.setattr(device, "_CPU", tmp_path / "cpuinfo")
    assert cpp.ask([{"do": "saturates", "file": str(tmp_path / "cpuinfo")}]) == [{"saturates": saturates()}]


def require_close(answer: Any, expected: dict[str, npt.NDArray[np.float32]]) -> None:
    """Compare every output to 1e-6."""
    for name, values in expected.items():
        np.testing.assert_allclose(np.reshape(answer[name], values.shape), values, rtol=0, atol=1e-6)


@pytest.mark.parametrize("field", ["cpu_graph", "cuda_graph"])
def test_a_prepared_graph_that_is_not_listed_is_refused(cpp: Cpp, tmp_path: Path, field: str) -> None:
    values = ["model.cpu.onnx", {"file": "other.onnx", "details": ""}, {"file": 3, "details": ""}]
    for i, value in enumerate(values):
        shutil.copytree(cpp.bundle, tmp_path / str(i))
        manifest = json.loads((tmp_path / str(i) / "bundle.json").read_text())
        (tmp_path / str(i) / "bundle.json").write_text(json.dumps({**manifest, field: value}))
    answers = cpp.ask([{"do": "bundle", "bundle": str(tmp_path / str(i))} for i in range(3)], "avx2")
    assert f"bundle.json: {field} must be a JSON object, got str" in answers[0]["error"]
    assert "bundle.json does not list other.onnx; the bundle is incomplete, deploy it again" in answers[1]["error"]
    assert f"bundle.json: {field}.file must be str, got 3" in answers[2]["error"]


def test_every_input_mode_gives_pythons_logits(cpp: Cpp, bundles: Bundles, tmp_path: Path) -> None:
    pixels = bundles.demo(input_mode="pixels")
    frames = bundles.demo(input_mode="frames", frame_size=(96, 128))
    crops = random_crops(pixels, 3)
    shape = (3, *(int(side) for side in frames.contract.io.inputs[0].shape[1:]))
    whole = np.random.default_rng(1).integers(0, 256, shape, dtype=np.uint8)
    crops.tofile(tmp_path / "crops")
    whole.tofile(tmp_path / "whole")
    answers = cpp.ask(
        [
            {"do": "infer_pixels", "bundle": str(pixels.path), "clips": str(tmp_path / "crops")},
            {"do": "infer", "bundle": str(frames.path), "clips": str(tmp_path / "whole")},
            {"do": "predict", "bundle": str(frames.path), "path": str(cpp.video)},
            {"do": "infer_pixels", "bundle": str(cpp.bundle), "clips": str(tmp_path / "crops")},
        ],
        "avx2",
    )
    values = Preprocessor.from_bundle(pixels.path).to_pixels(crops)
    expected = OnnxRuntimeSession(pixels.model).run(values)["logits"]
    assert answers[0]["from_pixels"] == answers[0]["from_crops"]
    np.testing.assert_allclose(np.reshape(answers[0]["from_crops"], expected.shape), expected, rtol=0, atol=1e-6)
    expected = OnnxRuntimeSession(frames.model).run(whole)["logits"]
    np.testing.assert_allclose(np.reshape(answers[1]["logits"], expected.shape), expected, rtol=0, atol=1e-6)
    assert (
        "this bundle resizes in the graph and takes uint8 frames (8, 96, 128, 3), got uint8 (8, 426, 240, 3)"
        in (answers[2]["error"])
    )
    assert answers[3] == {
        "error": "clips must be uint8, got float32; only a bundle of input mode pixels takes that",
        "code": 3,
    }


def test_a_video_is_recognized_as_in_python(cpp: Cpp, bundles: Bundles, tmp_path: Path) -> None:
    folders = [bundles.demo().path, *(bundles.copy(tmp_path / name) for name in ("views", *get_args(Task)))]
    for folder in folders[1:]:
        manifest = json.loads((folder / "bundle.json").read_text())
        if folder.name == "views":
            manifest["contract"]["clip"].update(sampling="stride", stride=2, views=[4, 3])
        else:
            manifest["contract"]["task"] = folder.name
        (folder / "bundle.json").write_text(json.dumps(manifest))
    # The codec of the .y4m is what both sides read bit for bit.
    path = cpp.video.with_suffix(".y4m")
    answers = cpp.ask([{"do": "predict", "bundle": str(folder), "path": str(path)} for folder in folders], "avx2")
    for folder, answer in zip(folders, answers, strict=True):
        bundle = read_bundle(folder)
        logits = OnnxRuntimeSession(bundle.model).run(read_views(path, bundle.contract))["logits"]
        np.testing.assert_allclose(answer["logits"], average_views(logits), rtol=0, atol=1e-6)
        best = Prediction.from_outputs({"logits": average_views(logits)}, bundle.contract).top(3)
        assert [label for label, _ in answer["top"]] == [label for label, _ in best]
        np.testing.assert_allclose([c for _, c in answer["top"]], [c for _, c in best], rtol=0, atol=1e-6)
    assert answers[0]["one"] == answers[0]["logits"]


def test_eight_threads_share_a_session(cpp: Cpp, bundles: Bundles, tmp_path: Path) -> None:
    random_crops(bundles.demo(), 3).tofile(tmp_path / "clips")
    (answer,) = cpp.ask([{"do": "share", "bundle": str(cpp.bundle), "clips": str(tmp_path / "clips")}], "avx2")
    assert answer == {"different": 0}


def test_nothing_falls_back_silently(cpp: Cpp, bundles: Bundles, tmp_path: Path) -> None:
    broken = bundles.copy(tmp_path / "broken")
    (broken / "model.onnx").write_bytes(b"no graph")
    rehash(broken)
    other = bundles.copy(tmp_path / "other")
    shutil.copy(bundles.demo(input_mode="pixels").model, other)
    rehash(other)
    asked = {
        "onnxruntime": "onnxruntime-cpu",
        "": "onnxruntime-cpu",
        "cpu": "engine 'cpu' is unknown; use one of tensorrt, ",
        "tensorrt": "built without it; configure with -DVIVIT_TENSORRT=ON -DTENSORRT_ROOT=FOLDER",
        "onnxruntime-cuda": "onnxruntime-cuda was requested but is not available: this ONNX Runtime has no CUDA",
    }
    devices = {
        "gpu": "device='gpu' is unknown",
        "cuda:x": "is unknown",
        "cuda": "it runs on cpu, but cuda was requested",
    }
    requests = [{"engine": name} for name in asked] + [{"device": name} for name in devices]
    folders = [cpp.bundle] * len(requests) + [broken, other]
    requests += [{"engine": "onnxruntime-cpu"}] * 2
    expected = [
        *asked.values(),
        *devices.values(),
        "ONNX Runtime cannot load model.onnx: ",
        "does not have frames as the",
    ]
    codes = [0, 0, 2, 7, 7, 2, 2, 7, 7, 3]
    answers = cpp.ask([{"do": "open", "bundle": str(f), **r} for f, r in zip(folders, requests, strict=True)])
    for answer, part, code in zip(answers, expected, codes, strict=True):
        assert part in answer.get("error", answer.get("engine")), part
        assert answer.get("code", 0) == code


def rehash(folder: Path) -> None:
    """Make the manifest agree with graphs that were exchanged."""
    manifest = json.loads((folder / "bundle.json").read_text())
    for graph in folder.glob("*.onnx"):
        manifest["files"][graph.name] = {"sha256": sha256_of(graph), "size": graph.stat().st_size}
    (folder / "bundle.json").write_text(json.dumps(manifest))
