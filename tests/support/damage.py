"""Bundles that were built wrong: altered files with the hashes that go with them."""

from __future__ import annotations

import json
from pathlib import Path

import onnx
from onnx import numpy_helper

from vivit_export.files import sha256_of


def rehash(folder: Path, *names: str) -> None:
    """Describe altered files in the manifest, as somebody who builds bundles would."""
    path = folder / "bundle.json"
    manifest = json.loads(path.read_text())
    for name in names:
        manifest["files"][name] = {"sha256": sha256_of(folder / name), "size": (folder / name).stat().st_size}
    path.write_text(json.dumps(manifest))


def damage(folder: Path, name: str, scale: float) -> None:
    """Multiply a constant of the graph."""
    model = onnx.load(folder / "model.onnx")
    (tensor,) = (t for t in model.graph.initializer if t.name == name)
    array = numpy_helper.to_array(tensor)
    tensor.CopyFrom(numpy_helper.from_array((array * scale).astype(array.dtype), name))
    onnx.save(model, folder / "model.onnx")
    rehash(folder, "model.onnx")
