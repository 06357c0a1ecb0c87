"""A bundle of ViViT-B's shape with a tiny graph and engines of a few bytes: for what only reads the manifest."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from anatomies import vivit
from made_records import content, drift_report
from safetensors.numpy import save_file
from tiny_graph import tiny_graph

from vivit_export.bundle import Bundle, read_bundle, write_manifest
from vivit_export.bundle.checks import Run
from vivit_export.bundle.engines import EngineRecord
from vivit_export.bundle.manifest import ModelRecord
from vivit_export.contract import IO, Clip, Contract, Preprocess, Tensor

LABELS = ("abseiling", 'air "drumming"', "zumba, ñ")


def contract(**io: Any) -> Contract:
    source = Tensor("frames", "uint8", ("batch", 32, 224, 224, 3))
    outputs = (Tensor("logits", "float32", ("batch", 3)), Tensor("embedding", "float32", ("batch", 768)))
    signature: dict[str, Any] = {"mode": "crops", "inputs": (source,), "outputs": outputs, **io}
    return Contract(Clip(32, 224, 224, (2, 16, 16)), Preprocess(shortest_edge=256), IO(**signature), LABELS)


def make_bundle(
    folder: Path,
    engines: Mapping[str, EngineRecord] | None = None,
    *,
    batches: Sequence[int] = (1, 4, 8),
    golden: bool = True,
    **io: Any,
) -> Bundle:
    (folder / "engines").mkdir(parents=True)
    (folder / "model.onnx").write_bytes(tiny_graph(contract(**io)))
    (folder / "model.onnx.data").write_bytes(b"weights")
    for name in engines or {}:
        (folder / "engines" / f"{name}.plan").write_bytes(f"plan {name}".encode())
    if golden:
        shape = (2, 32, 224, 224, 3)
        frames = np.arange(np.prod(shape), dtype=np.uint64).astype(np.uint8).reshape(shape)
        outputs = {"logits": np.zeros((2, 3), np.float32), "embedding": np.zeros((2, 768), np.float32)}
        save_file({"frames": frames, **outputs}, folder / "golden.safetensors")
    runs = [Run("onnxruntime", batch, True, None) for batch in batches]
    made = content(
        contract(**io),
        model=ModelRecord("google/vivit-b-16x2-kinetics400", 1, 12, {}, vivit(12)),
        engines=engines or {},
        checks=drift_report(*runs) if runs else None,
    )
    write_manifest(folder, made)
    return read_bundle(folder)
