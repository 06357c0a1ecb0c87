"""Make tests/data/*-4.46: tiny checkpoints written by transformers 4.46.3, and that version's own logits.

transformers 4.x has other module names than 5.x, lacks some config fields, and is what most
checkpoints on the hub were saved with. It cannot live beside 5.x, so this installs it into a
temporary folder and runs itself again with that folder first on the path::

    python tools/make_legacy_checkpoint.py [vivit] [videomae] [timesformer]

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

VERSION = "4.46.3"
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
}
"""How the names of each family's classes begin in transformers, and its config."""
_PACKAGES = [f"transformers=={VERSION}", "tokenizers==0.20.3", "huggingface_hub==0.26.2", "requests"]
_WRITE = "--write"


def main(families: list[str]) -> None:
    """Install the old version in a throw-away folder and run `write` with it."""
    with tempfile.TemporaryDirectory() as site:
        install = [sys.executable, "-m", "pip", "install", "--quiet", "--target", site, *_PACKAGES]
        subprocess.run(install, check=True)
        environment = {**os.environ, "PYTHONPATH": site, "HF_HUB_OFFLINE": "1"}
        subprocess.run([sys.executable, __file__, _WRITE, *families], check=True, env=environment)


def write(family: str) -> None:
    """Write the checkpoint, and ``expected.json``: the logits of two clips whose values are exact in float32."""
    import torch
    import transformers
    from make_checkpoint import make, randomize

    assert transformers.__version__ == VERSION
    out, (begin, config) = DATA / f"{family}-4.46", FAMILIES[family]
    network = getattr(transformers, f"{begin}ForVideoClassification")
    if family == "vivit":
        make(out, **config)
    else:
        model = network(getattr(transformers, f"{begin}Config")(**config)).eval()
        randomize(model, 0)
        model.save_pretrained(out)
        size = {"size": {"shortest_edge": 16}, "crop_size": {"height": 16, "width": 16}}
        transformers.VideoMAEImageProcessor(**size).save_pretrained(out)
    (out / "model.safetensors").chmod(0o644)
    model = network.from_pretrained(out, attn_implementation="eager").eval()
    shape = (2, 4, 3, 16, 16)
    pixels = ((torch.arange(math.prod(shape)) * 37 % 257 - 128) / 64).reshape(shape)
    with torch.inference_mode():
        logits = model(pixels).logits
    expected = {"transformers": VERSION, "pixels": "(arange * 37 % 257 - 128) / 64", "shape": shape}
    (out / "expected.json").write_text(json.dumps({**expected, "logits": logits.tolist()}, indent=2) + "\n")


if __name__ == "__main__":
    if sys.argv[1:2] == [_WRITE]:
        for each in sys.argv[2:]:
            write(each)
    else:
        main(sys.argv[1:] or list(FAMILIES))
