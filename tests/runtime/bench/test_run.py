"""Timing in turns: who takes part, in which order, what is left out and why, and what is kept when it ends early."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from bundles import Bundles, need
from damage import damage

from vivit_export.bundle import Bundle, read_bundle
from vivit_export.demo import clips_path
from vivit_export.errors import ClipError, EnvironmentFault, UsageError
from vivit_export.export.bench import bench
from vivit_export.report.text import bench_text
from vivit_export.runtime.bench import nvidia_smi
from vivit_export.runtime.bench import run as bench_module
from vivit_export.runtime.bench.report import BenchReport, Contender, parse_kind
from vivit_export.runtime.bench.run import take_turns
from vivit_export.runtime.bench.worker import ServedOnGpu

pytestmark = pytest.mark.needs_onnxruntime
LEFT = clips_path() / "left_320x240_25fps.mp4"


@pytest.fixture(scope="module")
def bundle(bundles: Bundles) -> Bundle:
    return bundles.demo(check=True, num_clips=3, precision="fp32")


class Scripted:
    """Contenders that are no processes: each is asked in turn, and answers by a script."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, **answers: Any) -> None:
        self.asked: list[tuple[str, str, Any]] = []
        self.answers = answers
        outer = self

        class Worker:
            def __init__(self, command: list[str]) -> None:
                self.name = command[3] if "runtime" in command[1] else f"pytorch {command[4]}"

            def ask(self, **request: Any) -> dict[str, Any]:
                ((kind, value),) = request.items()
                outer.asked.append((self.name, kind, value))
                scripted = outer.answers.get(self.name, {}).get(kind)
                answer = scripted(value) if callable(scripted) else scripted
                usual: dict[str, Any] = {
                    "check": {"engine": f"{self.name} 1.0", "failures": []},
                    "run": {"seconds": 0.01, "cpu_seconds": 0.02, "peak_bytes": 5},
                    "split": {"steps": {"decode": 0.001, "compute": 0.01}},
                }
                return dict(answer or usual[kind])

            def close(self) -> None:
                outer.asked.append((self.name, "close", None))

        monkeypatch.setattr(bench_module, "_Worker", Worker)
        monkeypatch.setattr(bench_module, "_PAUSE_SECONDS", 0)


# --- for real ----------------------------------------------------------------------------------


def test_engines_are_timed_in_processes_of_their_own(bundle: Bundle) -> None:
    need("openvino")
    report = bench(bundle, batches=(1, 2), rounds=2, warmup=1, video=LEFT)
    told = report.to_json()
    json.dumps(told)
    assert list(told["contenders"]) == ["tensorrt", "tensorrt-rtx", "onnxruntime-cuda", "onnxruntime-cpu", "openvino"]
    assert "the bundle has no TensorRT engine" in told["contenders"]["tensorrt"]["error"]
    assert told["baseline"] == "onnxruntime-cpu" and not told["partial"]
    for name in ("onnxruntime-cpu", "openvino"):
        contender = told["contenders"][name]
        assert set(contender["batches"]) == {"1", "2"}
        assert all(f["rounds"] == 2 and f["p99_ms"] >= f["p50_ms"] > 0 for f in contender["batches"].values())
        assert list(contender["steps_seconds"]) == ["decode", "preprocess", "compute"]
        assert 20e6 < contender["peak_bytes"] < 2e9


def test_eager_pytorch_is_what_engines_are_compared_with(bundle: Bundle) -> None:
    report = bench(bundle, engines=["onnxruntime-cpu"], against=["sdpa", "eager-bf16"], rounds=1, warmup=0)
    told = report.to_json()["contenders"]
    assert list(told) == ["pytorch sdpa", "pytorch eager-bf16", "onnxruntime-cpu"]
    assert told["pytorch eager-bf16"]["engine"].startswith("PyTorch 2.")
    assert all(contender["batches"]["1"]["rounds"] == 1 for contender in told.values())
    assert report.baseline is not None and report.baseline.name == "pytorch sdpa"


def test_a_wrong_answer_has_no_speed(bundle: Bundle, bundles: Bundles, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(bundle.path, tmp_path / "copy"))
    damage(folder, "layers.1.mlp.fc2.weight", 3)
    wrong = read_bundle(folder)
    said = r"nothing could be timed here: .* beyond its drift gate \(.*max .*--anyway"
    with pytest.raises(EnvironmentFault, match=said):
        bench(wrong, engines=["onnxruntime-cpu"], rounds=1)
    with pytest.raises(EnvironmentFault, match="no golden clips to be held to"):
        bench(bundles.demo(), engines=["onnxruntime-cpu"], rounds=1)
    timed = bench(wrong, engines=["onnxruntime-cpu"], rounds=1, warmup=0, anyway=True)
    assert timed.contenders[0].seconds.keys() == {1}


def test_what_cannot_run_says_why(bundle: Bundle, bundles: Bundles, tmp_path: Path) -> None:
    with pytest.raises(EnvironmentFault, match=r"nothing could be timed here: tensorrt: .*no TensorRT engine"):
        bench(bundle, engines=["tensorrt"])
    with pytest.raises(EnvironmentFault, match="pytorch sdpa: none/at/all does not exist"):
        bench(bundle, against=["sdpa"], engines=["tensorrt"], checkpoint="none/at/all")
    text = tmp_path / "text.mp4"
    text.write_text("no video")
    with pytest.raises(ClipError, match="cannot be read as a video"):
        bench(bundle, engines=["onnxruntime-cpu"], rounds=1, warmup=0, video=text)


# --- turns -------------------------------------------------------------------------------------


def test_contenders_take_turns(bundle: Bundle, monkeypatch: pytest.MonkeyPatch) -> None:
    script = Scripted(monkeypatch)
    bench(bundle, engines=["openvino", "onnxruntime-cpu"], batches=(1, 4), rounds=2, warmup=1, video=LEFT)
    runs = [(name, value[0]) for name, kind, value in script.asked if kind == "run"]
    turn = ["openvino", "onnxruntime-cpu"]
    assert runs == [(name, batch) for batch in (1, 4) for _ in range(3) for name in turn]
    seeds = [value[1] for _, kind, value in script.asked if kind == "run"]
    assert seeds[0::2] == seeds[1::2]  # all get the same clips in a round
    assert [name for name, kind, _ in script.asked if kind == "close"] == turn[::-1]


def test_others_take_part_too(bundle: Bundle, monkeypatch: pytest.MonkeyPatch) -> None:
    Scripted(monkeypatch)
    other = ["-m", "vivit_export.runtime.x", "", "a peer"]
    report = bench(bundle, engines=["openvino"], others={"a peer": other}, rounds=1, warmup=0)
    assert [c.name for c in report.contenders] == ["openvino", "a peer"]
    assert report.contenders[1].engine == "a peer 1.0"


def test_a_contender_that_dies_is_out_and_keeps_what_it_did(bundle: Bundle, monkeypatch: pytest.MonkeyPatch) -> None:
    fails = lambda value: {"error": "its process was killed"} if value[0] == 4 else None  # noqa: E731
    script = Scripted(monkeypatch, openvino={"run": fails})
    report = bench(bundle, engines=["openvino", "onnxruntime-cpu"], batches=(1, 4), rounds=3, warmup=0)
    openvino, onnxruntime = report.contenders
    assert openvino.error == "at batch 4: its process was killed"
    assert (list(openvino.seconds), list(onnxruntime.seconds)) == ([1], [1, 4])
    assert sum(name == "openvino" and kind == "run" and value[0] == 4 for name, kind, value in script.asked) == 1


def test_a_process_that_is_killed_is_told(bundle: Bundle) -> None:
    worker = bench_module._Worker(["-c", "import os; os.kill(os.getpid(), 9)"])
    assert worker.ask(check=True) == {"error": "its process was killed, as when memory runs out; try a smaller --batch"}
    worker.close()
    worker = bench_module._Worker(["-c", "raise SystemExit(4)"])
    assert worker.ask(check=True) == {"error": "its process ended with status 4"}
    worker.close()


WORKER = """
import os, sys
from vivit_export.runtime.bench.worker import work

class Contender:
    engine, gpu = "made up 1.0", None
    batch = staticmethod(lambda count, seed: count)
    failures = staticmethod(lambda: [])

    def run(self, count):
        if count == 4:
            FATE

sys.exit(work(Contender))
"""


@pytest.mark.parametrize(
    ("fate", "said"),
    [
        ("raise MemoryError", "at batch 4: memory ran out; try a smaller --batch"),
        ("raise RuntimeError('CUDA out of memory.\\nTried')", "at batch 4: RuntimeError: CUDA out of memory."),
        (
            "os.kill(os.getpid(), 9)",
            "at batch 4: its process was killed, as when memory runs out; try a smaller --batch",
        ),
    ],
)
def test_one_whose_memory_runs_out_keeps_what_it_did_and_the_report_is_partial(fate: str, said: str) -> None:
    commands = {"large": ["-c", WORKER.replace("FATE", fate)], "small": ["-c", WORKER.replace("FATE", "pass")]}
    report = take_turns(commands, batches=(1, 4, 8), rounds=2, warmup=0)
    large, small = report.contenders
    assert (large.error, list(large.seconds), list(small.seconds)) == (said, [1], [1, 4, 8])
    assert report.partial and not report.interrupted
    told = report.to_json()
    assert told["partial"] and told["contenders"]["large"]["batches"]["1"]["rounds"] == 2
    assert f"large stopped: {said}" in bench_text(told) and bench_text(told).splitlines()[-1].startswith("partial: ")


def test_a_bundle_that_does_not_fit_in_memory_is_left_out() -> None:
    loads = "import sys; from vivit_export.runtime.bench.worker import work; sys.exit(work(lambda: bytearray(1 << 62)))"
    said = "nothing could be timed here: large: memory ran out; try a smaller --batch"
    with pytest.raises(EnvironmentFault, match=said):
        take_turns({"large": ["-c", loads]})
    report = take_turns({"large": ["-c", loads], "small": ["-c", WORKER.replace("FATE", "pass")]}, rounds=1)
    assert report.baseline is not None and report.baseline.name == "small" and not report.partial


def test_what_was_measured_before_an_interrupt_is_kept(bundle: Bundle, monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[int] = []

    def interrupted(_value: Any) -> None:
        calls.append(1)
        if len(calls) == 4:
            raise KeyboardInterrupt

    script = Scripted(monkeypatch, **{"onnxruntime-cpu": {"run": interrupted}})
    report = bench(bundle, engines=["onnxruntime-cpu"], rounds=9, warmup=1)
    assert report.partial and report.interrupted and len(report.contenders[0].seconds[1]) == 2
    assert script.asked[-1][1] == "close"
    calls[:] = [1, 1, 1]
    with pytest.raises(KeyboardInterrupt):
        bench(bundle, engines=["onnxruntime-cpu"], rounds=9, warmup=1)


def test_speed_is_a_ratio_of_one_round_with_its_spread() -> None:
    base, ours = Contender("base"), Contender("ours")
    base.seconds, ours.seconds = {2: [1.0, 2.0, 3.0]}, {2: [0.5, 0.5, 1.0]}
    base.cpu_seconds = ours.cpu_seconds = {2: [1.0]}
    report = BenchReport((base, ours), 3, False, {})
    figures = report.figures(ours, 2)
    ratios = [2.0, 4.0, 3.0]
    assert figures["speed"] == 3.0
    assert (figures["speed_low"], figures["speed_high"]) == pytest.approx(np.percentile(ratios, [10, 90]))
    assert figures["clips_per_second"] == 4.0
    assert figures["p50_ms"] == 500.0


# --- what is asked for -------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("kind", "expected"),
    [
        ("eager", ("eager", "fp32", False)),
        ("sdpa-fp16", ("sdpa", "fp16", False)),
        ("compile-bf16", ("sdpa", "bf16", True)),
    ],
)
def test_kinds(kind: str, expected: tuple[str, str, bool]) -> None:
    assert parse_kind(kind) == expected


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"against": ["jax"]}, "'jax' is not eager, sdpa or compile"),
        ({"against": ["sdpa-int8"]}, "'sdpa-int8' is not eager"),
        ({"engines": ["fast"]}, "engine 'fast' is unknown"),
        ({"rounds": 0}, "--rounds 0"),
        ({"warmup": -1}, "--warmup -1"),
        ({"batches": (0,)}, "must be at least 1"),
    ],
)
def test_nonsense_is_refused(bundle: Bundle, options: dict[str, Any], said: str) -> None:
    with pytest.raises(UsageError, match=said):
        bench(bundle, **options)


SMI = """#!/bin/sh
case $1 in
  --query-gpu=memory.used) cat "$0.used" ;;
  --query-gpu=*) echo 'NVIDIA H200, 1980 MHz, 1980 MHz, 3201 MHz, 40' ;;
esac
"""


@pytest.fixture
def smi(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An ``nvidia-smi``; the memory that is used stands in the file that is returned."""
    tool, used = tmp_path / "nvidia-smi", tmp_path / "nvidia-smi.used"
    tool.write_text(SMI)
    tool.chmod(0o755)
    used.write_text("400 MiB\n600 MiB\n")
    monkeypatch.setenv("PATH", f"{tmp_path}:/bin:/usr/bin")
    return used


def test_clocks_and_memory_are_read_where_there_is_a_gpu(smi: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert nvidia_smi.gpu_clocks() == "NVIDIA H200, 1980 MHz, 1980 MHz, 3201 MHz, 40"
    assert nvidia_smi.gpu_used_bytes() == 1000 << 20
    smi.write_text("[N/A]\n")
    assert nvidia_smi.gpu_used_bytes() is None
    monkeypatch.setenv("PATH", str(smi.parent / "nowhere"))
    assert (nvidia_smi.gpu_clocks(), nvidia_smi.gpu_used_bytes()) == ("", None)


ON_A_GPU = """
import sys
from pathlib import Path
from types import SimpleNamespace
from vivit_export.runtime.bench.worker import work

used, log, name, held = Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3], {}

def keep(what, size):
    total = int(used.read_text().split()[0]) + size - held.get(what, 0)
    held[what] = size
    used.write_text(f"{total} MiB")

def note(what, result=None):
    log.open("a").write(f"{name}{what}\\n")
    return result

def run(count):
    note("run")
    keep("cache", 100 * count)

def rest():
    note("rest")
    keep("cache", 0)

def load():
    keep("weights", 700)
    gpu = SimpleNamespace(compute=lambda batch: note("compute", 0.25), tensor_bytes=lambda: 5, rest=rest)
    return SimpleNamespace(engine="x", gpu=gpu, batch=lambda count, seed: count, failures=lambda: ["max"], run=run)

sys.exit(work(load))
"""


def test_a_contender_on_a_gpu_is_warm_when_timed_and_tells_computing_and_memory(smi: Path, tmp_path: Path) -> None:
    smi.write_text("1000 MiB\n")
    log = tmp_path / "log"
    commands = {name: ["-c", ON_A_GPU, str(smi), str(log), name] for name in "xy"}
    report = take_turns(commands, batches=(1, 2), rounds=2, warmup=0, anyway=True)
    turn = [f"{name}{what}" for name in "xy" for what in ("run", "run", "compute", "rest")]
    assert log.read_text().split() == turn * 4
    for told in report.to_json()["contenders"].values():
        assert told["batches"]["2"]["compute_ms"] == 250 and told["batches"]["2"]["compute_speed"] == 1
        sizes = (told["gpu_bytes"], told["gpu_tensor_bytes"])
        assert sizes == (700 + 200 << 20, 5), "its own weights and what a call takes, not the other's"
        assert (told["gpu"][:11], told["beyond_gate"]) == ("NVIDIA H200", ["max"])
    assert "x, without copies to and from the GPU: batch 1 250.00 ms, batch 2 250.00 ms" in bench_text(report.to_json())


def test_a_batch_beyond_the_engine_s_is_computed_in_parts() -> None:
    asked: list[int] = []

    class Session:
        batches = (2, 4)

        def run_in_steps(self, part: Any) -> dict[str, float]:
            asked.append(len(part))
            return {"host to device": 9.0, "compute": 0.5}

    assert ServedOnGpu(Session()).compute(np.zeros((9, 1))) == 1.5  # type: ignore[arg-type]
    assert asked == [4, 4, 2]


@pytest.mark.needs_gpu
def test_pytorch_on_a_gpu_tells_computing_and_memory(bundle: Bundle) -> None:
    kinds = ["eager", "sdpa-fp16", "compile-bf16"]
    told = bench(bundle, engines=["onnxruntime-cpu"], against=kinds, device="cuda", rounds=2, warmup=1).to_json()
    for kind in kinds:
        contender = told["contenders"][f"pytorch {kind}"]
        figures = contender["batches"]["1"]
        assert 0 < figures["compute_ms"] < figures["p50_ms"]
        assert contender["gpu_bytes"] > contender["gpu_tensor_bytes"] > 1e6


def test_eager_pytorch_runs_where_the_engines_do(bundle: Bundle) -> None:
    need("torch")
    import torch

    told = bench(bundle, engines=["onnxruntime-cpu"], against=["sdpa"], device="cpu", rounds=1, warmup=0).to_json()
    assert ", CPU, " in told["contenders"]["pytorch sdpa"]["engine"]
    if not torch.cuda.is_available():
        with pytest.raises(EnvironmentFault, match=r"pytorch sdpa: PyTorch .* cannot use cuda here; check nvidia-smi"):
            bench(bundle, engines=["onnxruntime-cuda"], against=["sdpa"], device="cuda", rounds=1)
