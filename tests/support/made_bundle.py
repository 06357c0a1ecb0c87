"""A bundle of ViViT-B's shape whose graph and engines are a few bytes: for what only reads the manifest."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import save_file

from vivit_export.bundle import Bundle, read_bundle, write_manifest
from vivit_export.contract import IO, Clip, Contract, Preprocess, Tensor

LABELS = ("abseiling", 'air "drumming"', "zumba, ñ")


def contract(**io: Any) -> Contract:
    source = Tensor("frames", "uint8", ("batch", 32, 224, 224, 3))
    outputs = (Tensor("logits", "float32", ("batch", 3)), Tensor("embedding", "float32", ("batch", 768)))
    signature: dict[str, Any] = {"mode": "crops", "inputs": (source,), "outputs": outputs, **io}
    return Contract(Clip(32, 224, 224, (2, 16, 16)), Preprocess(shortest_edge=256), IO(**signature), LABELS)


def engine(**changes: Any) -> dict[str, Any]:
    """A sidecar."""
    profile = {"min": 1, "opt": 4, "max": 8}
    return {"flavour": "tensorrt", "version": "11.4.0.106", "sms": [90], "profiles": [profile], **changes}


def make_bundle(
    folder: Path,
    engines: dict[str, dict[str, Any]] | None = None,
    *,
    batches: Sequence[int] = (1, 4, 8),
    golden: bool = True,
    **io: Any,
) -> Bundle:
    (folder / "engines").mkdir(parents=True)
    (folder / "model.onnx").write_bytes(b"graph")
    (folder / "model.onnx.data").write_bytes(b"weights")
    for name in engines or {}:
        (folder / "engines" / f"{name}.plan").write_bytes(f"plan {name}".encode())
    if golden:
        shape = (2, 32, 224, 224, 3)
        frames = np.arange(np.prod(shape), dtype=np.uint64).astype(np.uint8).reshape(shape)
        outputs = {"logits": np.zeros((2, 3), np.float32), "embedding": np.zeros((2, 768), np.float32)}
        save_file({"frames": frames, **outputs}, folder / "golden.safetensors")
    manifest = {
        "model": {"id": "google/vivit-b-16x2-kinetics400", "config": {}, "parameters": 1},
        "contract": contract(**io).to_json(),
        "precision": {"name": "fp16", "attention": "pattern", "opset": 20},
        "engines": engines or {},
        "checks": {"runs": [{"batch": batch} for batch in batches]} if batches else {},
    }
    write_manifest(folder, manifest)
    return read_bundle(folder)
