"""Trials run the model that a bundle would hold; ``--keep-fp16 auto`` builds on them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from checkpoints import Checkpoints
from made_clips import blurred
from made_ranges import DEEP, LAYERS, ranges, with_attention
from noted import Noted
from safetensors.numpy import load_file, save_file

import vivit_export as ve
from vivit_export.bundle.checks import Gate
from vivit_export.calibration.options import CalibrationOptions
from vivit_export.calibration.ranges import Ranges
from vivit_export.errors import CalibrationError, DriftError
from vivit_export.export.graph.build import rewrite_graph
from vivit_export.export.trials import Trials, choose_kept, kept_text
from vivit_export.precision import Precision
from vivit_export.progress import Silent
from vivit_export.records import to_json
from vivit_export.runtime.drift.metrics import parse_gate

pytestmark = pytest.mark.needs_onnxruntime

FEW = CalibrationOptions(num_clips=32)


@pytest.fixture
def trials(checkpoints: Checkpoints) -> Trials:
    return trials_of(checkpoints, ranges(Precision.INT8, amax=6.0))


def trials_of(checkpoints: Checkpoints, found: Ranges) -> Trials:
    checkpoint = checkpoints.load(**DEEP)
    rewritten = rewrite_graph(checkpoint, ("logits", "embedding"), Precision.INT8)
    crops = np.random.default_rng(0).integers(0, 256, (3, 4, 16, 16, 3), dtype=np.uint8)
    return Trials(checkpoint, rewritten, found, crops)


def test_kept_layers_have_no_error_and_more_kept_layers_less(trials: Trials) -> None:
    assert trials.rms(LAYERS) == 0
    everything, all_but_one, one = trials.rms(()), trials.rms(LAYERS[:1]), trials.rms(LAYERS[1:])
    assert everything > all_but_one > 0
    assert everything > one > 0


def test_shares_are_those_of_the_multiplications(trials: Trials) -> None:
    # Width 32, inner width 48: 3 x 32 x 32, 32 x 32, 32 x 48, 48 x 32 in each of two blocks.
    assert [round(share * 14336) for share in trials.shares.values()] == [3072, 1024, 1536, 1536] * 2
    assert kept_text(LAYERS[:1], trials.shares).endswith("(21.4 % of the quantizable multiplications)")


def test_the_fewest_layers_bring_the_drift_inside_the_gate(trials: Trials) -> None:
    progress = Noted()
    limits = Gate({"rms": trials.rms(()) / 1.5})
    found = ranges(Precision.INT8, amax=6.0)
    kept, told = choose_kept(trials, found, limits, progress)
    assert len(told.sensitivity) == len(LAYERS)
    assert 0 < len(kept) < len(LAYERS)
    assert not limits.violations(trials.drift(kept))
    assert progress.notes == [kept_text(kept, trials.shares)]


def test_nothing_is_kept_where_nothing_needs_to_be(trials: Trials) -> None:
    progress = Noted()
    gate, known = parse_gate("max=9,cosine=0,clear_flips=9", Precision.INT8), ranges(Precision.INT8, amax=6.0)
    assert choose_kept(trials, known, gate, progress) == ((), known)
    assert progress.notes == ["no layer needs to be kept in fp16: the drift is inside the gate"]


def test_a_gate_that_cannot_be_met_fails(checkpoints: Checkpoints, trials: Trials) -> None:
    with pytest.raises(DriftError, match="beyond the gate even with all layers in fp16; nothing was written"):
        choose_kept(trials, ranges(Precision.INT8, amax=6.0), Gate({"top1": 2.0}), Silent())
    found = with_attention(6.0)
    trials = trials_of(checkpoints, found)
    with pytest.raises(DriftError, match=r"\(gate changes a limit, or leave out fp8_attention\)"):
        choose_kept(trials, found, Gate({"top1": 2.0}), Silent(), attention=True)


def test_an_export_keeps_what_its_gate_needs_and_says_so(tmp_path: Path) -> None:
    options: dict[str, Any] = {"precision": "int8", "targets": ("onnx",), "calibration": FEW}
    loose = ve.export_model("demo", tmp_path / "loose", **options, keep_fp16="auto")
    assert loose.manifest.checks is not None
    worst = max(run.drift.rms or 0 for run in loose.manifest.checks.runs if run.gated and run.drift)
    strict = ve.export_model("demo", tmp_path / "strict", **options, fix=True, gate=f"rms={worst / 1.5:.6f}")
    assert strict.manifest.precision.kept_float32 == ()
    found = [bundle.manifest.precision.quantization for bundle in (loose, strict)]
    kept = [[n for n, layer in q.layers.items() if not layer.quantized] for q in found if q is not None]
    assert kept[0] == []
    assert 0 < len(kept[1]) < 16
    assert found[1] is not None
    order = found[1].sensitivity
    assert order[0].layer in kept[1]
    assert json.loads((strict.path / "ranges.json").read_text())["sensitivity"] == to_json(order)
    page = (strict.path / "report.html").read_text(encoding="utf-8")
    assert f'<th scope="row">{kept[1][0]}</th><td class="text">float16</td>' in page
    assert f"<td>{100 * (order[0].without or 0):.3f} %</td>" in page


def test_a_stricter_gate_allows_less() -> None:
    gate = parse_gate("max=0.1,cosine=0.9,clear_flips=0", Precision.INT8).tightened(0.5)
    assert gate.limits["max"] == pytest.approx(0.05)
    assert gate.limits["cosine"] == pytest.approx(0.95)
    assert gate.limits["clear_flips"] == 0


# --- a layer whose input is zero ---------------------------------------------------------------


def dying(checkpoints: Checkpoints, folder: Path) -> Path:
    """A network whose second GELU gives nothing on any clip: its bias is far below zero."""
    folder = checkpoints.copy(folder, **DEEP)
    state = load_file(folder / "model.safetensors")
    state["vivit.encoder.layer.1.intermediate.dense.weight"][:] = 0
    state["vivit.encoder.layer.1.intermediate.dense.bias"][:] = -100
    save_file(state, folder / "model.safetensors", metadata={"format": "pt"})
    return folder


def test_a_dead_layer_is_kept_where_asked_and_named_where_not(checkpoints: Checkpoints, tmp_path: Path) -> None:
    folder, data = dying(checkpoints, tmp_path / "dying"), tmp_path / "crops.safetensors"
    save_file({"frames": blurred(np.random.default_rng(0), 40, (4, 16, 16, 3))}, data)
    options: dict[str, Any] = {
        "precision": "int8", "targets": ("onnx",), "num_clips": 2, "calibration": CalibrationOptions(data=(data,)),
        "gate": "max=9,cosine=0,clear_flips=9,embedding_cosine=0",
    }  # fmt: skip
    said = r"input of layers\.1\.mlp\.fc2 is zero on all 40 .*keep_fp16='layers\.1\.mlp\.fc2' or keep_fp16=auto"
    with pytest.raises(CalibrationError, match=said):
        ve.export_model(str(folder), tmp_path / "out", **options)
    progress = Noted()
    bundle = ve.export_model(str(folder), tmp_path / "out", **options, keep_fp16="auto", progress=progress)
    assert bundle.manifest.precision.quantization is not None
    layers = bundle.manifest.precision.quantization.layers
    assert [name for name, layer in layers.items() if not layer.quantized] == ["layers.1.mlp.fc2"]
    assert "kept in fp16, as their input was zero on all calibration clips: layers.1.mlp.fc2" in progress.notes


def test_a_dead_layer_has_no_effect_and_is_kept_beside_others(checkpoints: Checkpoints) -> None:
    dead = {LAYERS[3]: {"amax": 0.0, "largest": 0.0}}
    found = ranges(Precision.INT8, amax=6.0, fields=dead)
    trials = trials_of(checkpoints, found)
    assert trials.rms([name for name in LAYERS if name != LAYERS[3]]) == 0
    kept, _ = choose_kept(trials, found, Gate({"rms": trials.rms(()) / 1.5}), Silent())
    assert kept[0] == LAYERS[3]
    assert len(kept) == len(set(kept)) > 1
