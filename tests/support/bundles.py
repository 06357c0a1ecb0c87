"""Bundles for tests of what runs after export, each exported once, and what eager PyTorch says about their clips."""

from __future__ import annotations

import hashlib
import importlib.util
import json
import shutil
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
import pytest
from capabilities import missing
from exporter import EXPORTER, export_demo, golden_of_the_demo
from filelock import FileLock
from made_records import engine_record

import vivit_export as ve
from vivit_export.bundle import MODEL_DATA, Bundle, read_bundle, write_manifest
from vivit_export.bundle.engines import Profile
from vivit_export.records import to_json


class Bundles:
    """Exports the demo, each set of options once for all processes of a run: they share the folder `root`."""

    def __init__(self, root: Path) -> None:
        self._root = root
        self._made: dict[str, Bundle] = {}

    def demo(self, **options: Any) -> Bundle:
        """A bundle, shared by all tests: not to be changed."""
        key = json.dumps(options, sort_keys=True, default=repr)
        if key not in self._made:
            target = self._root / hashlib.sha256(key.encode()).hexdigest()[:16]
            with FileLock(f"{target}.lock"):
                if not target.exists():
                    _export(target, {"targets": ("onnx",), "check": False, **options})
            self._made[key] = read_bundle(target)
        return self._made[key]

    @cached_property
    def golden(self) -> dict[str, npt.NDArray[Any]]:
        """Crops ``frames`` (3, T, H, W, 3) with eager fp32 ``logits`` and ``embedding``."""
        contract = self.demo().contract
        if EXPORTER:
            with FileLock(self._root / "golden.lock"):
                return golden_of_the_demo(self._root, contract)
        from vivit_export.export.checkpoint.load import load_checkpoint
        from vivit_export.export.clips import load_check_clips

        checkpoint = load_checkpoint("demo")
        clips = load_check_clips(contract, None, 3)
        return {"frames": clips.frames, **checkpoint.run_eager(clips.each)}

    def copy(self, to: Path, **options: Any) -> Path:
        """A copy that a test may damage."""
        return Path(shutil.copytree(self.demo(**options).path, to))


def _export(target: Path, options: dict[str, Any]) -> None:
    if EXPORTER:
        export_demo(target, options)
        return
    from traces import traced_once

    import vivit_export.export.graph.build as build

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(build, "trace", traced_once)  # whatever the test that comes first puts there
        ve.export_model("demo", target, **options)


def need(*packages: str) -> None:
    """Skip the test without these packages, or fail it where VIVIT_REQUIRE promises them."""
    for package in packages:
        if importlib.util.find_spec(package) is None:
            missing(package, f"{package} is not installed")


def add_plan(folder: Path, name: str, plan: bytes, **sidecar: Any) -> Bundle:
    """Put a made-up engine into a bundle, as if it had been compiled for it."""
    path = folder / "bundle.json"
    manifest = json.loads(path.read_text())
    (folder / "engines").mkdir(exist_ok=True)
    (folder / "engines" / f"{name}.plan").write_bytes(plan)
    entry = {"sha256": hashlib.sha256(plan).hexdigest(), "size": len(plan)}
    manifest["files"][f"engines/{name}.plan"] = entry
    record = engine_record(profiles=(Profile(1, 2, 4),), onnx_sha256=manifest["files"]["model.onnx"]["sha256"])
    manifest["engines"][name] = {**to_json(record), **sidecar}
    path.write_text(json.dumps(manifest))
    return read_bundle(folder)


def random_crops(bundle: Bundle, count: int, seed: int = 0) -> npt.NDArray[np.uint8]:
    """uint8 (count, T, H, W, 3)."""
    clip = bundle.contract.clip
    shape = (count, clip.num_frames, clip.height, clip.width, 3)
    return np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)


def move_weights_out(folder: Path, smallest: int = 1024) -> Bundle:
    """Move a bundle's weights of at least so many bytes to model.onnx.data, as in the bundle of a large model."""
    bundle = read_bundle(folder)
    model = onnx.load(bundle.model)
    onnx.save(model, bundle.model, save_as_external_data=True, location=MODEL_DATA, size_threshold=smallest)
    write_manifest(folder, bundle.manifest.content)
    return read_bundle(folder)
