"""Drift block by block: none before a damaged weight, and all that comes behind it."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from bundles import Bundles
from damage import damage

from vivit_export.export.recheck import check

pytestmark = pytest.mark.needs_onnxruntime


def test_drift_of_a_block_shows_where_it_begins(bundles: Bundles, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(bundles.demo(check=True, num_clips=3, precision="fp32").path, tmp_path / "copy"))
    damage(folder, "layers.2.mlp.fc1.weight", 1.01)
    report = check(folder, against="eager", num_clips=1, per_block=True)
    before, behind = [b.rms for b in report.blocks[:2]], [b.rms for b in report.blocks[2:]]
    assert max(before) < 1e-5 < 1e-4 < min(behind)
