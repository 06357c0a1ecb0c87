"""Measure sessions on the CPU: ViViT-B/16x2, batch 1, against PyTorch's SDPA on the same cores.

    python tools/make_checkpoint.py /tmp/vivit-b
    python benchmarks/session.py /tmp/vivit-b

Each contender runs in a process of its own, so its memory is its own. They take turns, one clip each, round
after round, so other load on the machine affects all of them alike. Writes ``results/session.json``. The
ratios are what counts (``speed_to_sdpa`` is the median over rounds; the other one compares the fastest
runs). The seconds are specific to this machine and the recorded load.
"""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import click
import numpy as np
import numpy.typing as npt
from common import environment, peak_bytes, write_results

from vivit_export.precision import Precision
from vivit_export.signals import die_with_parent

Run = Callable[[], npt.NDArray[np.float32]]

BASELINE = "pytorch sdpa"
FP32 = (BASELINE, "onnxruntime, graph as it is", "onnxruntime, lean attention", "openvino", "openvino, bf16")
FP16 = (BASELINE, "onnxruntime, graph as it is", "onnxruntime, lean attention", "openvino")
_PAUSE_SECONDS = 0.3  # lets idle threads of the previous contender stop spinning


@click.command()
@click.argument("checkpoint", type=click.Path(path_type=Path, exists=True))
@click.option("--rounds", default=6, show_default=True)
@click.option("--worker", nargs=3, hidden=True)
def main(checkpoint: Path, rounds: int, worker: tuple[str, str, str] | None) -> None:
    """Measure on CHECKPOINT, a ViViT-B/16x2 folder."""
    if worker:
        die_with_parent()
        serve(worker[0], checkpoint, Path(worker[1]), Path(worker[2]))
        return
    import vivit_export as ve

    results: dict[str, Any] = {"environment": environment(), "rounds": rounds}
    with tempfile.TemporaryDirectory() as folder:
        for precision, contenders in (("fp32", FP32), ("fp16", FP16)):
            bundle = Path(folder, precision)
            ve.export_model(str(checkpoint), bundle, precision=Precision(precision), targets=("onnx",), check=False)
            bundles = dict.fromkeys(contenders, bundle)
            results[f"{precision} bundle"] = compete(bundles, checkpoint, Path(folder), rounds)
    path = write_results("session", results)
    print(json.dumps({k: v for k, v in results.items() if k != "environment"}, indent=2))
    print(f"wrote {path}")


def compete(contenders: Mapping[str, Path], checkpoint: Path, folder: Path, rounds: int) -> dict[str, dict[str, Any]]:
    """Let the contenders take turns.

    Args:
        contenders: the bundle that each one runs; `BASELINE` runs the checkpoint, and its bundle is not read.
        checkpoint: what the bundles were exported from.
        folder: for logits.
        rounds: how often each one runs, besides once to warm up.
    """
    workers = {name: Worker(name, checkpoint, bundle, folder) for name, bundle in contenders.items()}
    runs: dict[str, list[dict[str, float]]] = {name: [] for name in contenders}
    loads = []
    for _ in range(rounds + 1):  # the first warms up
        for name, worker in workers.items():
            runs[name].append(worker.ask("run"))
            loads.append(os.getloadavg()[0])
            time.sleep(_PAUSE_SECONDS)
    seconds = {name: [run["seconds"] for run in runs[name][1:]] for name in contenders}
    busy = {name: [run["cpu_seconds"] for run in runs[name][1:]] for name in contenders}
    weights = {n: int(np.sum([p.stat().st_size for p in b.glob("model.onnx*")])) for n, b in contenders.items()}
    figures: dict[str, dict[str, Any]] = {}
    logits = {name: np.load(worker.ask("stop")["logits"]) for name, worker in workers.items()}
    for name, worker in workers.items():
        ratios = [base / ours for base, ours in zip(seconds[BASELINE], seconds[name], strict=True)]
        figures[name] = {
            "load_seconds": worker.hello["load_seconds"],
            "seconds_per_clip": round(statistics.median(seconds[name]), 2),
            "fastest_seconds": round(min(seconds[name]), 2),
            "cpu_seconds_per_clip": round(statistics.median(busy[name]), 2),
            "speed_to_sdpa": round(statistics.median(ratios), 2),
            "speed_to_sdpa_fastest": round(min(seconds[BASELINE]) / min(seconds[name]), 2),
            "peak_bytes": worker.peak,
            "peak_bytes_beyond_weights": worker.peak - weights[name],
            "max_logit_difference": float(np.abs(logits[name] - logits[BASELINE]).max()),
            "engine": worker.hello["engine"],
        }
    figures["all"] = {
        "logit_range": float(np.ptp(logits[BASELINE])),
        "weights_bytes": weights[BASELINE],
        "load": max(loads),
    }
    return figures


class Worker:
    """A contender in a child process, asked by lines of text."""

    def __init__(self, name: str, checkpoint: Path, bundle: Path, folder: Path) -> None:
        command = [sys.executable, __file__, str(checkpoint), "--worker", name, str(bundle), str(folder)]
        self._child = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        self.peak = 0
        self.hello = self._answer()

    def ask(self, what: str) -> dict[str, Any]:
        """Send a line and return the answer."""
        assert self._child.stdin is not None
        self._child.stdin.write(what + "\n")
        self._child.stdin.flush()
        return self._answer()

    def _answer(self) -> dict[str, Any]:
        assert self._child.stdout is not None
        line = self._child.stdout.readline()
        if not line:
            raise RuntimeError(f"a worker ended with {self._child.wait()}")
        answer: dict[str, Any] = json.loads(line)
        self.peak = int(answer["peak_bytes"])
        return answer


def serve(name: str, checkpoint: Path, bundle: Path, folder: Path) -> None:
    """Load a contender, then run a clip for each line "run" until "stop"."""
    start = time.perf_counter()
    run, engine = load(name, checkpoint, bundle)
    answer: dict[str, Any] = {"load_seconds": round(time.perf_counter() - start, 2), "engine": engine}
    logits = np.zeros(0, np.float32)
    while True:
        print(json.dumps({**answer, "peak_bytes": peak_bytes()}), flush=True)
        asked = sys.stdin.readline().strip()
        if asked != "run":
            break
        start, busy = time.perf_counter(), time.process_time()
        logits = run()
        answer = {"seconds": time.perf_counter() - start, "cpu_seconds": time.process_time() - busy}
    path = folder / f"{bundle.name}-{name}.npy"
    np.save(path, logits)
    print(json.dumps({"logits": str(path), "peak_bytes": peak_bytes()}), flush=True)


def load(name: str, checkpoint: Path, bundle: Path) -> tuple[Run, str]:
    """Return a function that runs one clip, and what executes it."""
    if name == BASELINE:
        return _load_pytorch(checkpoint)
    from vivit_export.bundle import read_bundle
    from vivit_export.runtime.select import open_session
    from vivit_export.runtime.session.onnxruntime import OnnxRuntimeSession

    source = read_bundle(bundle)
    crops = _crops(source.contract.io.inputs[0].shape)
    if name == "onnxruntime, graph as it is":
        plain = OnnxRuntimeSession(source.model)
        return lambda: plain.run(crops)["logits"], plain.name
    session = open_session(
        source,
        prefer="onnxruntime-cpu" if name.startswith("onnxruntime") else "openvino",
        cpu_precision="bf16" if name.endswith("bf16") else None,
    )
    return lambda: session.infer(crops), session.details


def _load_pytorch(checkpoint: Path) -> tuple[Run, str]:
    import torch

    from vivit_export.export.checkpoint.load import load_checkpoint
    from vivit_export.runtime import Preprocessor

    loaded = load_checkpoint(str(checkpoint))
    loaded.adapter.attend(loaded.network, "sdpa")
    preprocessor = Preprocessor.from_pretrained(checkpoint)
    clip = preprocessor.clip
    pixels = torch.from_numpy(preprocessor.to_pixels(_crops((1, clip.num_frames, clip.height, clip.width, 3))))

    def run() -> npt.NDArray[np.float32]:
        with torch.inference_mode():
            logits: npt.NDArray[np.float32] = loaded.outputs(pixels)["logits"].numpy()
        return logits

    return run, f"PyTorch {torch.__version__}, {torch.get_num_threads()} threads"


def _crops(shape: tuple[int | str, ...]) -> npt.NDArray[np.uint8]:
    return np.random.default_rng(0).integers(0, 256, (1, *map(int, shape[1:])), dtype=np.uint8)


if __name__ == "__main__":
    main()
