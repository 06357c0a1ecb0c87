"""The session on OpenVINO: arithmetic in bf16 where it is asked for."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from bundles import Bundles, need, random_crops

import vivit_export as ve
from vivit_export.errors import EnvironmentFault


def has_bf16() -> bool:
    """Whether this processor says that it multiplies in bf16."""
    return bool(re.search(r"\b(avx512_bf16|amx_bf16|bf16)\b", Path("/proc/cpuinfo").read_text()))


def test_bf16_arithmetic_only_when_asked_for(bundles: Bundles) -> None:
    need("onnxruntime", "openvino")
    bundle = bundles.demo()
    clips = random_crops(bundle, 2)
    if not has_bf16():
        with pytest.raises(EnvironmentFault, match="openvino: this CPU has no bf16 arithmetic: OpenVINO would compute"):
            ve.open_session(bundle, cpu_precision="bf16")
        return
    with ve.open_session(bundle, device="cpu") as exact, ve.open_session(bundle, cpu_precision="bf16") as fast:
        assert "fp32" in exact.details
        assert (fast.engine, fast.passed_over["onnxruntime-cpu"] != "") == ("openvino", True)
        assert "bf16" in fast.details
        assert abs(exact.infer(clips) - fast.infer(clips)).max() < 0.3
    with pytest.raises(EnvironmentFault, match="no bf16 arithmetic on the CPU; use openvino"):
        ve.open_session(bundle, prefer="onnxruntime-cpu", cpu_precision="bf16")
