"""Every peer side by side in one run: ViViT-B/16x2 on the CPU, batch 1 and 2.

    python tools/make_checkpoint.py /tmp/vivit-b
    python benchmarks/peers.py /tmp/vivit-b
    python benchmarks/peers.py /tmp/vivit-b --peer-python /tmp/peers/bin/python     # one that has nncf and openvino

PyTorch eager, SDPA, compiled, and in bf16; transformers' own ``OnnxExporter``, as it is and with its fusions for
ONNX Runtime; the same graph in OpenVINO, also quantised by NNCF; and our bundles in fp32 and INT8, the latter also with
all that is not INT8 in bf16. All take turns in processes of their own (`vivit_export.runtime.bench`). Beside time and
memory: largest logit difference to eager fp32 on clips, seconds to export, size of what is shipped, and the share of
what this machine's GEMMs can do. Writes ``results/peers.json``.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click
import numpy as np
import numpy.typing as npt
from common import RESULTS, environment, run_measured, write_results

import vivit_export as ve
from vivit_export.bundle import read_bundle
from vivit_export.export.checkpoint import Checkpoint, load_checkpoint
from vivit_export.export.clips import CheckClips, load_check_clips
from vivit_export.progress import Console
from vivit_export.runtime.bench import bench

HERE = Path(__file__).parent
VIVIT_EXPORT = str(Path(sys.executable).with_name("vivit-export"))
NUM_CLIPS = 4


@click.command()
@click.argument("checkpoint", type=click.Path(path_type=Path, exists=True))
@click.option("--rounds", default=3, show_default=True)
@click.option("--batch", "batches", default="1,2", show_default=True)
@click.option("--peer-python", type=click.Path(path_type=Path), help="A Python with nncf and openvino.")
@click.option("--int8-bundle", type=click.Path(path_type=Path), help="Our INT8 bundle of the same checkpoint.")
@click.option("--gemm-only", is_flag=True, help="Measure the matrix products again, and keep the rest.")
def main(
    checkpoint: Path, rounds: int, batches: str, peer_python: Path | None, int8_bundle: Path | None, gemm_only: bool
) -> None:
    """Measure on CHECKPOINT, a ViViT-B/16x2 folder."""
    if gemm_only:
        known = json.loads((RESULTS / "peers.json").read_text())
        print(f"wrote {write_results('peers', {**known, 'gemm_gflops': gemm_rate()})}")
        return
    results: dict[str, Any] = {"environment": environment(), "rounds": rounds, "gemm_gflops": gemm_rate()}
    with tempfile.TemporaryDirectory() as folder:
        work = Path(folder)
        loaded = load_checkpoint(str(checkpoint))
        results["artefacts"], commands, ours = make_contenders(checkpoint, work, peer_python, int8_bundle)
        clips = load_check_clips(ours.contract, None, NUM_CLIPS)
        reference = loaded.run_eager(clips.pixels)["logits"]
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


def gemm_rate() -> dict[str, float]:
    """What this machine's matrix products reach on a shape of ViViT-B (fc1), in GFLOP/s: the best library's.

    PyTorch's float32 GEMM is half as fast as ONNX Runtime's on some processors, so neither alone is the limit.
    """
    import onnxruntime
    import torch

    rng = np.random.default_rng(0)
    a, b = (rng.standard_normal(shape, dtype=np.float32) for shape in ((3137, 768), (768, 3072)))
    session = onnxruntime.InferenceSession(_matmul(), providers=["CPUExecutionProvider"])
    a32, b32 = torch.from_numpy(a), torch.from_numpy(b)
    a16, b16 = a32.bfloat16(), b32.bfloat16()
    runs: dict[str, tuple[str, Callable[[], object]]] = {
        "onnxruntime": ("float32", lambda: session.run(None, {"a": a, "b": b})),
        "pytorch": ("float32", lambda: torch.mm(a32, b32)),
        "pytorch bf16": ("bfloat16", lambda: torch.mm(a16, b16)),
    }
    rates: dict[str, float] = {}
    for kind, run in runs.values():
        rate = 2 * 3137 * 768 * 3072 / min(_seconds(run) for _ in range(20)) / 1e9
        rates[kind] = max(rate, rates.get(kind, 0.0))
    return rates


def _matmul() -> bytes:
    from onnx import TensorProto, helper

    shapes = {"a": (3137, 768), "b": (768, 3072), "c": (3137, 3072)}
    values = {name: helper.make_tensor_value_info(name, TensorProto.FLOAT, shape) for name, shape in shapes.items()}
    node = helper.make_node("MatMul", ["a", "b"], ["c"])
    graph = helper.make_graph([node], "gemm", [values["a"], values["b"]], [values["c"]])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
    return bytes(model.SerializeToString())


def _seconds(function: Callable[[], object]) -> float:
    start = time.perf_counter()
    function()
    return time.perf_counter() - start


def make_contenders(
    checkpoint: Path, work: Path, peer_python: Path | None, int8_bundle: Path | None
) -> tuple[dict[str, Any], dict[str, list[str]], Any]:
    """Export everything; facts of each artefact, arguments of each peer's worker, and our fp32 bundle."""
    facts: dict[str, Any] = {}
    commands: dict[str, list[str]] = {}
    for name, fusions in (("transformers OnnxExporter", ""), ("transformers OnnxExporter, ORT fusions", "cpu")):
        target = work / f"hf-{fusions or 'plain'}"
        run = run_measured(
            [sys.executable, str(HERE / "peer_worker.py"), "export", str(checkpoint), str(target), fusions]
        )
        facts[name] = {"export_seconds": run["seconds"], "peak_bytes": run["peak_bytes"], "size": _size(target)}
        commands[f"{name}, onnxruntime"] = ["onnxruntime", str(target / "model.onnx")]
    plain = work / "hf-plain" / "model.onnx"
    commands["transformers OnnxExporter, openvino"] = ["openvino", str(plain)]
    if peer_python is not None:
        target = work / "nncf"
        run = run_measured([str(peer_python), str(HERE / "peer_worker.py"), "nncf", str(plain), str(target)])
        facts["nncf int8"] = {"export_seconds": run["seconds"], "peak_bytes": run["peak_bytes"], "size": _size(target)}
        commands["nncf int8, openvino"] = ["openvino", str(target / "model.xml")]
    for precision in ("fp32", "fp16"):
        target = work / precision
        options = [f"--{precision}", "--target", "onnx", "--no-check", "-q"]
        run = run_measured([VIVIT_EXPORT, str(checkpoint), "-o", str(target), *options])
        facts[f"ours {precision}"] = {
            "export_seconds": run["seconds"], "peak_bytes": run["peak_bytes"], "size": _size(target)
        }  # fmt: skip
    if int8_bundle is not None:
        facts["ours int8"] = {"size": _size(int8_bundle)}
        for engine in ("openvino", "onnxruntime-cpu"):
            commands[f"ours int8, {engine}"] = ["bundle", str(int8_bundle), engine]
        commands["ours int8, openvino, bf16"] = ["bundle", str(int8_bundle), "openvino", "bf16"]
    return facts, commands, read_bundle(work / "fp32")


def _size(folder: Path) -> int:
    return sum(p.stat().st_size for p in folder.rglob("*") if p.is_file())


def difference(clips: CheckClips, reference: npt.NDArray[np.float32], arguments: list[str]) -> float:
    """Largest logit difference of a peer to eager fp32, computed in a process of its own."""
    with tempfile.TemporaryDirectory() as folder:
        np.save(Path(folder, "pixels.npy"), clips.pixels)
        np.save(Path(folder, "crops.npy"), clips.crops)
        command = [sys.executable, str(HERE / "peer_worker.py"), "logits", folder, *arguments]
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
        return float(np.abs(np.load(Path(folder, "logits.npy")) - reference).max())


def our_differences(
    bundle: Path, clips: CheckClips, reference: npt.NDArray[np.float32], loaded: Checkpoint
) -> dict[str, float]:
    """The same for our sessions, and for eager bf16."""
    found = {"pytorch sdpa-bf16": float(np.abs(loaded.run_eager(clips.pixels, "bf16")["logits"] - reference).max())}
    for engine in ("onnxruntime-cpu", "openvino"):
        with ve.open_session(bundle, prefer=engine) as session:
            found[engine] = float(np.abs(session.infer(clips.crops) - reference).max())
    return found


if __name__ == "__main__":
    main()
