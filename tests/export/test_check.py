"""The check finds what is wrong with a graph: in a weight, in a type, between the clips of a batch."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx_ir as ir
import pytest
from checkpoints import Checkpoints
from safetensors.torch import load_file, save_file

from vivit_export.bundle.checks import CheckedClips, DriftReport, Run
from vivit_export.contract import Contract
from vivit_export.errors import DriftError
from vivit_export.export import check as check_module
from vivit_export.export.check import run_checks
from vivit_export.export.checkpoint.load import Checkpoint, load_checkpoint
from vivit_export.export.clips import CheckClips, EachClip
from vivit_export.export.graph.build import save_graph, signature
from vivit_export.export.graph.lowering import lower_precision
from vivit_export.export.graph.rewrites import lower_attention
from vivit_export.export.graph.trace import trace
from vivit_export.precision import Precision
from vivit_export.records import to_json
from vivit_export.runtime import Preprocessor
from vivit_export.runtime.drift.metrics import parse_gate
from vivit_export.runtime.session.onnxruntime import OnnxRuntimeSession

pytestmark = pytest.mark.needs_onnxruntime

PRECISIONS = (Precision.FP32, Precision.FP16, Precision.BF16)
Damage = Callable[[ir.Model], None]


class Setup:
    """One tiny export up to its check."""

    def __init__(self, checkpoint: Checkpoint, model: ir.Model, folder: Path, precision: Precision) -> None:
        self.checkpoint = checkpoint
        self.model = model
        self.folder = folder
        self.precision = precision
        lower_attention(self.model)

    def clips(self, num_clips: int) -> CheckClips:
        clip = self.checkpoint.clip
        shape = (num_clips, clip.num_frames, clip.height, clip.width, 3)
        crops = np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)
        each = EachClip(Preprocessor(clip, self.checkpoint.preprocess), crops)
        return CheckClips(CheckedClips("noise", tuple(f"{i}.mp4" for i in range(num_clips))), crops, each)

    @property
    def contract(self) -> Contract:
        known = self.checkpoint
        return Contract(known.clip, known.preprocess, signature(self.model, "pixels"), known.labels, known.task)

    def check(
        self,
        *,
        num_clips: int = 3,
        batches: tuple[int, int, int] = (1, 1, 1),
        gate: str | None = None,
        scores_bytes: int = 1,
    ) -> DriftReport:
        clips, limits = self.clips(num_clips), parse_gate(gate, self.precision)
        if self.precision.rounds:
            lower_precision(self.model, self.precision)
        save_graph(self.model, self.folder)
        low = None if not self.precision.rounds else self.checkpoint.run_eager(clips.each, self.precision)
        runs = run_checks(
            self.folder,
            self.model,
            precision=self.precision,
            contract=self.contract,
            clips=clips,
            reference=self.checkpoint.run_eager(clips.each),
            eager_low=low,
            gate=limits,
            batches=batches,
            scores_bytes=scores_bytes,
        )
        return DriftReport("eager fp32", CheckedClips(clips.source, clips.names), limits, tuple(runs))


@pytest.fixture
def setup(checkpoints: Checkpoints, tmp_path: Path) -> Callable[..., Setup]:
    return lambda precision, **fields: Setup(
        checkpoints.load(**fields), checkpoints.trace(**fields), tmp_path, precision
    )


# --- what is right passes ----------------------------------------------------------------------

RUNS = {
    "fp32": [("onnxruntime", 1, True), ("onnxruntime", 2, True), ("onnxruntime", 4, True)],
    "fp16": [
        ("eager fp16", 1, False),
        ("onnxruntime", 1, True),
        ("onnxruntime", 2, True),
        ("onnxruntime", 4, True),
        ("fp16 rounding emulated", 1, True),
    ],
    "bf16": [
        ("eager bf16", 1, False),
        ("bf16 rounding emulated", 1, True),
        ("bf16 rounding emulated", 2, True),
        ("bf16 rounding emulated", 4, True),
    ],
}


@pytest.mark.parametrize("precision", PRECISIONS)
@pytest.mark.parametrize("headless", [False, True])
def test_a_good_graph_passes(setup: Any, precision: Precision, headless: bool) -> None:
    checks = setup(precision, headless=headless).check(batches=(1, 2, 4))
    checks.require()
    assert len(checks.runs) == len(RUNS[precision])
    for run, (engine, batch, gated) in zip(checks.runs, RUNS[precision], strict=True):
        assert engine in run.engine
        assert (run.batch, run.gated) == (batch, gated)
        assert run.drift is not None
        assert (run.drift.top1 is None) == headless
        assert run.drift.embedding_cosine is not None


@pytest.mark.parametrize("precision", PRECISIONS)
def test_nothing_but_the_graph_is_left_in_the_folder(setup: Any, tmp_path: Path, precision: Precision) -> None:
    setup(precision).check()
    assert [p.name for p in tmp_path.iterdir()] == ["model.onnx"]


def test_drift_is_that_of_the_file_and_not_of_the_graph_in_memory(setup: Any, tmp_path: Path) -> None:
    case = setup(Precision.FP32)
    clips = case.clips(2)
    reference = case.checkpoint.run_eager(clips.each)
    save_graph(damaged(case.model, "classifier.weight", scale=2), tmp_path)
    (run,) = run_checks(
        tmp_path,
        case.model,
        precision=Precision.FP32,
        contract=case.contract,
        clips=clips,
        reference=reference,
        eager_low=None,
        gate=parse_gate(None, Precision.FP32),
        batches=(1, 1, 1),
        scores_bytes=1,
    )
    assert run.drift is not None and run.drift.max is not None
    assert run.drift.max > 0.1


# --- what is wrong fails -----------------------------------------------------------------------


def damaged(model: ir.Model, name: str, *, scale: float = 1.0, flip: bool = False) -> ir.Model:
    weight = model.graph.initializers[name]
    assert weight.const_value is not None
    array = weight.const_value.numpy() * np.float32(scale)
    weight.const_value = ir.tensor(np.ascontiguousarray(array[..., ::-1] if flip else array), name=name)
    return model


FLAWS: list[tuple[str, dict[str, Any]]] = [
    ("layers.0.mlp.fc2.weight", {"flip": True}),
    ("layers.0.attention.q_proj.weight", {"scale": -1}),
    ("layers.0.attention.v_proj.bias", {"scale": 0}),
    ("layers.0.layernorm_before.weight", {"flip": True}),
    ("embeddings.position_embeddings", {"scale": 0.5}),
    ("layernorm.bias", {"scale": 0}),
]


@pytest.mark.parametrize("precision", PRECISIONS)
@pytest.mark.parametrize(("name", "flaw"), FLAWS, ids=[name for name, _ in FLAWS])
def test_a_wrong_weight_fails(setup: Any, precision: Precision, name: str, flaw: dict[str, Any]) -> None:
    case = setup(precision)
    damaged(case.model, name, **flaw)
    said = r"^drift beyond the gate in .* at batch 1: .* is (above|below) "
    with pytest.raises(DriftError, match=said):
        case.check().require()


@pytest.mark.parametrize("precision", PRECISIONS)
def test_a_wrong_weight_fails_without_a_head_too(setup: Any, precision: Precision) -> None:
    case = setup(precision, headless=True)
    damaged(case.model, "layers.0.mlp.fc2.weight", flip=True)
    with pytest.raises(DriftError, match=r"embedding_cosine .* is below"):
        case.check().require()


def test_fp32_notices_one_weight_that_is_a_thousandth_off(setup: Any) -> None:
    case = setup(Precision.FP32)
    damaged(case.model, "layers.0.mlp.fc1.weight", scale=1.001)
    with pytest.raises(DriftError, match=r"max 0\.000\d+ is above 0\.0001"):
        case.check().require()


def test_not_a_number_fails(setup: Any) -> None:
    case = setup(Precision.FP32)
    damaged(case.model, "layers.0.mlp.fc1.bias", scale=np.nan)
    with pytest.raises(DriftError, match=r"nonfinite 111 is above 0"):  # 3 clips of 5 logits and 32 features
        case.check().require()


def test_fp16_that_overflows_inside_is_caught_by_the_emulation(checkpoints: Checkpoints, tmp_path: Path) -> None:
    """ONNX Runtime keeps fp16 intermediates in float32 on the CPU, and is close; a GPU would overflow."""
    folder = checkpoints.copy(tmp_path / "loud")
    state = load_file(folder / "model.safetensors")
    for name, scale in (("intermediate.dense.weight", 2**15), ("output.dense.weight", 2**-12)):
        state[f"vivit.encoder.layer.0.{name}"] *= scale
    save_file(state, folder / "model.safetensors", metadata={"format": "pt"})
    checkpoint = load_checkpoint(str(folder))
    (tmp_path / "out").mkdir()
    checks = Setup(checkpoint, trace(checkpoint, ("logits", "embedding")), tmp_path / "out", Precision.FP16).check()
    plain, emulated = (run.drift for run in checks.runs if run.gated)
    assert plain is not None and emulated is not None
    assert checks.gate.violations(plain) == []
    assert emulated.nonfinite
    with pytest.raises(DriftError, match=r"fp16 rounding emulated at batch 1: .*nonfinite \d+ is above 0"):
        checks.require()


def mix_clips(model: ir.Model) -> ir.Model:
    """Let each clip see the others: add the difference to the batch's mean, which is zero for one clip."""
    graph = model.graph
    embedding = next(node for node in graph if node.name == "embeddings/Add").outputs[0]
    axes = ir.Value(
        name="axes",
        type=ir.TensorType(ir.DataType.INT64),
        shape=ir.Shape([1]),
        const_value=ir.tensor(np.array([0], np.int64), name="axes"),
    )
    graph.register_initializer(axes)
    users = list(embedding.uses())
    mean = ir.node("ReduceMean", [embedding, axes], name="mean")
    difference = ir.node("Sub", [embedding, mean.outputs[0]], name="difference")
    mixed = ir.node("Add", [embedding, difference.outputs[0]], name="mixed")
    for node in (mean, difference, mixed):
        node.outputs[0].name = f"{node.name}_out"
        node.outputs[0].dtype = ir.DataType.FLOAT
    for use in users:
        use.node.replace_input_with(use.idx, mixed.outputs[0])
    producer = embedding.producer()
    assert producer is not None
    graph.insert_after(producer, [mean, difference, mixed])
    return model


def test_clips_that_see_each_other_fail_at_a_larger_batch_only(setup: Any) -> None:
    case = setup(Precision.FP32)
    mix_clips(case.model)
    checks = case.check(num_clips=3, batches=(1, 2, 4))
    verdicts = {run.batch: bool(checks.gate.violations(run.drift)) for run in checks.runs if run.drift}
    assert verdicts == {1: False, 2: True, 4: True}
    with pytest.raises(DriftError, match="at batch 2"):
        checks.require()


def test_eager_in_the_target_type_is_told_but_not_gated(setup: Any) -> None:
    checks = setup(Precision.BF16).check(gate="max=1e-9")
    eager, *gated = checks.runs
    assert not eager.gated
    assert eager.drift is not None and eager.drift.max is not None
    assert eager.drift.max > 1e-9
    said = r"in onnxruntime .*, bf16 rounding emulated at batch 1: max .* is above 1e-09"
    with pytest.raises(DriftError, match=said):
        checks.require()
    dataclasses.replace(checks, runs=(eager,)).require()
    assert gated


# --- batches -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("num_clips", "batches", "calls"),
    [
        (3, (1, 4, 8), {1: [1, 1, 1], 4: [4], 8: [8]}),
        (5, (1, 2, 2), {1: [1] * 5, 2: [2, 2, 1]}),
        (1, (1, 1, 2), {1: [1], 2: [2]}),
        (2, (2, 3, 3), {1: [1, 1], 3: [3]}),
    ],
)
def test_each_batch_size_is_run_full(
    setup: Any,
    monkeypatch: pytest.MonkeyPatch,
    num_clips: int,
    batches: tuple[int, int, int],
    calls: dict[int, list[int]],
) -> None:
    seen: list[npt.NDArray[Any]] = []
    run = OnnxRuntimeSession.run

    def seeing(self: OnnxRuntimeSession, batch: npt.NDArray[Any]) -> dict[str, npt.NDArray[np.float32]]:
        seen.append(batch)
        return run(self, batch)

    monkeypatch.setattr(OnnxRuntimeSession, "run", seeing)
    case = setup(Precision.FP32)
    checks = case.check(num_clips=num_clips, batches=batches)
    assert [len(batch) for batch in seen] == [size for sizes in calls.values() for size in sizes]
    assert [r.batch for r in checks.runs] == list(calls)
    assert [r.drift.num_clips for r in checks.runs if r.drift] == [sum(sizes) for sizes in calls.values()]
    # Too few clips are repeated in order.
    clips = list(case.clips(num_clips).each)
    np.testing.assert_array_equal(seen[-1][0], clips[sum(calls[max(calls)][:-1]) % num_clips])
    checks.require()


def test_a_batch_too_large_for_the_cpu_is_left_out_and_told(setup: Any) -> None:
    gib = 1 << 30
    checks = setup(Precision.FP32).check(batches=(1, 2, 4), scores_bytes=gib // 4)
    left_out = [run for run in checks.runs if run.drift is None]
    assert [run.batch for run in left_out] == [4]
    assert left_out[0].note == "not run: one layer's attention scores need 1.0 GiB on the CPU"
    assert gib // 2 == check_module._SCORES_BYTES
    checks.require()


def test_checks_as_json(setup: Any) -> None:
    checks = setup(Precision.FP16).check(num_clips=2, batches=(1, 1, 8), scores_bytes=1 << 29, gate="top1=0.5")
    told = checks.to_json()
    assert told["clips"] == {
        "source": "noise",
        "names": ["0.mp4", "1.mp4"],
        "videos": [],
        "views": [1, 1],
        "left_out": 0,
    }
    assert told["gate"]["top1"] == 0.5
    assert [run["drift"] is None for run in told["runs"]] == [run.drift is None for run in checks.runs]
    eager = told["runs"][0]
    assert (eager["engine"], eager["gated"], eager["note"]) == ("eager fp16", False, "")
    assert set(to_json(Run("x", 1, True, None, "why"))) == set(eager)
