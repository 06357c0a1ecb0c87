"""Tiny ViViT checkpoints, made in code: one layer of width 32 unless a test asks for more.

Weights come from ``tools/make_checkpoint.py``, so that every bias, the class token, the position
embeddings and the LayerNorm affines matter.
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import make_checkpoint
import numpy as np
import numpy.typing as npt
import onnx_ir as ir
import outliers as outliers
import pytest
import torch
import transformers
from traces import traced_once

from vivit_export.errors import CheckpointError
from vivit_export.export.checkpoint.load import Checkpoint, load_checkpoint

ROOT = Path(__file__).parents[2]
LEGACY = ROOT / "tests/data/vivit-4.46"
FACTORISED = ROOT / "tests/data/factorised"
"""A factorised encoder that was trained on the demo's task: ``tools/train_demo.py --factorised``."""

TINY: dict[str, Any] = {
    "num_labels": 5,
    "hidden_size": 32,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "intermediate_size": 48,
    "image_size": 16,
    "num_frames": 4,
    "tubelet_size": [2, 8, 8],
}

Float32 = npt.NDArray[np.float32]


class Checkpoints:
    """Makes, loads and traces each checkpoint once; it is named by the config fields that differ from `TINY`."""

    def __init__(self, root: Path) -> None:
        self._root = root
        self._folders: dict[str, Path] = {}
        self._loaded: dict[str, Checkpoint] = {}

    def folder(self, *, headless: bool = False, **fields: Any) -> Path:
        """Folder of a checkpoint, shared by all tests: not to be written to."""
        key = _key(headless, fields)
        if key not in self._folders:
            out = self._root / str(len(self._folders))
            make_checkpoint.make(out, **{**TINY, **fields})
            if headless:
                _remove_head(out)
            self._folders[key] = out
        return self._folders[key]

    def copy(self, to: Path, **fields: Any) -> Path:
        """A copy of one that a test may damage."""
        return Path(shutil.copytree(self.folder(**fields), to))

    def load(self, **fields: Any) -> Checkpoint:
        """A loaded checkpoint, shared by all tests: not to be modified."""
        key = _key(fields.get("headless", False), fields)
        if key not in self._loaded:
            self._loaded[key] = load_checkpoint(str(self.folder(**fields)))
        return self._loaded[key]

    def trace(self, **fields: Any) -> ir.Model:
        """A fresh copy of its traced graph, with all outputs it has."""
        checkpoint = self.load(**fields)
        return traced_once(checkpoint, ("logits", "embedding") if checkpoint.has_head else ("embedding",))


def _key(headless: bool, fields: dict[str, Any]) -> str:
    defaults = {**TINY, "hidden_act": "gelu_fast"}
    different = {name: value for name, value in fields.items() if defaults.get(name) != value}
    return json.dumps({**different, "headless": headless}, sort_keys=True)


@torch.no_grad()
def _remove_head(folder: Path) -> None:
    """Save the encoder alone, with a pooler, as ``VivitModel`` does."""
    model = transformers.VivitModel(transformers.VivitConfig.from_pretrained(folder)).eval()
    make_checkpoint.randomize(model, seed=0)
    model.save_pretrained(folder)


def normal_pixels(checkpoint: Checkpoint, num_clips: int, seed: int = 0) -> Float32:
    """N(0, 1) pixel values (N, T, 3, H, W)."""
    clip = checkpoint.clip
    shape = (num_clips, clip.num_frames, 3, clip.height, clip.width)
    return np.random.default_rng(seed).standard_normal(shape, dtype=np.float32)


def assert_as_hugging_face(got: dict[str, Float32], folder: Path, pixels: Float32) -> None:
    """Results are those of transformers' own loading and "eager" attention in float64, up to float32 rounding."""
    expected = _hugging_face_outputs(folder, pixels)
    assert got.keys() == expected.keys()
    for name, array in got.items():
        assert array.dtype == np.float32
        # Relative to the range of values; 15 tiny networks came to at most 6e-7.
        np.testing.assert_allclose(array, expected[name], rtol=0, atol=2e-6 * np.ptp(expected[name]), err_msg=name)


@torch.inference_mode()
def _hugging_face_outputs(folder: Path, pixels: Float32) -> dict[str, npt.NDArray[np.float64]]:
    has_head = "VivitForVideoClassification" in json.loads((folder / "config.json").read_text())["architectures"]
    cls = transformers.VivitForVideoClassification if has_head else transformers.VivitModel
    model = cls.from_pretrained(folder, attn_implementation="eager", dtype=torch.float64).eval()
    batch = torch.from_numpy(pixels).double()
    encoder = model.vivit if has_head else model
    results = {"embedding": encoder(batch).last_hidden_state[:, 0]}
    if has_head:
        results["logits"] = model(batch).logits
    return {name: value.numpy() for name, value in results.items()}


def refusal(model: object, **options: Any) -> str:
    """The one sentence of the CheckpointError with which a checkpoint is not loaded."""
    with pytest.raises(CheckpointError) as caught:
        load_checkpoint(str(model), **options)
    assert type(caught.value) is CheckpointError
    sentence = str(caught.value)
    assert "\n" not in sentence
    return sentence


def edit_config(folder: Path, **fields: Any) -> None:
    """Change fields of ``config.json``."""
    path = folder / "config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **fields}))
