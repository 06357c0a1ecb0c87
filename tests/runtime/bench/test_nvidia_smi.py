"""What ``nvidia-smi`` says, and nothing where there is none."""

from __future__ import annotations

from pathlib import Path

import pytest

from vivit_export.runtime.bench import nvidia_smi


def test_clocks_and_memory_are_read_where_there_is_a_gpu(smi: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert nvidia_smi.gpu_clocks() == "NVIDIA H200, 1980 MHz, 1980 MHz, 3201 MHz, 40"
    assert nvidia_smi.gpu_used_bytes() == 1000 << 20
    smi.write_text("[N/A]\n")
    assert nvidia_smi.gpu_used_bytes() is None
    monkeypatch.setenv("PATH", str(smi.parent / "nowhere"))
    assert (nvidia_smi.gpu_clocks(), nvidia_smi.gpu_used_bytes()) == ("", None)
