"""Bundles that earlier versions wrote still open, predict, pass their check and take engines.

``tests/data/vivit-bundle-1`` was exported by the last version that wrote ``vivit-bundle/1`` from
``tests/data/vivit-4.46``; ``tests/data/manifest-1`` has the manifest and an engine's sidecar of its INT8 demo.
``tests/data/vivit-bundle-2`` is of the same checkpoint, exported by commit 0aba593, before sections were added to
``vivit-bundle/2``.
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest

import vivit_export as ve
from vivit_export.bundle.engines import Profile, Sidecar
from vivit_export.bundle.manifest import ClipsRecord, LayerEffect
from vivit_export.bundle.reading import read_manifest
from vivit_export.demo import clips_path
from vivit_export.errors import BundleError
from vivit_export.flavour import Flavour
from vivit_export.precision import Precision
from vivit_export.records import from_json

DATA = Path(__file__).parents[1] / "data"


@pytest.fixture
def old(tmp_path: Path) -> Path:
    """A copy of the bundle of the format before this one."""
    return Path(shutil.copytree(DATA / "vivit-bundle-1", tmp_path / "old"))


@pytest.fixture(params=[1, 2])
def stored(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    """A copy of a bundle of each format."""
    folder = Path(shutil.copytree(DATA / f"vivit-bundle-{request.param}", tmp_path / "old"))
    assert json.loads((folder / "bundle.json").read_text())["format"] == f"vivit-bundle/{request.param}"
    return folder


def test_it_opens(stored: Path) -> None:
    bundle = ve.read_bundle(stored)
    assert (bundle.precision, bundle.manifest.precision.attention) == (Precision.FP16, "pattern")
    assert bundle.manifest.model.num_blocks == 2
    # Neither has the anatomy: it follows from the config.
    assert "anatomy" not in json.loads((stored / "bundle.json").read_text())["model"]
    assert bundle.manifest.model.anatomy.stacks[0].blocks == 2
    assert bundle.manifest.checks is not None and bundle.manifest.checks.passed


def test_a_network_of_no_family_is_refused(stored: Path) -> None:
    manifest = json.loads((stored / "bundle.json").read_text())
    manifest["model"]["config"]["model_type"] = "bert"
    (stored / "bundle.json").write_text(json.dumps(manifest))
    with pytest.raises(BundleError, match=r"bundle\.json: .* is a bert checkpoint; vivit-export takes"):
        ve.read_bundle(stored)


@pytest.mark.needs_onnxruntime
def test_it_predicts_and_passes_its_check(stored: Path) -> None:
    video = next(clips_path().glob("left*"))
    with ve.open_session(stored, prefer="onnxruntime-cpu") as session:
        prediction = session(ve.runtime.read_clip(video, session.contract))
    assert prediction.logits is not None and np.isfinite(prediction.logits).all()
    assert ve.assert_no_drift(stored, engine="onnxruntime-cpu").passed


@pytest.mark.needs_rtx
def test_it_takes_an_engine_and_is_of_the_new_format_then(stored: Path) -> None:
    bundle = ve.build_engines(stored, ("tensorrt-rtx",), sms=(89,), batches=(1, 1, 2))
    engine = bundle.engines["tensorrt-rtx-sm89"]
    assert (engine.flavour, engine.profile) == (Flavour.TENSORRT_RTX, Profile(1, 1, 2))
    assert engine.proof[0] == "attention fused in 2 of 2 blocks (Half)"
    assert json.loads((stored / "bundle.json").read_text())["format"] == "vivit-bundle/2"


def test_every_section_is_read() -> None:
    manifest = read_manifest(DATA / "manifest-1")
    quantization = manifest.precision.quantization
    assert quantization is not None
    assert quantization.clips == ClipsRecord("motion clips rendered for the demo", 256)
    assert len(quantization.layers) == 16 and quantization.attention is None
    assert quantization.layers["layers.0.attention.qkv"].smoothing is not None
    assert all(isinstance(effect, LayerEffect) for effect in quantization.sensitivity)
    engine = manifest.engines["tensorrt-rtx"]
    assert engine.plan.gemms == {"Half": 2, "Int8": 16} and len(engine.plan.gemm_layers) == 18
    sidecar = from_json(Sidecar, json.loads((DATA / "manifest-1/tensorrt-rtx.json").read_text()), "sidecar")
    assert len(sidecar.layers) == engine.plan.layers
    assert (sidecar.plan, sidecar.proof) == (engine.plan, engine.proof)


def test_what_was_not_checked_says_so(old: Path) -> None:
    path = old / "bundle.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "checks": {}}))
    assert ve.read_bundle(old).manifest.checks is None


@pytest.mark.parametrize("section", ["model", "precision", "checks"])
@pytest.mark.parametrize("value", [None, [], "x", 3])
def test_a_section_that_is_none_is_refused(old: Path, section: str, value: object) -> None:
    path = old / "bundle.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), section: value}))
    if (section, value) in (("checks", None), ("checks", [])):  # nothing was checked
        assert ve.read_bundle(old).manifest.checks is None
        return
    with pytest.raises(BundleError, match=r"bundle\.json"):
        ve.read_bundle(old)
