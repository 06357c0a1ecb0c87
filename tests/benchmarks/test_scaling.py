"""Growth with calibration clips: measured alone, it joins what was measured before."""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@pytest.mark.needs_onnxruntime
def test_calibration_alone_joins_the_other_series(tmp_path: Path, preloaded: Path) -> None:
    path = Path(shutil.copy(ROOT / "benchmarks/results/scaling.json", tmp_path))
    before = json.loads(path.read_text())
    options = ["--calibration-only", "--calibrate", "demo", "--clips", "1,3", "--results", str(tmp_path)]
    command = [str(preloaded / "python"), str(ROOT / "benchmarks/scaling.py"), *options]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    after = json.loads(path.read_text())
    assert {name: after[name] for name in before if name not in ("exponents", "calibration")} == {
        name: before[name] for name in before if name not in ("exponents", "calibration")
    }
    assert {"layers", "tokens", "batch", "clips"} == set(after["exponents"])
    calibration = after["calibration"]
    assert (calibration["layers"], set(calibration["rows"])) == (4, {"1", "3"})
    for row in calibration["rows"].values():
        assert row["calibration_seconds"] > 0 and row["ranges_seconds"] > 0
        assert 1e8 < row["calibration_peak_bytes"] < 4e9
