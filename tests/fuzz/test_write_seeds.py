"""The seeds are what the tool writes today."""

from __future__ import annotations

from pathlib import Path

import pytest
import write_seeds
from console import tree


def test_the_seeds_are_up_to_date(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    kept = tree(write_seeds.SEEDS)
    monkeypatch.setattr(write_seeds, "SEEDS", tmp_path)
    write_seeds.main()
    assert tree(tmp_path) == kept, "run: PYTHONPATH=.:tests/support:fuzz python fuzz/write_seeds.py"
