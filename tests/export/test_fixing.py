"""``--fix``: a failing export leads to the layer that fails, and keeps no more of it in float32 than the gate needs."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import onnx_ir as ir
import pytest
from checkpoints import Checkpoints, normal_pixels
from made_ranges import DEEP, ranges
from noted import Noted
from overflowing import overflowing

import vivit_export as ve
from vivit_export.bundle.checks import Gate
from vivit_export.bundle.manifest import Content
from vivit_export.errors import DriftError
from vivit_export.export.checkpoint.load import Checkpoint, load_checkpoint
from vivit_export.export.fixing import MOST_LEFT_OUT, WideTrials, choose_wide
from vivit_export.export.graph.build import Quantization, Rewritten, rewrite_graph
from vivit_export.export.graph.keeping import nodes_to_keep
from vivit_export.export.graph.rewrites import Applied, apply_rewrites, lower_attention
from vivit_export.precision import Precision
from vivit_export.progress import Silent
from vivit_export.records import from_json

pytestmark = pytest.mark.needs_onnxruntime

GATE = Gate(dict(Precision.FP16.gate))


class Counted(WideTrials):
    """Counts the runs of the model."""

    runs = 0

    def drift(self, *args: Any, **kwargs: Any) -> Any:
        self.runs += 1
        return super().drift(*args, **kwargs)


def trials_of(checkpoint: Checkpoint, rewritten: Rewritten, precision: Precision, **given: Any) -> Counted:
    pixels = normal_pixels(checkpoint, 2)
    reference = checkpoint.run_eager(pixels)
    return Counted(rewritten, checkpoint, precision, "pattern", pixels, reference, **given)


@pytest.fixture(scope="module")
def folder(checkpoints: Checkpoints, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return overflowing(checkpoints, tmp_path_factory.mktemp("fixing") / "overflowing", layer=1)


@pytest.fixture(scope="module")
def trials(folder: Path) -> Counted:
    checkpoint = load_checkpoint(str(folder))
    return trials_of(checkpoint, rewrite_graph(checkpoint, ("logits", "embedding"), Precision.FP16), Precision.FP16)


def plain(checkpoints: Checkpoints, precision: Precision) -> Rewritten:
    model = checkpoints.trace(**DEEP)
    applied: Applied = apply_rewrites(model, precision)
    return Rewritten(model, applied)


def names(pattern: str) -> list[str]:
    return re.sub(r"\\(.)", r"\1", pattern.removeprefix("^(?:").removesuffix(")$")).split("|")


def test_the_steps_that_overflow_come_first(trials: Counted) -> None:
    order = [step.name for step in trials.in_order()]
    assert order[:3] == ["layer 1 MLP", "final norm", "logits"]
    assert len(order) == len(set(order)) == 7


def test_an_overflow_is_repaired_with_no_module_too_many(trials: Counted) -> None:
    progress = Noted()
    trials.runs = 0
    pattern = choose_wide(trials, GATE, progress)
    assert pattern is not None
    kept = names(pattern)
    assert set(kept) <= {f"layers.1.mlp.{name}" for name in ("fc1", "activation_fn", "fc2")}
    assert trials.runs < 12
    parts = {part.name: part.nodes for part in trials.parts(trials.steps)}
    whole = [node for name in kept for node in parts[name]]
    assert not GATE.violations(trials.drift(whole))
    for name in kept:
        fewer = [node for other in kept if other != name for node in parts[other]]
        assert GATE.violations(trials.drift(fewer)), name
    assert progress.notes[-1].startswith(f"kept in fp32: {', '.join(kept)} (")
    assert choose_wide(trials, GATE, Silent()) == pattern


def test_the_export_says_what_it_kept_and_the_same_can_be_asked_for(folder: Path, tmp_path: Path) -> None:
    options: dict[str, Any] = {"precision": "fp16", "targets": ("onnx",), "num_clips": 2}
    with pytest.raises(DriftError, match=r"\(a wider type drifts less, fix keeps what needs it in a wider type, gate"):
        ve.export_model(str(folder), tmp_path / "failed", **options)
    fixed = ve.export_model(str(folder), tmp_path / "fixed", **options, fix=True)
    assert fixed.manifest.checks is not None and fixed.manifest.checks.passed
    kept = fixed.manifest.precision.kept_float32
    assert {name.rpartition("/")[0] for name in kept} <= {f"layers.1.mlp.{n}" for n in ("fc1", "activation_fn", "fc2")}
    pattern = f"^(?:{'|'.join(map(re.escape, kept))})$"
    again = ve.export_model(str(folder), tmp_path / "again", **options, keep_fp32=pattern)
    assert (again.path / "model.onnx").read_bytes() == (fixed.path / "model.onnx").read_bytes()


def test_where_nothing_is_wrong_nothing_is_kept(checkpoints: Checkpoints) -> None:
    progress = Noted()
    trials = trials_of(checkpoints.load(**DEEP), plain(checkpoints, Precision.FP16), Precision.FP16)
    assert choose_wide(trials, GATE, progress) is None
    assert trials.runs == 1
    assert progress.notes == ["nothing needs to be kept in fp32: the drift is inside the gate"]


def test_a_tight_gate_keeps_what_matters_most_and_ends(checkpoints: Checkpoints) -> None:
    trials = trials_of(checkpoints.load(**DEEP), plain(checkpoints, Precision.BF16), Precision.BF16)
    everything = trials.drift(()).rms
    assert everything is not None
    gate = Gate({"rms": everything / 2})
    trials.runs = 0
    pattern = choose_wide(trials, gate, Silent())
    assert pattern is not None
    assert trials.runs <= 12 + MOST_LEFT_OUT
    model = checkpoints.trace(**DEEP)
    apply_rewrites(model, Precision.BF16)
    lower_attention(model)
    kept = nodes_to_keep(model, pattern)
    assert 0 < len(kept) < len(list(model.graph))
    assert not gate.violations(trials.drift(kept))


def test_a_gate_that_only_float32_meets_is_refused(checkpoints: Checkpoints) -> None:
    trials = trials_of(checkpoints.load(**DEEP), plain(checkpoints, Precision.BF16), Precision.BF16)
    said = (
        r"^nothing less than float32 meets the gate on these clips; nothing was written \(precision=fp32 has none, gate"
    )
    with pytest.raises(DriftError, match=said):
        choose_wide(trials, Gate({"top1": 2.0}), Silent())


def test_an_export_that_finds_no_choice_leaves_the_report_of_what_was_asked(
    checkpoints: Checkpoints, tmp_path: Path
) -> None:
    said = r"^nothing less than float32 meets the gate .*\); the report is in .*out\.failed$"
    with pytest.raises(DriftError, match=said):
        ve.export_model(
            checkpoints.folder(), tmp_path / "out", precision="bf16", fix=True, targets=("onnx",), num_clips=2,
            gate="max=0.0000001",
        )  # fmt: skip
    assert [path.name for path in tmp_path.iterdir()] == ["out.failed"]
    told = json.loads((tmp_path / "out.failed/report.json").read_text(encoding="utf-8"))
    assert told.pop("format")
    checks = from_json(Content, told, "report").checks
    assert checks is not None and not checks.passed
    assert checks.gate.limits["max"] == pytest.approx(8e-8)  # of the search


def test_a_weight_beyond_the_type_is_kept(checkpoints: Checkpoints) -> None:
    rewritten = plain(checkpoints, Precision.FP16)
    node = next(node for node in rewritten.model.graph if node.name == "layers.0.mlp.fc2/MatMul")
    weight = node.inputs[1]
    assert weight is not None and weight.const_value is not None
    values = weight.const_value.numpy().copy()
    values[0, 0] = 1e5
    weight.const_value = ir.tensor(values, name=weight.name)
    trials = trials_of(checkpoints.load(**DEEP), rewritten, Precision.FP16)
    assert trials.in_order()[0].name == "layer 0 MLP"
    pattern = choose_wide(trials, Gate({"nonfinite": 0}), Silent())
    # What it adds to the stream is beyond fp16, too.
    assert pattern is not None and names(pattern) == ["layers.0.mlp.fc2", "layers.0/Add_2", "layers.1.layernorm_before"]


def test_kept_nodes_are_not_quantized_in_a_trial(checkpoints: Checkpoints) -> None:
    rewritten = plain(checkpoints, Precision.INT8)
    quantization = Quantization(rewritten, ranges(Precision.INT8, amax=6.0))
    trials = trials_of(checkpoints.load(**DEEP), rewritten, Precision.INT8, quantization=quantization)
    linears = [node for part in trials.parts(trials.steps) if part.weights for node in part.nodes]
    coded, wide = trials.drift(()).rms, trials.drift(linears).rms
    assert coded is not None and wide is not None
    assert wide < coded / 10
