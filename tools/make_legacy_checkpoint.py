"""Make tests/data/*-4.*: tiny checkpoints written by transformers 4.46.3 or 4.57.6, and that version's own logits.

transformers 4.x has other module names than 5.x, lacks some config fields, and is what most
checkpoints on the hub were saved with. It cannot live beside 5.x, so this installs it into a
temporary folder and runs itself again with that folder first on the path::

    python tools/make_legacy_checkpoint.py [vivit] [videomae] [timesformer] [vjepa2]

The files are committed: tests need neither the network nor the old version.
"""

from __future__ import annotations

import json
import math
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

DATA = Path(__file__).parents[1] / "tests/data"
_CONFIG: dict[str, Any] = {
    "num_labels": 5,
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 48,
    "image_size": 16,
    "num_frames": 4,
}
FAMILIES: dict[str, tuple[str, dict[str, Any]]] = {
    "vivit": ("Vivit", {**_CONFIG, "tubelet_size": [2, 8, 8]}),
    "videomae": ("VideoMAE", {**_CONFIG, "patch_size": 8}),
    "timesformer": ("Timesformer", {**_CONFIG, "patch_size": 8}),
    "vjepa2": (
        "VJEPA2",
        {
            "num_labels": 5,
            "hidden_size": 32,
            "num_hidden_layers": 2,
            "num_attention_heads": 2,
            "mlp_ratio": 1.5,
            "num_pooler_layers": 1,
            "crop_size": 16,
            "patch_size": 8,
            "frames_per_clip": 4,
            "pred_hidden_size": 24,
            "pred_num_attention_heads": 2,
            "pred_num_hidden_layers": 1,
        },
    ),
}
"""How the names of each family's classes begin in transformers, and its config."""
_PACKAGES = {
    "4.46.3": ["tokenizers==0.20.3", "huggingface_hub==0.26.2", "requests"],
    "4.57.6": ["tokenizers==0.22.1", "huggingface_hub==0.36.0", "requests"],
}


def version(family: str) -> str:
    """Return the version of transformers that writes a family: V-JEPA 2 came with 4.53."""
    return "4.57.6" if family == "vjepa2" else "4.46.3"


_WRITE = "--write"


def main(families: list[str]) -> None:
    """Install the old versions in throw-away folders and run `write` with each."""
    for number, packages in _PACKAGES.items():
        chosen = [family for family in families if version(family) == number]
        if not chosen:
            continue
        with tempfile.TemporaryDirectory() as site:
            install = [sys.executable, "-m", "pip", "install", "--quiet", "--target", site]
            subprocess.run([*install, f"transformers=={number}", *packages], check=True)
            environment = {**os.environ, "PYTHONPATH": site, "HF_HUB_OFFLINE": "1"}
            subprocess.run([sys.executable, __file__, _WRITE, *chosen], check=True, env=environment)


def write(family: str) -> None:
    """Write the checkpoint, and ``expected.json``: the logits of two clips whose values are exact in float32."""
    import torch
    import transformers
    from make_checkpoint import make, randomize, write_video_processor

    assert transformers.__version__ == version(family)
    out, (begin, config) = DATA / f"{family}-{version(family).rpartition('.')[0]}", FAMILIES[family]
    network = getattr(transformers, f"{begin}ForVideoClassification")
    if family == "vivit":
        make(out, **config)
    else:
        model = network(getattr(transformers, f"{begin}Config")(**config)).eval()
        randomize(model, 0)
        model.save_pretrained(out)
        size = {"size": {"shortest_edge": 16}, "crop_size": {"height": 16, "width": 16}}
        if family == "vjepa2":
            write_video_processor(out, 16)
        else:
            transformers.VideoMAEImageProcessor(**size).save_pretrained(out)
    (out / "model.safetensors").chmod(0o644)
    model = network.from_pretrained(out, attn_implementation="eager").eval()
    shape = (2, 4, 3, 16, 16)
    pixels = ((torch.arange(math.prod(shape)) * 37 % 257 - 128) / 64).reshape(shape)
    with torch.inference_mode():
        logits = model(pixels).logits
    expected = {"transformers": version(family), "pixels": "(arange * 37 % 257 - 128) / 64", "shape": shape}
    (out / "expected.json").write_text(json.dumps({**expected, "logits": logits.tolist()}, indent=2) + "\n")


if __name__ == "__main__":
    if sys.argv[1:2] == [_WRITE]:
        for each in sys.argv[2:]:
            write(each)
    else:
        main(sys.argv[1:] or list(FAMILIES))
