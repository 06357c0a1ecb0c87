"""The peers' processes: our bundle in a CPU engine's precision, timed and run for its logits."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from bundles import Bundles, need

from vivit_export.runtime.bench.run import take_turns

WORKER = str(Path(__file__).parents[2] / "benchmarks/peer_worker.py")


@pytest.mark.needs_onnxruntime
def test_a_bundle_competes_in_the_precision_asked_for(bundles: Bundles, tmp_path: Path) -> None:
    need("openvino")
    folder, golden = str(bundles.demo().path), bundles.golden
    of = {"fp32": ["bundle", folder, "openvino"], "bf16": ["bundle", folder, "openvino", "bf16"]}
    report = take_turns({name: [WORKER, *of[name]] for name in of}, rounds=1, warmup=0, anyway=True)
    plain, narrow = report.contenders
    if "this CPU has no bf16" in narrow.error:
        pytest.skip(narrow.error)
    assert ", fp32" in plain.engine and ", bf16 arithmetic on fp32 weights" in narrow.engine
    np.save(tmp_path / "crops.npy", golden["frames"])
    np.save(tmp_path / "pixels.npy", golden["frames"])  # not read for a bundle
    logits = {}
    for name, arguments in of.items():
        subprocess.run([sys.executable, WORKER, "logits", str(tmp_path), *arguments], check=True)
        logits[name] = np.load(tmp_path / "logits.npy")
    error = {name: np.abs(found - golden["logits"]).max() for name, found in logits.items()}
    assert error["fp32"] < 1e-3 < error["bf16"] < 0.5
