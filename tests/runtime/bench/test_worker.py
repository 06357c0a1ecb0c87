"""Contenders in processes of their own: what they tell, and what is kept of one that dies."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from vivit_export.errors import EnvironmentFault
from vivit_export.report.text import bench_text
from vivit_export.runtime.bench import run as bench_module
from vivit_export.runtime.bench.run import take_turns
from vivit_export.runtime.bench.worker import ServedOnGpu


def test_a_process_that_is_killed_is_told() -> None:
    worker = bench_module._Worker(["-c", "import os; os.kill(os.getpid(), 9)"])
    assert worker.ask(check=True) == {"error": "its process was killed, as when memory runs out; try a smaller batch"}
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
        ("raise MemoryError", "at batch 4: memory ran out; try a smaller batch"),
        ("raise RuntimeError('CUDA out of memory.\\nTried')", "at batch 4: RuntimeError: CUDA out of memory."),
        (
            "os.kill(os.getpid(), 9)",
            "at batch 4: its process was killed, as when memory runs out; try a smaller batch",
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
    assert f"large stopped: {said}" in bench_text(report.record()) and bench_text(report.record()).splitlines()[
        -1
    ].startswith("partial: ")


def test_a_bundle_that_does_not_fit_in_memory_is_left_out() -> None:
    loads = "import sys; from vivit_export.runtime.bench.worker import work; sys.exit(work(lambda: bytearray(1 << 62)))"
    said = "nothing could be timed here: large: memory ran out; try a smaller batch"
    with pytest.raises(EnvironmentFault, match=said):
        take_turns({"large": ["-c", loads]})
    report = take_turns({"large": ["-c", loads], "small": ["-c", WORKER.replace("FATE", "pass")]}, rounds=1)
    assert report.baseline is not None and report.baseline.name == "small" and not report.partial


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
    assert "x, without copies to and from the GPU: batch 1 250.00 ms, batch 2 250.00 ms" in bench_text(report.record())


def test_a_batch_beyond_the_engine_s_is_computed_in_parts() -> None:
    asked: list[int] = []

    class Session:
        batches = (2, 4)

        def run_in_steps(self, part: Any) -> dict[str, float]:
            asked.append(len(part))
            return {"host to device": 9.0, "compute": 0.5}

    assert ServedOnGpu(Session()).compute(np.zeros((9, 1))) == 1.5  # type: ignore[arg-type]
    assert asked == [4, 4, 2]
