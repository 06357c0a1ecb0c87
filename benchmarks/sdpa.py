"""Measure the tables of the Transformers documentation again: ViViT with eager attention against SDPA.

    python tools/make_checkpoint.py /tmp/vivit-b
    python benchmarks/sdpa.py /tmp/vivit-b                     # on the CPU: one timed call of each
    python benchmarks/sdpa.py /tmp/vivit-b --rounds 20 --steps 100 --half fp16      # as the documentation, on a GPU

Inference at batch 1, 2, 4 and 8, and training at batch 1, in float32; beside them PyTorch in half precision and
our engines. Contenders take turns in processes of their own, one set of processes per batch, so that peak memory is
that of one batch: resident memory on the CPU, PyTorch's own on a GPU. Writes ``results/sdpa.json``.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import click
import numpy as np
from common import environment, peak_bytes, write_results

import vivit_export as ve
from vivit_export.bundle import Bundle
from vivit_export.export.bench import bench
from vivit_export.progress import Console
from vivit_export.signals import die_with_parent

KINDS = ("eager", "sdpa")
DOCUMENTED = {
    "source": "Transformers documentation of ViViT: A100, float32",
    "inference": {
        "1": {"faster": 15.4, "eager_mb": 716, "sdpa_mb": 317},
        "2": {"faster": 17.1, "eager_mb": 1235, "sdpa_mb": 447},
        "4": {"faster": 18.1, "eager_mb": 2276, "sdpa_mb": 710},
        "8": {"faster": 19.3, "eager_mb": 4358, "sdpa_mb": 1233},
    },
    "training": {"faster": 7.1, "eager_mb": 5933, "sdpa_mb": 2575},
}
"""The tables that are measured again; percent and MB."""


@click.command()
@click.argument("checkpoint", type=click.Path(path_type=Path, exists=True))
@click.option("--batch", "batches", default="1,2,4,8", show_default=True)
@click.option("--rounds", default=1, show_default=True, help="Timed calls.")
@click.option("--warmup", default=1, show_default=True)
@click.option("--steps", default=1, show_default=True, help="Timed training steps; 0: no training.")
@click.option("--half", default="bf16", show_default=True, help="Half precision of PyTorch beside float32.")
@click.option("--device", hidden=True, help="Of --worker.")
@click.option("--worker", hidden=True)
def main(
    checkpoint: Path,
    batches: str,
    rounds: int,
    warmup: int,
    steps: int,
    half: str,
    device: str | None,
    worker: str | None,
) -> None:
    """Measure on CHECKPOINT, a ViViT-B/16x2 folder."""
    if worker:
        die_with_parent()
        print(json.dumps(train(checkpoint, worker, steps, device)))
        return
    results: dict[str, Any] = {"environment": environment(), "rounds": rounds, "steps": steps}
    with tempfile.TemporaryDirectory() as folder:
        bundle = ve.export_model(str(checkpoint), Path(folder, "fp32"), targets=("onnx",), check=False)
        sizes = [int(batch) for batch in batches.split(",")]
        results["inference"] = {str(batch): infer(bundle, checkpoint, batch, rounds, warmup, half) for batch in sizes}
    if steps:
        results["training"] = {kind: train_in_child(checkpoint, kind, steps) for kind in KINDS}
    print(f"wrote {write_results('sdpa', results)}")
    print(json.dumps({k: v for k, v in results.items() if k != "environment"}, indent=2))


def infer(bundle: Bundle, checkpoint: Path, batch: int, rounds: int, warmup: int, half: str) -> dict[str, Any]:
    """Time one batch size; figures by contender."""
    report = bench(
        bundle,
        against=[*KINDS, f"sdpa-{half}"],
        checkpoint=str(checkpoint),
        batches=(batch,),
        rounds=rounds,
        warmup=warmup,
        anyway=True,
        progress=Console(),
    )
    contenders = report.to_json()["contenders"]
    return {
        name: {"engine": c["engine"], "peak_bytes": _peak(c), **c["batches"][str(batch)]}
        for name, c in contenders.items()
        if c["batches"]
    }


def _peak(contender: dict[str, Any]) -> int:
    sizes = (contender.get(name, 0) for name in ("gpu_tensor_bytes", "gpu_bytes", "peak_bytes"))
    return int(next(size for size in sizes if size))


def train_in_child(checkpoint: Path, kind: str, steps: int, device: str | None = None) -> dict[str, Any]:
    """Train in a process of its own, whose memory is its own; ``error`` where it ended early. See `train`."""
    command = [sys.executable, __file__, str(checkpoint), "--worker", kind, "--steps", str(steps)]
    command += ["--device", device] if device else []
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        said = done.stderr.strip().splitlines()
        return {"error": f"ended with status {done.returncode}, as when memory runs out; {said[-1] if said else ''}"}
    return dict(json.loads(done.stdout.splitlines()[-1]))


def train(checkpoint: Path, kind: str, steps: int, device: str | None = None) -> dict[str, Any]:
    """Train with AdamW at batch 1; seconds per step after a first one, and peak memory."""
    import torch
    import transformers

    device = device or ("cuda" if torch.cuda.is_available() else "cpu")
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = False
    network = transformers.VivitForVideoClassification.from_pretrained(checkpoint, attn_implementation=kind)
    network = network.to(device).train()
    optimizer = torch.optim.AdamW(network.parameters(), lr=1e-5)
    config = network.config
    size = config.image_size
    height, width = (size, size) if isinstance(size, int) else size
    pixels = torch.randn(1, config.num_frames, 3, height, width, device=device)
    labels = torch.zeros(1, dtype=torch.long, device=device)
    seconds = []
    for _ in range(steps + 1):
        start = time.perf_counter()
        optimizer.zero_grad()
        network(pixels, labels=labels).loss.backward()
        optimizer.step()
        if device == "cuda":
            torch.cuda.synchronize()
        seconds.append(time.perf_counter() - start)
    peak = torch.cuda.max_memory_allocated() if device == "cuda" else peak_bytes()
    return {"seconds_per_step": float(np.median(seconds[1:])), "peak_bytes": peak, "device": device}


if __name__ == "__main__":
    main()
