"""What is refused of a TimeSformer."""

from __future__ import annotations

import re
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from checkpoints import edit_config, normal_pixels, refusal
from family_checkpoints import folder

from vivit_export.export.checkpoint.load import load_checkpoint


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"attention_type": "space_only"}, "attention_type 'space_only' is not supported; .* divided_space_time"),
        ({"attention_type": ["joint"]}, "attention_type .* is not supported"),
        ({"qkv_bias": None}, "qkv_bias must be true or false, got None"),
        ({"image_size": [16, 16]}, "image_size and patch_size of a TimeSformer must be one number each"),
        ({"num_frames": 8}, "weight .*time_embeddings has shape .* but"),
    ],
    ids=str,
)
def test_another_form_is_refused(tmp_path: Path, fields: dict[str, object], said: str) -> None:
    copy = Path(shutil.copytree(folder("timesformer"), tmp_path / "copy"))
    edit_config(copy, **fields)
    sentence = refusal(copy)
    assert re.search(said, sentence), sentence


@pytest.mark.parametrize("kind", ["eager", "sdpa"])
def test_attention_is_timed_as_it_was_asked_for(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Transformers has it written out; through SDPA it is the same function."""
    checkpoint = load_checkpoint(str(folder("timesformer")))
    pixels = normal_pixels(checkpoint, 1)
    expected = checkpoint.run_eager(pixels)["logits"]
    calls = []
    attention = torch.nn.functional.scaled_dot_product_attention

    def counted(*given: Any, **options: Any) -> torch.Tensor:
        calls.append(1)
        return attention(*given, **options)

    monkeypatch.setattr(torch.nn.functional, "scaled_dot_product_attention", counted)
    checkpoint.adapter.attend(checkpoint.network, kind)
    found = checkpoint.run_eager(pixels)["logits"]
    assert len(calls) == (checkpoint.anatomy.num_attentions if kind == "sdpa" else 0)
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-5)
