"""The smallest folder that is a bundle: a few bytes in every kind of file, and a manifest that describes them."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from made_records import content, engine_record

from vivit_export.bundle import write_manifest, writing
from vivit_export.contract import IO, Clip, Contract, Preprocess, Tensor

CONTRACT = Contract(
    Clip(8, 64, 64, (2, 8, 8)),
    Preprocess(shortest_edge=64, crop_size=(64, 64)),
    IO("crops", (Tensor("frames", "uint8", ("batch", 8, 64, 64, 3)),), (Tensor("logits", "float32", ("batch", 2)),)),
    ("left", "right"),
)
CONTENT = content(CONTRACT, engines={"rtx": engine_record()})
FILES = {
    "model.onnx": b"graph",
    "golden.safetensors": b"clips",
    "engines/rtx.plan": b"\0\1\2",
    "engines/rtx.json": b"{}",
}

ModeTree = dict[str, tuple[int, bytes | None]]


def fill(folder: Path) -> None:
    """Make a folder a bundle."""
    for name, written in FILES.items():
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_bytes(written)
    write_manifest(folder, CONTENT)


def make(folder: Path) -> Path:
    """Make a folder that is a bundle."""
    folder.mkdir()
    fill(folder)
    return folder


def rewrite(folder: Path, change: Callable[[dict[str, Any]], object]) -> None:
    """Change the manifest of a bundle."""
    path = folder / "bundle.json"
    manifest = json.loads(path.read_text())
    change(manifest)
    path.write_text(json.dumps(manifest))


def mode_tree(folder: Path) -> ModeTree:
    """Every file and folder below, hidden ones too, with its mode and bytes."""
    return {
        str(p.relative_to(folder)): (p.lstat().st_mode, p.read_bytes() if p.is_file() else None)
        for p in sorted(folder.rglob("*"))
    }


@pytest.fixture
def home(tmp_path: Path) -> Path:
    """A folder that holds a bundle ``old`` and a stranger's file."""
    (tmp_path / "notes.txt").write_text("mine")
    with writing(tmp_path / "old", force=False) as work:
        fill(work)
    return tmp_path
