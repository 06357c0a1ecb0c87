"""Every peer side by side in one run: ViViT-B/16x2 on the CPU, batch 1 and 2.

    python tools/make_checkpoint.py /tmp/vivit-b
    python benchmarks/peers.py /tmp/vivit-b
    python benchmarks/peers.py /tmp/vivit-b --peer-python /tmp/peers/bin/python     # one that has nncf and openvino

PyTorch eager, SDPA, compiled, and in bf16; transformers' own ``OnnxExporter``, as it is and with its fusions for
ONNX Runtime; the same graph in OpenVINO, also quantized by NNCF; and our bundles in fp32 and INT8, calibrated on NNCF's
clips, the latter also with everything that is not INT8 in bf16. All take turns in processes of their own
(`vivit_export.runtime.bench.run`). Also measured: the largest logit difference from eager fp32 on clips,
the cost of making each artifact, its size, and the share of this machine's GEMM rate. Writes
``results/peers.json``.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import click
import numpy as np
import numpy.typing as npt
from common import RESULTS, environment, run_measured, write_results
from gemm import gemm_rates
from safetensors.numpy import save_file

import vivit_export as ve
from vivit_export.bundle import read_bundle
from vivit_export.export.bench import bench
from vivit_export.export.calibrate import motion_clips
from vivit_export.export.checkpoint.load import Checkpoint, load_checkpoint
from vivit_export.export.clips import CheckClips, load_check_clips
from vivit_export.precision import Precision
from vivit_export.progress import Console

HERE = Path(__file__).parent
VIVIT_EXPORT = str(Path(sys.executable).with_name("vivit-export"))
NUM_CLIPS, CALIBRATION_CLIPS = 4, 32
CLIPS = "clips.safetensors"


@click.command()
@click.argument("checkpoint", type=click.Path(path_type=Path, exists=True))
@click.option("--rounds", default=3, show_default=True)
@click.option("--batch", "batches", default="1,2", show_default=True)
@click.option("--peer-python", type=click.Path(path_type=Path), help="A Python with nncf and openvino.")
@click.option("--gemm-only", is_flag=True, help="Measure the matrix products again, and keep the rest.")
def main(checkpoint: Path, rounds: int, batches: str, peer_python: Path | None, gemm_only: bool) -> None:
    """Measure on CHECKPOINT, a ViViT-B/16x2 folder."""
    if gemm_only:
        known = json.loads((RESULTS / "peers.json").read_text())
        print(f"wrote {write_results('peers', {**known, 'gemm_gflops': gemm_rates()})}")
        return
    results: dict[str, Any] = {"environment": environment(), "rounds": rounds, "gemm_gflops": gemm_rates()}
    with tempfile.TemporaryDirectory() as folder:
        work = Path(folder)
        loaded = load_checkpoint(str(checkpoint))
        save_file({"frames": motion_clips(loaded, range(CALIBRATION_CLIPS))}, work / CLIPS)
        results["artifacts"], commands, ours = make_contenders(checkpoint, work, peer_python)
        clips = load_check_clips(ours.contract, None, NUM_CLIPS)
        reference = loaded.run_eager(clips.each)["logits"]
        results["max_logit_difference"] = {
            name: difference(clips, reference, arguments) for name, arguments in commands.items()
        }
        results["max_logit_difference"] |= our_differences(ours.path, clips, reference, loaded)
        results["logit_range"] = float(np.ptp(reference))
        report = bench(
            ours,
            engines=("onnxruntime-cpu", "openvino"),
            against=("sdpa", "eager", "sdpa-bf16", "compile"),
            checkpoint=str(checkpoint),
            batches=tuple(int(batch) for batch in batches.split(",")),
            rounds=rounds,
            warmup=1,
            others={name: [str(HERE / "peer_worker.py"), *arguments] for name, arguments in commands.items()},
            anyway=True,
            progress=Console(),
        )
        results["bench"] = report.to_json()
    print(f"wrote {write_results('peers', results)}")


def make_contenders(
    checkpoint: Path, work: Path, peer_python: Path | None
) -> tuple[dict[str, Any], dict[str, list[str]], Any]:
    """Export everything; facts of each artifact, arguments of each peer's worker, and our fp32 bundle."""
    facts: dict[str, Any] = {}
    commands: dict[str, list[str]] = {}

    def make(name: str, target: Path, command: Sequence[str | Path]) -> None:
        run = run_measured([str(word) for word in command])
        facts[name] = {"export_seconds": run["seconds"], "peak_bytes": run["peak_bytes"], "size": _size(target)}

    worker = HERE / "peer_worker.py"
    for name, fusions in (("transformers OnnxExporter", ""), ("transformers OnnxExporter, ORT fusions", "cpu")):
        target = work / f"hf-{fusions or 'plain'}"
        make(name, target, [sys.executable, worker, "export", checkpoint, target, fusions])
        commands[f"{name}, onnxruntime"] = ["onnxruntime", str(target / "model.onnx")]
    plain = work / "hf-plain" / "model.onnx"
    commands["transformers OnnxExporter, openvino"] = ["openvino", str(plain)]
    if peer_python is not None:
        target = work / "nncf"
        make("nncf int8", target, [peer_python, worker, "nncf", plain, work / CLIPS, target])
        commands["nncf int8, openvino"] = ["openvino", str(target / "model.xml")]
    data = {"int8": ["--calibration-data", work / CLIPS]}
    for precision in ("fp32", "fp16", "int8"):
        target, options = work / precision, [*data.get(precision, ()), "--target", "onnx", "--no-check", "-q"]
        make(f"ours {precision}", target, [VIVIT_EXPORT, checkpoint, "-o", target, f"--{precision}", *options])
    int8 = str(work / "int8")
    for engine in ("openvino", "onnxruntime-cpu"):
        commands[f"ours int8, {engine}"] = ["bundle", int8, engine]
    commands["ours int8, openvino, bf16"] = ["bundle", int8, "openvino", "bf16"]
    return facts, commands, read_bundle(work / "fp32")


def _size(folder: Path) -> int:
    return sum(p.stat().st_size for p in folder.rglob("*") if p.is_file())


def difference(clips: CheckClips, reference: npt.NDArray[np.float32], arguments: list[str]) -> float:
    """Largest logit difference of a peer to eager fp32, computed in a process of its own."""
    with tempfile.TemporaryDirectory() as folder:
        np.save(Path(folder, "pixels.npy"), np.stack(list(clips.each)))
        np.save(Path(folder, "crops.npy"), clips.crops)
        command = [sys.executable, str(HERE / "peer_worker.py"), "logits", folder, *arguments]
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
        return float(np.abs(np.load(Path(folder, "logits.npy")) - reference).max())


def our_differences(
    bundle: Path, clips: CheckClips, reference: npt.NDArray[np.float32], loaded: Checkpoint
) -> dict[str, float]:
    """The same for our sessions, and for eager bf16."""
    found = {
        "pytorch sdpa-bf16": float(np.abs(loaded.run_eager(clips.each, Precision.BF16)["logits"] - reference).max())
    }
    for engine in ("onnxruntime-cpu", "openvino"):
        with ve.open_session(bundle, prefer=engine) as session:
            found[engine] = float(np.abs(session.infer(clips.crops) - reference).max())
    return found


if __name__ == "__main__":
    main()
