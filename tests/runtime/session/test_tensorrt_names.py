"""Every name and signature of TensorRT and of CUDA that the session uses, checked against the real ones.

The libraries cannot be installed here, but their bindings can, of the oldest version and the newest (see
simulated_tensorrt.py):
the session runs in a child process on objects that have exactly the real attributes and signatures.
"""

from __future__ import annotations

import importlib
import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from bundles import Bundles, add_plan, need
from capabilities import missing
from simulated_tensorrt import STUBS, assert_real_names, dotted_names, each_tensorrt

import vivit_export
from vivit_export.runtime.session import tensorrt

SOURCES = [Path(tensorrt.__file__).with_name(name) for name in ("tensorrt.py", "cuda.py")]
# Only TensorRT for RTX has these; the session does not reach for them elsewhere.
RTX_ONLY = {"trt.DynamicShapesKernelSpecializationStrategy"}

CHILD = """
import json, sys
import numpy as np
import fake_gpu, tensorrt
import tensorrt_bindings as real
import vivit_export as ve
from fake_gpu import TENSORS, compute
from bundles import random_crops

cuda = fake_gpu.FakeCuda()
sys.modules["cuda.bindings.runtime"] = cuda

def runtime(logger):
    engine = lambda plan: fake_gpu.make_engine(cuda, real, tensorrt.Simulated, TENSORS, compute, set(), [])
    return tensorrt._construct("Runtime", logger, deserialize_cuda_engine=engine)

tensorrt.Runtime = runtime
with ve.open_session(sys.argv[1], prefer="tensorrt") as session:
    clips = random_crops(ve.read_bundle(sys.argv[1]), 6)
    for _ in range(2):
        np.testing.assert_array_equal(session.infer(clips), compute(clips)["logits"])
print(json.dumps(sorted(tensorrt._used)))
"""


@pytest.fixture(scope="session")
def environment(tensorrt_bindings: Path, tensorrt_libraries: Path) -> dict[str, str]:
    """Environment of a child in which ``import tensorrt`` finds the simulation."""
    search = [STUBS, tensorrt_bindings, STUBS.parent, Path(vivit_export.__path__[0]).parent]
    libraries = os.pathsep.join(map(str, (tensorrt_libraries, tensorrt_libraries / "gpu")))
    return {**os.environ, "PYTHONPATH": os.pathsep.join(map(str, search)), "LD_LIBRARY_PATH": libraries}


@each_tensorrt
def test_the_session_runs_on_the_real_names_and_signatures(
    environment: dict[str, str], bundles: Bundles, tmp_path: Path, tensorrt_version: str
) -> None:
    bundle = add_plan(bundles.copy(tmp_path / "bundle"), "tensorrt", b"plan", version=tensorrt_version)
    done = subprocess.run(
        [sys.executable, "-c", CHILD, str(bundle.path)], env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert set(json.loads(done.stdout.splitlines()[-1])) >= {
        "Runtime.deserialize_cuda_engine",
        "ICudaEngine.create_execution_context",
        "ICudaEngine.get_tensor_dtype",
        "ICudaEngine.get_tensor_mode",
        "ICudaEngine.get_tensor_name",
        "ICudaEngine.get_tensor_shape",
        "ICudaEngine.num_io_tensors",
        "IExecutionContext.execute_async_v3",
        "IExecutionContext.set_input_shape",
        "IExecutionContext.set_optimization_profile_async",
        "IExecutionContext.set_tensor_address",
    }


@each_tensorrt
def test_every_name_in_our_sources_exists(environment: dict[str, str]) -> None:
    names = {name for name in dotted_names(SOURCES, "trt") if not any(name.startswith(only) for only in RTX_ONLY)}
    assert {"trt.Runtime", "trt.ILogger.Severity.ERROR", "trt.TensorIOMode"} <= names
    assert_real_names(names, environment)


def test_every_name_exists_in_tensorrt_for_rtx() -> None:
    need("tensorrt_rtx")
    trt = importlib.import_module("tensorrt_rtx")
    assert trt.DynamicShapesKernelSpecializationStrategy.EAGER is not None
    assert isinstance(trt.IRuntimeConfig.dynamic_shapes_kernel_specialization_strategy, property)
    assert "IRuntimeConfig" in str(trt.ICudaEngine.create_execution_context.__doc__)
    for name in dotted_names(SOURCES, "trt"):
        value = trt
        for part in name.split(".")[1:]:
            value = getattr(value, part)


def test_every_name_of_cuda_exists() -> None:
    if importlib.util.find_spec("cuda") is None:
        missing("cuda-python", "cuda-python is not installed")
    rt = importlib.import_module("cuda.bindings.runtime")
    names = {name.split(".")[1] for name in dotted_names(SOURCES, "rt")}
    assert len(names) > 15
    assert not [name for name in names if not hasattr(rt, name)]
    assert hasattr(rt.cudaStreamCaptureMode, "cudaStreamCaptureModeThreadLocal")
    assert hasattr(rt.cudaMemcpyKind, "cudaMemcpyHostToDevice")
    assert hasattr(rt.cudaMemcpyKind, "cudaMemcpyDeviceToHost")
    assert hasattr(rt.cudaDeviceAttr, "cudaDevAttrComputeCapabilityMajor")
