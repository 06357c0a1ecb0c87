"""The content of a bundle with every section of the report, of ViViT-B's size, and with as many clips as asked."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
from anatomies import vivit
from made_records import content, engine_record
from PIL import Image
from safetensors.numpy import save_file

from vivit_export.bundle.accuracy import Accuracy, RunAccuracy, Share
from vivit_export.bundle.bench import BenchRecord, ContenderRecord, Figures, Machine
from vivit_export.bundle.checks import BlockDrift, CheckedClips, Drift, DriftReport, Gate, Parity, Run
from vivit_export.bundle.clip_view import ClipDrift, ClipView, Flip, Score, Strata, Stratum
from vivit_export.bundle.engines import BatchDrift, Profile, Verification
from vivit_export.bundle.manifest import (
    ClipsRecord,
    Content,
    LargestWeight,
    LayerEffect,
    ModelRecord,
    PrecisionRecord,
    QuantizationRecord,
    QuantizedLayer,
    Smoothing,
)
from vivit_export.bundle.taps import Suspect, Tap, TapError, TapReport
from vivit_export.contract import IO, Clip, Contract, Preprocess, Tensor
from vivit_export.flavour import Flavour
from vivit_export.precision import Precision

BLOCKS = 12
CLIP = Clip(8, 48, 64, (2, 8, 8))
CONTRACT = Contract(
    CLIP,
    Preprocess(shortest_edge=64, crop_size=(48, 64)),
    IO("crops", (Tensor("frames", "uint8", ("batch", 8, 48, 64, 3)),), (Tensor("logits", "float32", ("batch", 3)),)),
    ("abseiling", "archery", "zumba"),
)
GATE = Gate({"top1": 0.99, "max": 0.05, "cosine": 0.995, "clear_flips": 0, "nonfinite": 0})
_LAYERS = ("attention.q_proj", "attention.k_proj", "attention.v_proj", "attention.o_proj", "mlp.fc1", "mlp.fc2")


def long_report(clips: int = 8, *, worst: float = 0.0041) -> Content:
    """INT8 with two engines, timings and sensitivity.

    Args:
        clips: how many were checked.
        worst: the largest difference, of the logit range; more than 0.05 is beyond the gate.
    """
    types = {f"layers.{i}.{name}": "float16" if i == 3 else "int8" for i in range(BLOCKS) for name in _LAYERS}
    engines = {
        name: engine_record(
            flavour=Flavour.TENSORRT_RTX,
            precision=Precision.INT8,
            version="1.7.1.116",
            sms=sms,
            profiles=(Profile(1, 4, 8),),
            onnx_sha256="8ae1d60c" * 8,
            proof=("attention fused in 12 of 12 blocks (Half)", "72 of 72 encoder GEMMs in Int8"),
            verified_on=() if name.endswith("sm89") else (_verified(),),
        )
        for name, sms in (("tensorrt-rtx", (86, 89, 120)), ("tensorrt-rtx-sm89", (89,)))
    }
    return replace(
        content(CONTRACT),
        model=ModelRecord(
            "google/vivit-b-16x2-kinetics400",
            88_636_816,
            BLOCKS,
            {},
            vivit(BLOCKS),
            "c" * 40,
            {"model.safetensors": "dc259cb5" * 8},
        ),
        precision=PrecisionRecord(
            Precision.INT8,
            "pattern",
            20,
            {"classifier": "float16", "embeddings.projection": "float16", **types},
            {"layernorm": 24, "key-bias": 12},
            largest_weight=LargestWeight("layers.1.mlp.fc2.weight", 4.25),
            subnormal_weights=0.0012,
            float32_ops=tuple(f"layers.{i}.attention/Softmax" for i in range(BLOCKS)),
            quantization=_quantization(list(types)),
        ),
        engines=engines,
        checks=_checks(clips, worst),
        bench=_bench(),
    )


def save_golden(path: Path, clips: int) -> None:
    """Write golden clips of that contract: a square that moves over a mottled ground, different in each."""
    coarse = np.random.default_rng(0).integers(0, 256, (clips, 6, 8, 3), np.uint8)
    grounds = [Image.fromarray(ground).resize((CLIP.width, CLIP.height), Image.Resampling.BICUBIC) for ground in coarse]
    frames = np.stack([np.asarray(ground) for ground in grounds])[:, None].repeat(CLIP.num_frames, 1)
    for clip in range(clips):
        for frame in range(CLIP.num_frames):
            frames[clip, frame, 10:30, 5 * frame : 5 * frame + 20] = (clip % 256, 255 - clip % 256, 128)
    save_file({"frames": frames, "logits": np.zeros((clips, 3), np.float32)}, path)


def _checks(clips: int, worst: float) -> DriftReport:
    drift = Drift(clips, 1.0, 1.0, 0, 0, 5 * worst, worst, worst / 4, 2.4e-05, 0.9999851, None, 0)
    runs = (
        Run("eager fp16", 1, False, replace(drift, max=0.0003)),
        Run("onnxruntime 1.32.0 cpu", 1, True, replace(drift, max=0.002)),
        Run("onnxruntime 1.32.0 cpu", 8, True, drift),
        Run("tensorrt-rtx on NVIDIA L4", 1, True, None, "not run: this machine has no NVIDIA GPU"),
    )
    names = tuple(f"kinetics/clip_{i:05d}.mp4" for i in range(clips))
    share = Share(0.75, 0.41, 0.93)
    return DriftReport(
        "eager fp32, PyTorch 2.13.0+cpu",
        CheckedClips("videos in kinetics/val", names),
        GATE,
        runs,
        (Parity("the runtime", "VivitImageProcessor", 786432, 0, 0.0),),
        tuple(BlockDrift(f"layers.{i}", 1e-4 * (i + 1), 1e-3 * (i + 1)) for i in range(BLOCKS)),
        _taps(),
        _view(names, worst),
        Accuracy("labels.csv", clips, share, share, (RunAccuracy(2, share, share, 1, 0, 1.0),)),
    )


def _verified() -> Verification:
    drift = Drift(8, 1.0, 1.0, 0, 0, 0.02, 0.0041, 0.001, 2.4e-05, 0.9999851, None, 0)
    batches = tuple(BatchDrift(batch, drift) for batch in (1, 4, 8))
    return Verification("NVIDIA L4", "580.65.06, CUDA 13.0", {"tensorrt-rtx": "1.7.1.116"}, 8, batches)


def _view(names: tuple[str, ...], worst: float) -> ClipView:
    """One clear flip, one near flip, and drift that falls from clip to clip."""
    drift = tuple(worst / (1 + 0.15 * i) for i in range(len(names)))
    kinds: dict[int, Flip] = {0: "clear", 3: "near"}
    flips = tuple(kinds.get(i, "none") for i in range(len(names)))
    order = sorted(range(len(names)), key=lambda i: (("clear", "near", "none").index(flips[i]), i))[:120]
    clips = tuple(_clip(names[i], flips[i], drift[i]) for i in order)
    groups = (Stratum("archery", len(names) - 1, 1, 0, worst), Stratum("zumba", 1, 0, 0, worst / 2))
    margins = tuple(0.01 if flip == "near" else 0.4 for flip in flips)
    strata = (Strata("class", groups), Strata("fps", tuple(replace(group, value="25") for group in groups), 3))
    return ClipView("logits", 0.1, clips, 0, drift, margins, flips, strata)


def _clip(name: str, flip: Flip, drift: float) -> ClipDrift:
    first, second = Score("archery", 4.1, 0.612), Score("zumba", 3.2, 0.249)
    others = (Score("abseiling", 1.0, 0.1),)
    ours = (first, second) if flip == "none" else (second, first)
    margin = 0.01 if flip == "near" else 0.4
    where = () if flip == "none" else (0, 2)
    facts = (5 * drift, drift, 1e-4, 0.9999, None, 0)
    return ClipDrift(name, 2, flip, (), where, margin, *facts, (first, second, *others), (*ours, *others), "archery")


def _taps() -> TapReport:
    names = ["embeddings", *(f"layer {i} {half}" for i in range(BLOCKS) for half in ("attention", "MLP")), "logits"]
    taps = []
    for i, name in enumerate(names):
        small, large = TapError(2e-4 * (i + 1), 0.99999, 0.01, 0.005), TapError(4e-3 * (i + 1), 0.999, 0.1, 0.08)
        taps.append(Tap(name, small, large, large))
    beyond = next(i for i, tap in enumerate(taps) if tap.cause)
    suspect = Suspect(names[beyond], "graph", names[beyond - 1], ("a", "b"), ("a",), "keep_fp16", "layers.9.*")
    return TapReport("onnxruntime 1.32.0 cpu", Precision.FP16, tuple(taps), suspect)


def _quantization(names: list[str]) -> QuantizationRecord:
    layers = {name: QuantizedLayer("int8", (name,), 3.5, 2e-5, 98, True, Smoothing(0.5, "free")) for name in names}
    effects = tuple(LayerEffect(name, 2e-5, 4e-4 / (i + 1), 1e-3, 0.02) for i, name in enumerate(names))
    return QuantizationRecord("mse", ClipsRecord("kinetics/train", 256, 0, {"bad.mp4": "too short"}), layers, effects)


def _bench() -> BenchRecord:
    fast = Figures(50, 6.1, 6.3, 6.4, 7.2, 163.9, 0.01, 21.4, 20.9, 22.0, 5.6, 22.0)
    eager = Figures(50, 130.4, 133.0, 134.1, 138.7, 7.7, 0.2, 1.0, 1.0, 1.0)
    steps = {"open": 0.004, "decode": 0.0312, "preprocess": 0.0021, "run": 0.0061}
    return BenchRecord(
        Machine("AMD EPYC 9654", 16, 0.41, "Linux-6.1", "3.11.7"),
        50,
        False,
        "loading, and reading videos",
        "eager",
        {
            "tensorrt-rtx": ContenderRecord(
                "tensorrt-rtx", {"1": fast, "4": fast}, 900_000_000, steps, "", 410_000_000
            ),
            "eager": ContenderRecord("PyTorch", {"1": eager}, 1_900_000_000, {**steps, "run": 0.1304}),
            "openvino": ContenderRecord("openvino", error="this bundle is in int8, which openvino does not run"),
        },
    )
