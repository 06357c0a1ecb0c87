"""Full TensorRT needs a GPU to run; that we use names and signatures it has can be checked anywhere.

The real Python bindings, of the oldest version and the newest, are imported with stub libraries
(stub_tensorrt/nvinfer.c), and
the worker is run, through Polygraphy and all, on objects that have exactly their attributes and
accept exactly their signatures (stub_tensorrt/tensorrt).
"""

from __future__ import annotations

import dataclasses
import json
import os
import re
from collections.abc import Iterator
from pathlib import Path

import onnx
import pytest
from onnx import TensorProto, helper
from simulated_tensorrt import STUBS, assert_real_names, dotted_names, each_tensorrt

import vivit_export
from vivit_export.errors import BuildError, EnvironmentFault
from vivit_export.export.engine import compile as engine
from vivit_export.export.engine.compile import EngineRequest, build_engine, unavailable_reason
from vivit_export.flavour import Flavour
from vivit_export.precision import Precision

SOURCES = [Path(engine.__file__).with_name(name) for name in ("compile.py", "worker.py", "plan.py")]


@pytest.fixture
def simulated(
    tensorrt_bindings: Path, tensorrt_libraries: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Path]:
    """Make ``import tensorrt`` find the simulation in child processes; returns the file it records to."""
    monkeypatch.syspath_prepend(str(STUBS))
    search = [str(STUBS), str(tensorrt_bindings), str(Path(vivit_export.__path__[0]).parent)]
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(search))
    monkeypatch.setenv("LD_LIBRARY_PATH", os.pathsep.join([str(tensorrt_libraries), str(tensorrt_libraries / "gpu")]))
    monkeypatch.setenv("STUB_RECORD", str(tmp_path / "record.json"))
    monkeypatch.setenv("STUB_INSPECTOR", str(tmp_path / "inspector.json"))
    (tmp_path / "inspector.json").write_text(json.dumps({"Layers": [MHA, GEMM]}))
    engine._probe.cache_clear()
    yield tmp_path / "record.json"
    engine._probe.cache_clear()


HALF = {"Name": "t", "Dimensions": [-1, 64], "Datatype": "Half"}
MHA = {"Name": "_gemm_mha_v2_myl0_1", "LayerType": "kgen", "Inputs": [HALF], "Outputs": [HALF], "TacticName": ""}
GEMM = {**MHA, "Name": "fc_myl0_2", "LayerType": "gemm", "Metadata": "[ONNX Layer: fc]"}


@pytest.fixture
def request_(tmp_path: Path) -> EngineRequest:
    x = helper.make_tensor_value_info("frames", TensorProto.FLOAT16, ["batch", 8, 64])
    y = helper.make_tensor_value_info("y", TensorProto.FLOAT16, ["batch", 8, 64])
    graph = helper.make_graph([helper.make_node("Relu", ["frames"], ["y"])], "g", [x], [y])
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)]), tmp_path / "model.onnx")
    return EngineRequest(Flavour.TENSORRT, tmp_path / "model.onnx", "frames", (8, 64), (1, 4, 8))


@each_tensorrt
def test_the_worker_runs_on_the_real_names_and_signatures(
    simulated: Path, request_: EngineRequest, tmp_path: Path, tensorrt_version: str
) -> None:
    assert unavailable_reason(Flavour.TENSORRT) is None
    out = tmp_path / "model.plan"
    built = build_engine(request_, out, tmp_path / "build.log")
    assert (built.flavour, built.version, built.sms) == ("tensorrt", tensorrt_version, (90,))
    assert out.read_bytes() == b"ftrt engine"
    assert built.size_bytes == 11
    assert (built.plan.layers, built.plan.attention_fused, built.plan.gemms) == (2, 1, {"Half": 1})
    assert (built.plan.activation_bytes, built.plan.weight_bytes) == (1000, 2000)

    record = json.loads(simulated.read_text())
    assert record["used"] == sorted({*record["used"], *OURS}), "the worker no longer uses what is listed in OURS"
    assert set(record["missing"]) <= POLYGRAPHY_GUARDS


# What the build stands on: our own uses, and what Polygraphy does with what we pass to it.
OURS = {
    "trt.Builder", "trt.OnnxParser", "trt.Runtime", "trt.BuilderFlag", "trt.ProfilingVerbosity",
    "trt.LayerInformationFormat", "NetworkDefinitionCreationFlag.STRONGLY_TYPED", "IBuilderConfig.clear_flag",
    "IBuilderConfig.profiling_verbosity", "IBuilderConfig.add_optimization_profile", "Builder.create_network",
    "IOptimizationProfile.set_shape", "OnnxParser.parse_from_file", "Builder.build_serialized_network",
    "Runtime.deserialize_cuda_engine", "ICudaEngine.create_engine_inspector",
    "EngineInspector.get_engine_information",
}  # fmt: skip
# Names that Polygraphy 0.53.6 tries, and does without: the first two in TensorRT 11, the last in 10, where the property
# before it exists and the simulation fills it.
POLYGRAPHY_GUARDS = {
    "IBuilderConfig.int8_calibrator",
    "trt.QuantizationFlag",
    "IInt8Calibrator.is_polygraphy_calibrator",
}


def test_a_timing_cache_is_read_and_replaced(simulated: Path, request_: EngineRequest, tmp_path: Path) -> None:
    cache = tmp_path / "cache" / "timings"
    cache.parent.mkdir()
    request = EngineRequest(Flavour.TENSORRT, request_.onnx, "frames", (8, 64), (1, 4, 8), timing_cache=cache)
    build_engine(request, tmp_path / "model.plan", tmp_path / "build.log")
    assert cache.read_bytes() == b"timings"
    assert [p.name for p in cache.parent.iterdir()] == ["timings"]


def test_a_timing_cache_that_is_a_link_is_followed(simulated: Path, request_: EngineRequest, tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to("timings")
    request = dataclasses.replace(request_, flavour=Flavour.TENSORRT, timing_cache=tmp_path / "link")
    build_engine(request, tmp_path / "model.plan", tmp_path / "build.log")
    assert (tmp_path / "timings").read_bytes() == b"timings"
    assert (tmp_path / "link").is_symlink()


@pytest.mark.parametrize(
    "name", ["IBuilderConfig.clear_flag", "trt.LayerInformationFormat", "OnnxParser.parse_from_file"]
)
def test_a_name_that_goes_away_is_noticed(
    simulated: Path, request_: EngineRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.setenv("STUB_WITHOUT", name)
    with pytest.raises(BuildError, match=re.escape(name)):
        build_engine(request_, tmp_path / "model.plan", tmp_path / "build.log")
    assert not (tmp_path / "model.plan").exists()


@each_tensorrt
def test_every_name_in_our_sources_exists(simulated: Path) -> None:
    names = dotted_names(SOURCES, "trt")
    assert "trt.ProfilingVerbosity.DETAILED" in names
    assert_real_names(names, dict(os.environ))


@each_tensorrt
def test_every_type_that_a_graph_may_have_exists(simulated: Path) -> None:
    """Strongly typed networks take the types of the graph: those of each precision, and of the frames."""
    bindings_name = {"FLOAT16": "HALF", "BFLOAT16": "BF16", "FLOAT8E4M3FN": "FP8"}
    types = {bindings_name.get(precision.onnx_type, precision.onnx_type) for precision in Precision} | {"UINT8"}
    assert types >= {"INT8", "FP8", "BF16"}
    assert_real_names({f"trt.DataType.{name}" for name in types}, dict(os.environ))


def test_no_gpu_is_told_with_the_way_out(
    simulated: Path, tensorrt_libraries: Path, request_: EngineRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LD_LIBRARY_PATH", os.pathsep.join([str(tensorrt_libraries), str(tensorrt_libraries / "none")]))
    reason = unavailable_reason(Flavour.TENSORRT)
    assert reason is not None
    assert "CUDA error 100" in reason
    assert "--target tensorrt-rtx" in reason
    with pytest.raises(EnvironmentFault, match="finds no GPU"):
        build_engine(request_, tmp_path / "model.plan", tmp_path / "build.log")


def test_missing_libraries_are_told(simulated: Path, tensorrt_libraries: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LD_LIBRARY_PATH", str(tensorrt_libraries / "gpu"))
    reason = unavailable_reason(Flavour.TENSORRT)
    assert reason is not None
    assert "libnvonnxparser.so.11" in reason
    assert "reinstall tensorrt" in reason
