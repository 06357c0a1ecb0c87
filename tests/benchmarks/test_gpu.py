"""The GPU benchmark without a GPU: every path but the kernels themselves, on the demo."""

from __future__ import annotations

import importlib
import json
import os
import signal
import subprocess
import time
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from gpu_section import gpu_section

import vivit_export as ve
from vivit_export.demo import checkpoint_path

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"
SCRIPT = str(BENCHMARKS / "gpu.py")
COMMON = ["--device", "cpu", "--rounds", "1", "--warmup", "0"]
QUICK = ["--against", "sdpa,eager", "--steps", "1", "--drift", "fp16", "--ours", "fp16", "--no-families"]


def run(programs: Path, *options: str, code: int = 0, checkpoint: str = "demo") -> str:
    command = [str(programs / "python"), SCRIPT, checkpoint, *COMMON, *options]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == code, done.stderr
    return done.stderr


def read(folder: Path) -> dict[str, Any]:
    return dict(json.loads((folder / "gpu.json").read_text()))


@pytest.fixture(scope="module")
def measured(tmp_path_factory: pytest.TempPathFactory, preloaded: Path) -> Path:
    folder = tmp_path_factory.mktemp("gpu")
    run(preloaded, "--batch", "1", *QUICK, "--results", str(folder), "--bundles", str(folder / "bundles"))
    return folder


@pytest.mark.needs_onnxruntime
def test_every_part_is_measured_or_says_why_not(measured: Path) -> None:
    told = read(measured)
    parts = told["parts"]
    assert set(parts) == {
        "model",
        "gemm_gflops",
        "batch 1",
        "drift fp16",
        "training eager",
        "training sdpa",
        "kernels pytorch",
    }
    assert not told["partial"] and told["environment"]["command"].endswith("bundles")
    assert parts["model"]["flop_per_clip"] > parts["model"]["linear_flop_per_clip"] > 1e8
    assert all(parts["gemm_gflops"][name]["fc1"] > 0 for name in ("fp32", "fp16", "bf16"))
    assert "fp8 fc1" in parts["gemm_gflops"]["not_measured"]
    assert {"pytorch eager", "pytorch sdpa", "ours fp16, onnxruntime-cpu"} <= set(parts["batch 1"])
    assert all(f["p50_ms"] > 0 and f["peak_bytes"] > 1e6 for f in parts["batch 1"].values())
    assert parts["training sdpa"]["steps"] == 1 and parts["training sdpa"]["seconds_per_step"] > 0
    checked = parts["drift fp16"]
    assert checked["onnxruntime-cpu"]["beyond_gate"] == [] and 0 < checked["onnxruntime-cpu"]["drift"]["max"] < 1e-3
    split = parts["kernels pytorch"]
    assert split["contender"].startswith("pytorch ") and split["classes"]["matrix products"] > 0
    assert sum(split["classes"].values()) == pytest.approx(split["total_ms"])
    written = gpu_section(told)
    assert "| fp16 | ONNX Runtime" in written and " | 100 % | passed |" in written
    assert (
        "| inference, batch 1 | " in written and "| training, 1 steps | " in written and "- fp8 fc1 GEMM: " in written
    )


@pytest.mark.needs_onnxruntime
def test_a_second_run_measures_what_is_missing(measured: Path, preloaded: Path) -> None:
    before = read(measured)["parts"]
    options = ["--results", str(measured), "--bundles", str(measured / "bundles")]
    stages = run(preloaded, "--batch", "1,2", *QUICK, *options, "--resume").splitlines()
    after = read(measured)["parts"]
    assert {name: after[name] for name in before} == before and "batch 2" in after
    assert "batch 2" in stages and not {"gemm_gflops", "batch 1", "kernels pytorch"} & set(stages)
    assert "was measured with rounds 1, now it is 2; drop --resume" in run(
        preloaded, "--rounds", "2", *options, "--resume", code=2
    )


def test_what_fails_stops_nothing_else_and_an_interrupt_keeps_what_there_is(tmp_path: Path, preloaded: Path) -> None:
    """No bundle can be made in a folder that is a file; PyTorch's contenders go on until Ctrl-C."""
    (tmp_path / "file").touch()
    options = [
        "--against",
        "sdpa",
        "--steps",
        "100000",
        "--batch",
        "1",
        "--drift",
        "",
        "--ours",
        "fp16",
        "--no-families",
        "--bundles",
        str(tmp_path / "file" / "x"),
    ]
    command = [str(preloaded / "python"), SCRIPT, "demo", *COMMON, *options, "--results", str(tmp_path)]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True, start_new_session=True) as process:
        try:
            while not (tmp_path / "gpu.json").exists() or "batch 1" not in read(tmp_path)["parts"]:
                assert process.poll() is None
                time.sleep(0.1)
            assert read(tmp_path)["partial"]
            os.killpg(process.pid, signal.SIGINT)
            stderr = process.communicate(timeout=60)[1]
        finally:
            with suppress(ProcessLookupError):  # where all went well, nothing is left
                os.killpg(process.pid, signal.SIGKILL)
    assert process.returncode == 130 and "is partial; go on with --resume" in stderr
    told = read(tmp_path)
    assert told["partial"] and set(told["parts"]) == {"model", "gemm_gflops", "batch 1"}
    assert list(told["parts"]["batch 1"]) == ["pytorch sdpa"]
    assert "file" in told["not_measured"]["ours fp16"]


def test_without_a_gpu_it_says_so(preloaded: Path) -> None:
    torch = pytest.importorskip("torch")
    if torch.cuda.is_available():
        pytest.skip("this machine has a GPU")
    assert "sees no GPU here; --device cpu" in run(preloaded, "--device", "cuda", code=2)
    assert "nowhere is not a checkpoint folder" in run(preloaded, "--device", "cpu", code=2, checkpoint="nowhere")


LARGE = """
import sys
from types import SimpleNamespace
from vivit_export.runtime.bench.worker import work

def run(count):
    if count > 4:
        raise RuntimeError("CUDA out of memory. Tried to allocate 15 GiB")

contender = SimpleNamespace(engine="x", gpu=None, batch=lambda count, seed: count, failures=lambda: None, run=run)
sys.exit(work(lambda: contender))
"""


def test_one_whose_memory_runs_out_is_listed_at_that_batch_and_the_others_go_on(tmp_path: Path) -> None:
    gpu = importlib.import_module("gpu")
    book = gpu.Book(tmp_path, {"gpu": "", "cpu": "", "packages": {}}, {}, resume=False)
    commands = {
        "large": ["-c", LARGE],
        "small": ["-c", LARGE.replace("4", "99")],
        "tensorrt": ["-c", "import sys; sys.stdin.readline(); sys.exit(7)"],
    }
    given = {"rounds": 1, "warmup": 0}
    for batch in (4, 8):
        book.part(f"batch {batch}", partial(gpu.compete, book, f"batch {batch}", commands, batch, given))
    told = read(tmp_path)
    assert [list(told["parts"][part]) for part in ("batch 4", "batch 8")] == [["large", "small"], ["small"]]
    assert told["not_measured"] == {
        "large, batch 8": "at batch 8: RuntimeError: CUDA out of memory. Tried to allocate 15 GiB",
        "tensorrt": "its process ended with status 7",
    }
    book.part("batch 16", partial(gpu.compete, book, "batch 16", {"large": commands["large"]}, 16, given))
    assert "nothing could be timed here: large: at batch 16" in read(tmp_path)["not_measured"]["batch 16"]


@pytest.mark.needs_onnxruntime
def test_another_family_is_made_and_set_beside_pytorch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    gpu, bundles = importlib.import_module("gpu"), importlib.import_module("gpu_bundles")
    title, sizes = "Small 8x32", {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2}
    small = {**sizes, "intermediate_size": 64, "num_frames": 8, "image_size": 32, "patch_size": 16, "tubelet_size": 2}
    monkeypatch.setattr(bundles, "FAMILIES", {title: ("videomae", small)})
    book = gpu.Book(tmp_path, {"gpu": "", "cpu": "", "packages": {}}, {}, resume=False)
    given = {"rounds": 1, "warmup": 0}
    found = gpu.compete_family(book, title, tmp_path / "bundles", given, "cpu")
    assert {"pytorch sdpa", "pytorch sdpa-fp16", f"ours fp16, {title}, onnxruntime-cpu"} <= set(found)
    assert gpu.family_part(title, "cpu") == f"family {title}, batch 1"
    assert ve.read_bundle(tmp_path / "bundles/small-8x32").precision == "fp16"


@pytest.mark.needs_onnxruntime
def test_int8_is_calibrated_on_rendered_clips(tmp_path: Path) -> None:
    bundles = importlib.import_module("gpu_bundles")
    left_out: list[str] = []
    bundles.make_bundle(checkpoint_path(), tmp_path / "int8", "int8", "cpu", lambda what, why: left_out.append(what))
    assert left_out == []
    assert ve.read_bundle(tmp_path / "int8").precision == "int8"
