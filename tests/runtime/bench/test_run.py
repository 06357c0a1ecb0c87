"""Timing in turns: who takes part, in which order, what is left out and why, and what is kept when it ends early."""

from __future__ import annotations

from typing import Any

import pytest
from bundles import Bundles

from vivit_export.bundle import Bundle
from vivit_export.demo import clips_path
from vivit_export.export.bench import bench
from vivit_export.runtime.bench import run as bench_module

pytestmark = pytest.mark.needs_onnxruntime
LEFT = clips_path() / "left_320x240_25fps.mp4"


@pytest.fixture(scope="module")
def bundle(bundles: Bundles) -> Bundle:
    return bundles.demo(check=True, num_clips=3, precision="fp32")


class Scripted:
    """Contenders that are not processes: each is asked in turn, and answers by a script."""

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
