"""A small bundle whose manifest has every section, and ways to change it and then make all hashes right again."""

from __future__ import annotations

import hashlib
import json
import resource
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

from made_records import engine_record

from vivit_export.bundle import Bundle, read_bundle, write_manifest
from vivit_export.bundle.accuracy import Accuracy, RunAccuracy, Share
from vivit_export.bundle.baseline import Baseline
from vivit_export.bundle.bench import BenchRecord, ContenderRecord, Figures, Machine
from vivit_export.bundle.checks import BlockDrift, CheckedClips, Drift, DriftReport, Gate, Parity, Run
from vivit_export.bundle.clip_view import ClipDrift, ClipView, Score, Strata, Stratum, VideoFacts
from vivit_export.bundle.engines import Gemm, LayerRecord, Profile
from vivit_export.bundle.manifest import (
    ClipsRecord,
    Content,
    Declined,
    LargestWeight,
    LayerEffect,
    QuantizationRecord,
    QuantizedAttention,
    QuantizedLayer,
    Smoothing,
)
from vivit_export.records import to_json
from vivit_export.report.html import write_report

SMALL = Path(__file__).parents[1] / "data/vivit-bundle-1"
SECONDS = 2.0
"""How long an attack may take, on a machine that does nothing else."""
BYTES = 500e6
"""How much memory it may take."""


def make(folder: Path) -> Path:
    """Write the bundle: fp16 and a few kilobytes, with one made-up engine."""
    shutil.copytree(SMALL, folder)
    bundle = read_bundle(folder)
    record = engine_record(profiles=(Profile(1, 2, 4),), onnx_sha256=bundle.manifest.files["model.onnx"].sha256, size=4)
    record = replace(record, plan=replace(record.plan, gemm_layers=(Gemm("a", "Half", ("b",), True),)))
    (folder / "engines").mkdir()
    (folder / "engines/rtx.plan").write_bytes(b"plan")
    layer = LayerRecord("a", "gemm", ("Half[-1,4] x",), ("Half[4,4] w",), ("Half[-1,4] y",), "t", ("n",))
    sidecar = {**to_json(record), "layers": [to_json(layer)]}
    (folder / "engines/rtx.json").write_text(json.dumps(sidecar), encoding="utf-8")
    content = _rich(bundle.manifest.content)
    write_manifest(folder, replace(content, engines={"rtx": record}))
    write_report(folder, replace(content, engines={"rtx": record}))
    reseal(folder)
    return folder


def _rich(content: Content) -> Content:
    drift = Drift(2, 1.0, 1.0, 0, 0, 0.1, 0.01, 0.01, 0.001, 0.99, 0.99, 0)
    runs = (Run("onnxruntime", 1, True, drift), Run("tensorrt", 2, False, None, "no GPU"))
    parity = (Parity("ours", "theirs", 10, 0, 0.0),)
    blocks = (BlockDrift("encoder.layer.0", 0.1, 0.2),)
    score = Score("walk", 1.0, 0.9)
    clip = ClipDrift("a.mp4", 0, "near", ("walk",), (0,), 0.01, 0.1, 0.01, 0.1, 0.9, 0.9, 0, (score,), (score,), "walk")
    strata = (Strata("class", (Stratum("walk", 1, 1, 0, 0.01), Stratum("run", 1, 0, 0, 0.0)), 1),)
    view = ClipView("logits", 0.02, (clip,), 0, (0.01,), (0.01,), ("near",), strata)
    share = Share(0.5, 0.1, 0.9)
    accuracy = Accuracy("labels.csv", 2, share, share, (RunAccuracy(0, share, share, 1, 0, 1.0),))
    baseline = Baseline("old.json", 1, 1, 0, 1.1, ("a new clear flip",))
    clips = CheckedClips("mine", ("a.mp4",), (VideoFacts(64, 48, 25.0, 1.0, "h264"),))
    told = DriftReport("eager fp32", clips, Gate({"max": 1.0}), runs, parity, blocks)
    checks = replace(told, view=view, accuracy=accuracy, baseline=baseline)
    figures = Figures(5, 1.0, 2.0, 3.0, 4.0, 9.0, 0.1, 1.0, 0.9, 1.1, 0.5, 1.0)
    contender = ContenderRecord("e", {"1": figures}, 5, {"decode": 0.1}, "1 GHz", 1, 1, ("max",), "late")
    bench = BenchRecord(Machine("cpu", 2, 0.5, "linux", "3.11"), 5, False, "nothing", "a", {"a": contender})
    layer = QuantizedLayer("int8", ("q",), 1.0, 0.1, 99, True, Smoothing(0.5, "mul"))
    quantization = QuantizationRecord(
        "mse",
        ClipsRecord("clips", 2, 0, {"a.mp4": "short"}),
        {"q": layer},
        (LayerEffect("q", 0.1, 0.1, 0.1, 0.5),),
        QuantizedAttention("fp8", {"block": 1.0}, 0.004),
    )
    precision = replace(
        content.precision,
        declined=(Declined("fold", "n", "why"),),
        largest_weight=LargestWeight("w", 2.0),
        float32_ops=("n",),
        quantization=quantization,
    )
    return replace(content, checks=checks, bench=bench, precision=precision)


def reseal(folder: Path) -> Bundle:
    """Make every size and hash right for the files that are there now."""
    edit(folder, lambda manifest: None)
    return read_bundle(folder)


def edit(folder: Path, change: Callable[[dict[str, Any]], object]) -> None:
    """Change the manifest as parsed JSON, after its list of files was made right."""
    path = folder / "bundle.json"
    manifest = json.loads(path.read_text(encoding="utf-8"))
    names = sorted(p.relative_to(folder).as_posix() for p in folder.rglob("*") if p.is_file() and p != path)
    manifest["files"] = {name: entry(folder / name) for name in names}
    change(manifest)
    path.write_text(json.dumps(manifest), encoding="utf-8")


def entry(file: Path) -> dict[str, Any]:
    """Describe a file as the manifest does."""
    data = file.read_bytes()
    return {"sha256": hashlib.sha256(data).hexdigest(), "size": len(data)}


@contextmanager
def within_limits(seconds: float | None = SECONDS) -> Iterator[None]:
    """Measure an attack in this process: processor time of all threads (None: any), and growth of its memory."""
    usage = resource.getrusage(resource.RUSAGE_SELF)
    start, peak = usage.ru_utime + usage.ru_stime, usage.ru_maxrss
    yield
    usage = resource.getrusage(resource.RUSAGE_SELF)
    assert seconds is None or usage.ru_utime + usage.ru_stime - start < seconds
    assert 1024 * (usage.ru_maxrss - peak) < BYTES
