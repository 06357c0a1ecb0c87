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
from vivit_export.runtime import bench as bench_module
from vivit_export.runtime.bench import bench
from vivit_export.runtime.bench_report import BenchReport, Contender, parse_kind

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
                self.process = 4711
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


def test_what_was_measured_before_an_interrupt_is_kept(bundle: Bundle, monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[int] = []

    def interrupted(_value: Any) -> None:
        calls.append(1)
        if len(calls) == 4:
            raise KeyboardInterrupt

    script = Scripted(monkeypatch, **{"onnxruntime-cpu": {"run": interrupted}})
    report = bench(bundle, engines=["onnxruntime-cpu"], rounds=9, warmup=1)
    assert report.partial and len(report.contenders[0].seconds[1]) == 2
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
  --query-gpu=*) echo 'NVIDIA H200, 1980 MHz, 1980 MHz, 3201 MHz, 40' ;;
  *) printf '%s\\n' '12, 99 MiB' '4711, 600 MiB' '4711, [N/A]' ;;
esac
"""


def test_clocks_and_memory_are_read_where_there_is_a_gpu(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    assert (bench_module.gpu_clocks(), bench_module.gpu_bytes(4711)) == ("", 0)
    tool = tmp_path / "nvidia-smi"
    tool.write_text(SMI)
    tool.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/bin:/usr/bin")
    assert bench_module.gpu_clocks() == "NVIDIA H200, 1980 MHz, 1980 MHz, 3201 MHz, 40"
    assert bench_module.gpu_bytes(4711) == 600 << 20
    assert bench_module.gpu_bytes(1) == 0


def test_the_report_has_them(bundle: Bundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    test_clocks_and_memory_are_read_where_there_is_a_gpu(tmp_path, monkeypatch)
    Scripted(monkeypatch)
    told = bench(bundle, engines=["openvino"], rounds=1).to_json()["contenders"]["openvino"]
    assert (told["gpu_bytes"], told["gpu"][:11]) == (600 << 20, "NVIDIA H200")
