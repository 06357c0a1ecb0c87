"""The trainer of the demo checkpoint, for one step: what it writes can be exported."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
import train_demo
from click.testing import CliRunner

from vivit_export.demo.motion import LABELS
from vivit_export.export.checkpoint.load import load_checkpoint


@pytest.fixture(autouse=True)
def settings_of_torch(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The trainer sets what holds for the whole process."""
    monkeypatch.setattr(train_demo, "HELD_OUT_CLIPS", 8)
    threads = torch.get_num_threads()
    yield
    torch.set_num_threads(threads)
    torch.use_deterministic_algorithms(False)


def test_a_factorised_encoder_is_trained_on_the_same_clips(tmp_path: Path) -> None:
    done = CliRunner().invoke(train_demo.main, ["--factorised", "--steps", "1", "--out", str(tmp_path / "made")])
    assert done.exit_code == 0, done.output
    assert (tmp_path / "made/model.safetensors").stat().st_size <= 2_500_000
    checkpoint = load_checkpoint(str(tmp_path / "made"))
    assert checkpoint.config["model_type"] == "vivit_factorised" and checkpoint.labels == LABELS
    assert [stack.blocks for stack in checkpoint.anatomy.stacks] == [2, 2] and not checkpoint.notes
    record = json.loads((tmp_path / "made/training.json").read_text())
    assert record["steps"] == 1 and 0 <= record["held_out"]["accuracy"] <= 1
