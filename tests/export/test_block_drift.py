"""Where drift begins: a damaged weight, outliers that overflow fp16, and codes lead to their own layers."""

from __future__ import annotations

import shutil
import weakref
from pathlib import Path
from typing import Any

import pytest
from anatomies import vivit
from bundles import Bundles
from checkpoints import Checkpoints
from damage import damage
from made_ranges import DEEP, ranges
from overflowing import overflowing

import vivit_export as ve
from vivit_export.bundle.taps import Tap, TapError
from vivit_export.export import block_drift
from vivit_export.export.block_drift import find_suspect
from vivit_export.export.checkpoint.load import Checkpoint
from vivit_export.export.checkpoint.tapped_network import run_tapped
from vivit_export.export.graph.lowering import lower_precision
from vivit_export.export.graph.quantize import quantize
from vivit_export.export.graph.rewrites import apply_rewrites, lower_attention
from vivit_export.export.graph.taps import find_steps
from vivit_export.export.recheck import check
from vivit_export.families.vivit import Vivit
from vivit_export.precision import Precision
from vivit_export.report.taps import suspect_sentence

pytestmark = pytest.mark.needs_onnxruntime


@pytest.mark.parametrize(
    ("precision", "scale", "option"), [("fp32", 1.01, None), ("fp16", 1.2, "keep_fp32")], ids=["fp32", "fp16"]
)
def test_a_damaged_weight_leads_to_its_layer(
    bundles: Bundles, tmp_path: Path, precision: str, scale: float, option: str | None
) -> None:
    folder = Path(shutil.copytree(bundles.demo(check=True, num_clips=3, precision=precision).path, tmp_path / "copy"))
    damage(folder, "layers.2.mlp.fc1.weight", scale)
    report = check(folder, against="eager", num_clips=1, per_block=True)
    before, behind = [b.rms or 0 for b in report.blocks[:2]], [b.rms or 0 for b in report.blocks[2:]]
    assert max(before) < min(behind) / 5
    assert report.taps is not None and report.taps.suspect is not None
    suspect = report.taps.suspect
    assert (suspect.tap, suspect.cause, suspect.after) == ("layer 2 MLP", "graph", "layer 2 attention")
    assert suspect.linears == ("layers.2.mlp.fc1", "layers.2.mlp.fc2")
    assert {"layers.2.mlp.fc1/MatMul", "layers.2.mlp.activation_fn/Gelu", "layers.2/Add_2"} < set(suspect.nodes)
    assert not any(name.startswith(("layers.1", "layers.3", "layers.2.attention")) for name in suspect.nodes)
    assert suspect.option == option
    assert suspect.pattern == (option and r"^layers\.2\.mlp")
    eager = [tap.precision for tap in report.taps.taps]
    assert all((error is None) == (precision == "fp32") and not (error and error.beyond) for error in eager)


def test_outliers_that_overflow_lead_to_their_layer_and_to_the_type(checkpoints: Checkpoints, tmp_path: Path) -> None:
    folder = overflowing(checkpoints, tmp_path / "overflowing", layer=1)
    bundle = ve.export_model(str(folder), tmp_path / "out", precision="fp16", targets=("onnx",), check=False)
    report = check(bundle, checkpoint=str(folder), num_clips=2, per_block=True)
    assert not report.passed
    assert report.taps is not None and report.taps.suspect is not None
    suspect = report.taps.suspect
    assert (suspect.tap, suspect.cause) == ("layer 1 MLP", "precision")
    assert (suspect.option, suspect.pattern) == ("keep_fp32", r"^layers\.1\.mlp")
    assert [tap.total.error is None for tap in report.taps.taps] == [False] * 4 + [True] * 3
    assert "so the type is the cause" in suspect_sentence(report.taps)


def test_the_taps_of_a_clip_are_gone_before_those_of_the_next(
    bundles: Bundles, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Those of ViViT-B/16x2 take 0.8 GB a clip."""
    alive: list[int] = []
    taken: list[weakref.ref[Any]] = []

    def watched(checkpoint: Checkpoint, pixels: Any, precision: Precision) -> Any:
        if precision is Precision.FP32:  # a clip begins
            alive.append(sum(reference() is not None for reference in taken))
        taps, outputs = run_tapped(checkpoint, pixels, precision)
        taken.extend(weakref.ref(tap) for tap in taps if not any(tap is output for output in outputs.values()))
        return taps, outputs

    monkeypatch.setattr(block_drift, "run_tapped", watched)
    check(bundles.demo(check=True, num_clips=3), against="eager", num_clips=3, per_block=True)
    assert alive == [0, 0, 0] and len(taken) >= 3 * 10


def test_a_network_without_a_head_ends_with_the_final_norm(checkpoints: Checkpoints, tmp_path: Path) -> None:
    folder = checkpoints.folder(headless=True)
    bundle = ve.export_model(str(folder), tmp_path / "out", precision="bf16", targets=("onnx",), check=False)
    report = check(bundle, checkpoint=str(folder), num_clips=1, per_block=True)
    assert report.taps is not None and report.taps.suspect is None
    assert [tap.name for tap in report.taps.taps] == ["embeddings", "layer 0 attention", "layer 0 MLP", "final norm"]
    assert report.taps.base == "bf16"


# --- what to keep --------------------------------------------------------------------------------

FINE, BEYOND = TapError(1e-4, 1.0, 1e-3, 1e-2), TapError(0.2, 0.9, 1.0, 1e-2)


@pytest.mark.parametrize(
    ("index", "errors", "option", "pattern"),
    [
        (2, (FINE, BEYOND, BEYOND), "keep_fp16", r"^layers\.0\.mlp"),  # only the codes have it
        (2, (BEYOND, BEYOND, BEYOND), "keep_fp32", r"^layers\.0\.mlp"),  # fp16 has it too
        (0, (FINE, BEYOND, BEYOND), "keep_fp32", "^embeddings"),  # there are no codes
    ],
)
def test_codes_are_to_be_kept_in_fp16_and_fp16_in_float32(
    checkpoints: Checkpoints, index: int, errors: tuple[TapError, TapError, TapError], option: str, pattern: str
) -> None:
    model = checkpoints.trace(**DEEP)
    apply_rewrites(model, Precision.INT8)
    lower_attention(model)
    quantize(model, vivit(2), ranges(Precision.INT8))
    lower_precision(model, Precision.FP16)
    steps = find_steps(model, Vivit().taps({"num_hidden_layers": 2}))
    taps = [Tap(step.name, *(errors if i >= index else (FINE, FINE, FINE))) for i, step in enumerate(steps)]
    suspect = find_suspect(taps, steps, Precision.INT8)
    assert suspect is not None
    assert (suspect.tap, suspect.option, suspect.pattern) == (steps[index].name, option, pattern)
    assert index != 2 or suspect.linears == ("layers.0.mlp.fc1", "layers.0.mlp.fc2")
    assert find_suspect([Tap("a", FINE, FINE, BEYOND)] * len(steps), steps, Precision.INT8) is None
