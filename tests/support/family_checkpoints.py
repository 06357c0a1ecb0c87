"""Tiny checkpoints of every family, and what holds for each of them."""

from __future__ import annotations

import json
from functools import cache
from pathlib import Path
from tempfile import mkdtemp
from typing import Any

import make_checkpoint
import numpy as np
import numpy.typing as npt
import onnx_ir as ir
import torch
import transformers
from checkpoints import TINY, normal_pixels
from traces import traced_once

from vivit_export.export.checkpoint.load import Checkpoint, load_checkpoint
from vivit_export.families.networks.vivit_factorised_modeling import register

_FACTORISED: dict[str, Any] = {**TINY, "num_hidden_layers": 2}
_TINY = {name: value for name, value in _FACTORISED.items() if name != "tubelet_size"}
_VJEPA2: dict[str, Any] = {
    "hidden_size": 64,
    "num_attention_heads": 4,
    "num_hidden_layers": 2,
    "num_pooler_layers": 2,
    "mlp_ratio": 2,
    "crop_size": 16,
    "patch_size": 8,
    "frames_per_clip": 4,
    "pred_hidden_size": 48,
    "pred_num_attention_heads": 4,
    "pred_num_hidden_layers": 1,
    "num_labels": TINY["num_labels"],
}
CASES: dict[str, tuple[str, dict[str, Any]]] = {
    "videomae": ("videomae", {**_TINY, "patch_size": 8}),
    "videomae-first-token": ("videomae", {**_TINY, "patch_size": 8, "use_mean_pooling": False, "qv_bias": False}),
    "timesformer": ("timesformer", {**_TINY, "patch_size": 8}),
    "timesformer-no-bias": ("timesformer", {**_TINY, "patch_size": 8, "qkv_bias": False}),
    "encoder": ("vivit_factorised", {**_FACTORISED, "temporal_num_hidden_layers": 2}),
    "self-attention": ("vivit_factorised", {**_FACTORISED, "factorisation": "self_attention"}),
    "space-first": (
        "vivit_factorised",
        {**_FACTORISED, "factorisation": "self_attention", "attention_order": "space_time"},
    ),
    "vjepa2": ("vjepa2", _VJEPA2),
    "vjepa2-no-bias": ("vjepa2", {**_VJEPA2, "qkv_bias": False, "hidden_act": "gelu_pytorch_tanh"}),
    "dot-product": ("vivit_factorised", {**_FACTORISED, "factorisation": "dot_product"}),
}
"""By name: the family, and the fields of its config."""


@cache
def folder(case: str, *, headless: bool = False) -> Path:
    """Return the folder of a checkpoint; not to be written to."""
    out = Path(mkdtemp(prefix=f"{case}-"))
    family, fields = CASES[case]
    make_checkpoint.make_other(family, out, **fields)
    if headless:
        register()
        network = transformers.AutoModelForVideoClassification.from_pretrained(out)
        getattr(network, network.base_model_prefix).save_pretrained(out)
    return out


@cache
def loaded(case: str, *, headless: bool = False) -> Checkpoint:
    """Return a loaded checkpoint; not to be modified."""
    return load_checkpoint(str(folder(case, headless=headless)))


def traced(case: str, *, headless: bool = False) -> ir.Model:
    """Return a copy of the traced graph."""
    checkpoint = loaded(case, headless=headless)
    return traced_once(checkpoint, ("logits", "embedding") if checkpoint.has_head else ("embedding",))


@torch.inference_mode()
def expected_logits(case: str, num_clips: int = 2) -> npt.NDArray[np.float64]:
    """Return the logits of transformers' own loading and attention, in float64."""
    register()
    pixels = torch.from_numpy(normal_pixels(loaded(case), num_clips)).double()
    name = json.loads((folder(case) / "config.json").read_text())["model_type"]
    attention = "sdpa" if name == "vivit_factorised" else "eager"  # whose softmax is in float32 for ViViT's modules
    network = transformers.AutoModelForVideoClassification.from_pretrained(
        folder(case), dtype=torch.float64, attn_implementation=attention
    )
    logits: npt.NDArray[np.float64] = network.eval()(pixels).logits.numpy()
    return logits
