"""What is refused of a TimeSformer."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import pytest
from checkpoints import edit_config, refusal
from family_checkpoints import folder


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
