"""Building engines in a child process: options, real TensorRT for RTX builds, failures, ends."""

from __future__ import annotations

import importlib.util
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from imports import imported_by
from onnx import TensorProto, helper, numpy_helper
from processes import wait_for_end

from vivit_export.cli.flags import flag
from vivit_export.errors import BuildError, EnvironmentFault, InputError, OutputError, UsageError
from vivit_export.export.engine import compile as engine
from vivit_export.export.engine.compile import (
    EngineRequest,
    build_engine,
    explain_failure,
    unavailable_reason,
)
from vivit_export.export.engine.plan import prove
from vivit_export.flavour import Flavour
from vivit_export.precision import Precision

TOKENS, WIDTH, HEADS = 64, 128, 2
RTX = Flavour.TENSORRT_RTX
Worker = Callable[[str], None]


def transformer(path: Path, dtype: type = np.float16, *, op: bool = False, external: bool = False) -> Path:
    """Write one block and a head: (batch, TOKENS, WIDTH) to (batch, 10), attention as a pattern or as the op."""
    rng = np.random.default_rng(0)
    weights, nodes = [], []

    def const(name: str, array: np.ndarray) -> str:
        weights.append(numpy_helper.from_array(array, name))
        return name

    def node(kind: str, inputs: list[str], out: str, **attributes: Any) -> str:
        nodes.append(helper.make_node(kind, inputs, [out], name=out, **attributes))
        return out

    def linear(x: str, rows: int, columns: int, out: str) -> str:
        weight = const(f"{out}.weight", (rng.standard_normal((rows, columns)) / rows**0.5).astype(dtype))
        return node("MatMul", [x, weight], out)

    split = const("split", np.array([0, TOKENS, HEADS, WIDTH // HEADS], np.int64))
    join = const("join", np.array([0, TOKENS, WIDTH], np.int64))
    for name, order in (("q", (0, 2, 1, 3)), ("k", (0, 2, 1, 3) if op else (0, 2, 3, 1)), ("v", (0, 2, 1, 3))):
        heads = node("Reshape", [linear("x", WIDTH, WIDTH, f"{name}_proj"), split], f"{name}_heads")
        node("Transpose", [heads], name, perm=order)
    if op:
        attended = node("Attention", ["q", "k", "v"], "attention")
    else:
        scores = node("Mul", [node("MatMul", ["q", "k"], "qk"), const("scale", np.array(0.125, dtype))], "scores")
        attended = node("MatMul", [node("Softmax", [scores], "p", axis=-1), "v"], "pv")
    rows = node("Reshape", [node("Transpose", [attended], "rows", perm=(0, 2, 1, 3)), join], "joined")
    residual = node("Add", [linear(rows, WIDTH, WIDTH, "out_proj"), "x"], "residual")
    hidden = node("Gelu", [linear(residual, WIDTH, 4 * WIDTH, "fc1")], "gelu", approximate="tanh")
    mlp = node("Add", [linear(hidden, 4 * WIDTH, WIDTH, "fc2"), residual], "mlp")
    first = node("Gather", [mlp, const("zero", np.array(0, np.int64))], "first", axis=1)
    linear(first, WIDTH, 10, "logits")

    kind = helper.np_dtype_to_tensor_dtype(np.dtype(dtype))
    x = helper.make_tensor_value_info("x", kind, ["batch", TOKENS, WIDTH])
    y = helper.make_tensor_value_info("logits", kind, ["batch", 10])
    graph = helper.make_graph(nodes, "transformer", [x], [y], weights)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 23)], ir_version=10)
    onnx.save(model, path, save_as_external_data=external, location=f"{path.name}.data", size_threshold=0)
    return path


def rtx(onnx_path: Path, sms: tuple[int, ...] = (89,)) -> EngineRequest:
    return EngineRequest(RTX, onnx_path, "x", (TOKENS, WIDTH), (1, 2, 4), sms)


# --- options -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("sms", "precision", "resolved"),
    [
        ((), "fp16", (86, 89, 120)),
        ((), "fp8", (89, 120)),
        ((120, 80, 120), "bf16", (80, 120)),
        ((75,), "int8", (75,)),
        (RTX.known_sms, "fp32", RTX.known_sms),
    ],
)
def test_sms_are_sorted_or_the_default(sms: tuple[int, ...], precision: str, resolved: tuple[int, ...]) -> None:
    assert RTX.check_sms(sms, Precision(precision)) == resolved
    assert Flavour.TENSORRT.check_sms((), Precision(precision)) == ()


@pytest.mark.parametrize(
    ("flavour", "sms", "precision", "message"),
    [
        ("tensorrt", (89,), "fp16", "sms=89 cannot be honored by targets=tensorrt"),
        ("tensorrt-rtx", (90,), "fp16", "H100, H200 and B200; use targets=tensorrt"),
        ("tensorrt-rtx", (100,), "fp16", "H100, H200 and B200; use targets=tensorrt"),
        ("tensorrt-rtx", (89, 87), "fp16", "sms=87 is unknown .* 75, 80, 86, 89, 120, 121"),
        ("tensorrt-rtx", (80, 86, 89), "fp8", "sms=80, 86 has no fp8 arithmetic, which needs 89 or newer"),
        ("tensorrt-rtx", (75, 89), "bf16", "sms=75 has no bf16 arithmetic"),
    ],
)
def test_sms_that_cannot_be_honoured(flavour: Flavour, sms: tuple[int, ...], precision: str, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        Flavour(flavour).check_sms(sms, Precision(precision))


@pytest.mark.parametrize("batches", [(0, 1, 2), (2, 1, 4), (1, 8, 4)])
def test_batches_must_rise(batches: tuple[int, int, int]) -> None:
    with pytest.raises(UsageError, match="1 <= min <= opt <= max"):
        EngineRequest(RTX, Path("model.onnx"), "x", (4,), batches)


def test_requests_refuse_what_a_flavour_has_not() -> None:
    with pytest.raises(UsageError, match="timing_cache"):
        EngineRequest(RTX, Path("m.onnx"), "x", (4,), (1, 1, 1), timing_cache=Path("cache"))
    with pytest.raises(UsageError, match="sms=89 cannot be honored"):
        EngineRequest(Flavour.TENSORRT, Path("m.onnx"), "x", (4,), (1, 1, 1), sms=(89,))


@pytest.mark.parametrize(("flavour", "extra"), [(Flavour.TENSORRT, "gpu"), (RTX, "rtx")])
def test_a_missing_package_names_the_extra(flavour: Flavour, extra: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    reason = unavailable_reason(flavour)
    assert reason is not None
    assert f'pip install "vivit-export[{extra}]"' in reason


def test_the_parent_imports_no_compiler() -> None:
    code = "import vivit_export.export.engine.compile as e; e.unavailable_reason(e.Flavour.TENSORRT_RTX)"
    assert imported_by(code, "tensorrt", "tensorrt_rtx", "polygraphy", "torch", "onnx") == []


# --- real builds -------------------------------------------------------------------------------


@pytest.mark.needs_rtx
@pytest.mark.parametrize("op", [False, True], ids=["pattern", "op"])
def test_fp16_engine_for_several_gpus(tmp_path: Path, op: bool) -> None:
    out = tmp_path / "engine.plan"
    out.write_bytes(b"older")
    model = transformer(tmp_path / "model.onnx", op=op)
    built = build_engine(rtx(model, (120, 86, 89)), out, tmp_path / "build.log")
    assert (built.flavour, built.sms, built.batches) == ("tensorrt-rtx", (86, 89, 120), (1, 2, 4))
    assert built.size_bytes == out.stat().st_size > 2 * WIDTH * WIDTH * 12
    # The compiler's bytes are untouched: magic, and in bytes 24 to 27 its version.
    header = out.read_bytes()[:28]
    assert header[:4] == b"vtrt"
    assert ".".join(map(str, header[24:28])) == built.version
    assert prove(built.plan, precision=Precision.FP16, num_attention=1, num_gemms=4)[:2] == [
        "attention fused in 1 of 1 blocks (Half)",
        "4 of 4 encoder GEMMs in Half",
    ]
    assert built.plan.activation_bytes > 0
    assert {p.name for p in tmp_path.iterdir()} == {"model.onnx", "engine.plan", "build.log"}


@pytest.mark.needs_rtx
def test_fp32_engine_from_external_data_without_tf32(tmp_path: Path) -> None:
    model = transformer(tmp_path / "model.onnx", np.float32, external=True)
    assert (tmp_path / "model.onnx.data").stat().st_size > 4 * WIDTH * WIDTH * 12
    built = build_engine(rtx(model, ()), tmp_path / "engine.plan", tmp_path / "build.log")
    assert built.sms == (86, 89, 120)
    assert (
        prove(built.plan, precision=Precision.FP32, num_attention=1, num_gemms=4)[1] == "4 of 4 encoder GEMMs in Float"
    )
    flags = next(x for x in (tmp_path / "build.log").read_text().splitlines() if x.strip().startswith("Flags "))
    assert "STRONGLY_TYPED" in flags
    assert "TF32" not in flags


@pytest.mark.needs_rtx
def test_building_twice_gives_the_same_bytes(tmp_path: Path) -> None:
    model = transformer(tmp_path / "model.onnx")
    for name in ("a", "b"):
        build_engine(rtx(model), tmp_path / name, tmp_path / "build.log")
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()


# --- failures ----------------------------------------------------------------------------------


@pytest.mark.needs_rtx
def test_fp32_attention_op_is_refused_with_the_way_out(tmp_path: Path) -> None:
    model = transformer(tmp_path / "model.onnx", np.float32, op=True)
    out = tmp_path / "engine.plan"
    out.write_bytes(b"older")
    with pytest.raises(BuildError) as caught:
        build_engine(rtx(model), out, tmp_path / "build.log")
    assert str(caught.value) == (
        "TensorRT for RTX could not compile the model: Attention operation was not supported by a dedicated kernel "
        "(ONNX node attention); "
        "no fused kernel exists for fp32 attention or heads wider than 256: use precision=fp16, or attention=pattern"
    )
    assert out.read_bytes() == b"older"
    assert {p.name for p in tmp_path.iterdir()} == {"model.onnx", "engine.plan", "build.log"}


@pytest.mark.needs_rtx
def test_the_onnx_node_is_named(tmp_path: Path) -> None:
    x = helper.make_tensor_value_info("x", TensorProto.FLOAT16, ["batch", TOKENS, WIDTH])
    y = helper.make_tensor_value_info("y", TensorProto.FLOAT16, None)
    weight = numpy_helper.from_array(np.zeros((WIDTH + 1, 4), np.float16), "w")
    graph = helper.make_graph([helper.make_node("MatMul", ["x", "w"], ["y"], name="too_wide")], "g", [x], [y], [weight])
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10), tmp_path / "m.onnx")
    with pytest.raises(BuildError, match=r"too_wide: last dimension of input0 = 128 .* must match; the exported graph"):
        build_engine(rtx(tmp_path / "m.onnx"), tmp_path / "engine.plan", tmp_path / "build.log")


@pytest.mark.needs_rtx
def test_missing_external_data_is_told(tmp_path: Path) -> None:
    model = transformer(tmp_path / "model.onnx", external=True)
    (tmp_path / "model.onnx.data").unlink()
    with pytest.raises(BuildError, match=r"Failed to open file: .*model\.onnx\.data; .* keep the \.data file beside"):
        build_engine(rtx(model), tmp_path / "engine.plan", tmp_path / "build.log")


def test_paths_are_checked_first(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no ONNX model"):
        build_engine(rtx(tmp_path / "none.onnx"), tmp_path / "engine.plan", tmp_path / "build.log")
    (tmp_path / "model.onnx").touch()
    with pytest.raises(OutputError, match="there is no folder"):
        build_engine(rtx(tmp_path / "model.onnx"), tmp_path / "none" / "engine.plan", tmp_path / "build.log")


MYELIN = (
    "[E] IBuilder::buildSerializedNetwork: Error Code 1: Myelin ([pass.cpp:1500: run_passes] {}. "
    "In compileGraph at /_src/optimizer/myelin/codeGenerator.cpp:2012)"
)
TOO_NEW = "Cannot compile for target(s) {}, because the model contains HW-specific datatypes: {}"


@pytest.mark.parametrize(
    ("log", "said", "advice"),
    [
        (
            MYELIN.format(
                "Cannot compile for target(s) sm86, because the model contains HW-specific datatypes: fp8_e4m3."
            ),
            TOO_NEW.format("sm86", "fp8_e4m3"),
            "fp8 needs SM 89",
        ),
        (
            MYELIN.format(TOO_NEW.format("sm75", "b16")),
            TOO_NEW.format("sm75", "b16"),
            "bf16 needs SM 80",
        ),
        (
            '[E] ModelImporter.cpp:140: While parsing node number 0 [NonZero -> "y"]:\n'
            "[E] In node 0 with name: nz and operator: NonZero (importNonZero): UNSUPPORTED_NODE: Assertion failed",
            "In node 0 with name: nz and operator: NonZero (importNonZero): UNSUPPORTED_NODE: Assertion failed",
            "another --opset",
        ),
        (
            "[E] ITensor::getDimensions: Error Code 4: API Usage Error (IMatrixMultiplyLayer must have same input "
            "types. In validateTypes at /_src/optimizer/common/nodes/matrixMultiplyNode.cpp:38)\n"
            "[E] [checkMacros.cpp::catchCudaError::250] Error Code 1: Cuda Runtime (cudaError 35)\n"
            "[E] In node 7 with name: fc1 and operator: MatMul (parseNode): INVALID_NODE: Invalid Node - fc1",
            "IMatrixMultiplyLayer must have same input types (ONNX node fc1, MatMul)",
            "the exported graph is at fault",
        ),
        (
            "[X] Parsing node: layers.0.attention/Attention [Attention]\n"
            "[X] Parsing node: layers.1.attention/Attention [Attention]\n"
            "Internal Error: MyelinCheckException: decompose_composite_ops.cpp:59: CHECK(composite_op->"
            "is_decomposable()) failed. Attention operation was not supported by a dedicated kernel.",
            "Attention operation was not supported by a dedicated kernel "
            "(ONNX node layers.0.attention/Attention or one of 1 like it)",
            "--attention pattern",
        ),
        ("[X] nothing wrong here\n[!] Invalid Engine. Please ensure the engine was built correctly", "", ""),
    ],
    ids=["fp8", "bf16", "unsupported", "types", "attention", "silent"],
)
def test_complaints_are_unwrapped(log: str, said: str, advice: str) -> None:
    assert explain_failure(log)[0] == said
    assert advice in BuildError(explain_failure(log)[1]).worded(flag)


# --- ends --------------------------------------------------------------------------------------


@pytest.fixture
def worker(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Worker:
    """Replace the worker's code; an empty model is enough then."""
    (tmp_path / "model.onnx").touch()

    def replace(code: str) -> None:
        (folder := tmp_path / "modules").mkdir()
        (folder / "stand_in.py").write_text(code)
        monkeypatch.setenv("PYTHONPATH", str(folder))
        monkeypatch.delenv("PYTHONUNBUFFERED", raising=False)
        monkeypatch.setattr(engine, "_WORKER", "stand_in")

    return replace


def build(tmp_path: Path, **options: Any) -> None:
    build_engine(rtx(tmp_path / "model.onnx"), tmp_path / "engine.plan", tmp_path / "build.log", **options)


def test_ctrl_c_ends_the_child_and_all_it_started(tmp_path: Path, worker: Worker) -> None:
    # The grandchild inherits the group; its pid is told through the log.
    worker("import subprocess, time; print(subprocess.Popen(['sleep', '60']).pid); time.sleep(60)")
    pids = []

    def interrupt(pid: int) -> None:
        deadline = time.monotonic() + 10
        while not (log := (tmp_path / "build.log").read_text()).endswith("\n"):
            assert time.monotonic() < deadline
            time.sleep(0.01)
        pids.extend([pid, int(log)])
        signal.raise_signal(signal.SIGINT)

    with pytest.raises(KeyboardInterrupt):
        build(tmp_path, on_start=interrupt)
    for pid in pids:
        wait_for_end(pid)
    assert {p.name for p in tmp_path.iterdir()} == {"model.onnx", "build.log", "modules"}


def test_a_crash_is_a_build_error_with_the_last_words(tmp_path: Path, worker: Worker) -> None:
    worker("import os; print('[E] the roof is on fire'); os.abort()")
    with pytest.raises(BuildError, match="crashed with SIGABRT after saying: the roof is on fire; report it"):
        build(tmp_path)
    assert {p.name for p in tmp_path.iterdir()} == {"model.onnx", "build.log", "modules"}


def test_a_killed_child_hints_at_memory(tmp_path: Path, worker: Worker) -> None:
    worker("import os, signal; os.kill(os.getpid(), signal.SIGKILL)")
    with pytest.raises(BuildError, match="crashed with SIGKILL; memory may have run out: lower batches"):
        build(tmp_path)


@pytest.mark.parametrize(("kind", "fault"), [("environment", EnvironmentFault), ("output", OutputError)])
def test_faults_of_the_machine_have_their_own_exit_code(tmp_path: Path, worker: Worker, kind: str, fault: type) -> None:
    worker(
        f"import json, sys; json.dump({{'kind': {kind!r}, 'error': 'no room'}}, open('result.json', 'w')); sys.exit(1)"
    )
    with pytest.raises(fault, match="TensorRT for RTX: no room"):
        build(tmp_path)
