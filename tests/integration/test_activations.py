"""Checkpoints with each activation of transformers, exported from end to end: right, and reported."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from checkpoints import Checkpoints

import vivit_export as ve
from vivit_export.report.text import summary_text

ACTIVATIONS = ("gelu", "gelu_new", "gelu_fast", "gelu_pytorch_tanh", "relu", "silu")


@pytest.mark.needs_onnxruntime
@pytest.mark.parametrize(
    "fields",
    [*({"hidden_act": name} for name in ACTIVATIONS), {"qkv_bias": False}],
    ids=lambda f: next(iter(f.values())),
)
def test_every_activation_is_exported_and_what_matched_is_told(
    checkpoints: Checkpoints, tmp_path: Path, fields: dict[str, Any]
) -> None:
    """The check inside compares it with eager on real clips; a random network's top-1 proves nothing, the rest does."""
    source = checkpoints.folder(num_hidden_layers=2, **fields)
    bundle = ve.export_model(
        str(source), tmp_path / "out", precision="fp16", targets=("onnx",), gate="top1=0.5,max=0.01", num_clips=2
    )
    counts = bundle.manifest.precision.rewrites
    per_block = dict.fromkeys(("attention-scale", "key-bias", "value-bias", "query-bias"), 2)
    assert counts == {"patch-embedding": 1, "layernorm": 4, **per_block, "class-token": 1}
    (line,) = (line for line in summary_text(bundle).splitlines() if line.startswith("  rewrites"))
    assert " of " not in line
