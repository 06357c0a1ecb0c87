"""Drift figures against plain Python loops, and gates that can fail."""

from __future__ import annotations

import json
import math
import warnings
from dataclasses import asdict
from typing import get_args

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vivit_export.bundle.checks import METRICS, OF_LABELS, Drift, Gate, measured_metrics, why_useless
from vivit_export.contract import Task
from vivit_export.errors import UsageError
from vivit_export.precision import Precision
from vivit_export.records import to_json
from vivit_export.runtime.drift.metrics import Comparison, compare, parse_gate
from vivit_export.runtime.drift.per_clip import scale_of

Float32 = npt.NDArray[np.float32]


def results(logits: object, embedding: object = None) -> dict[str, Float32]:
    named = {"logits": logits, "embedding": embedding}
    return {name: np.array(value, np.float32) for name, value in named.items() if value is not None}


# --- against loops -----------------------------------------------------------------------------


def best(row: list[float]) -> int:
    return row.index(max(row))


def cosine(a: list[float], b: list[float]) -> float:
    dot = math.fsum(x * y for x, y in zip(a, b, strict=True))
    return dot / math.sqrt(math.fsum(x * x for x in a)) / math.sqrt(math.fsum(y * y for y in b))


def probabilities(row: list[float]) -> list[float]:
    weights = [math.exp(x - max(row)) for x in row]
    return [w / math.fsum(weights) for w in weights]


def divergence(a: list[float], b: list[float]) -> float:
    return math.fsum(p * math.log(p / q) for p, q in zip(probabilities(a), probabilities(b), strict=True))


def best_five(values: list[float]) -> set[int]:
    return set(sorted(range(len(values)), key=lambda i: -values[i])[:5])


def naive(ref: list[list[float]], out: list[list[float]], tie_margin: float) -> dict[str, float]:
    pairs = list(zip(ref, out, strict=True))
    differences = [abs(x - y) for a, b in pairs for x, y in zip(a, b, strict=True)]
    scale = max(map(max, ref)) - min(map(min, ref))
    flips = [sorted(a)[-1] - sorted(a)[-2] for a, b in pairs if best(a) != best(b)]
    five, ours = [best_five(a) for a, _ in pairs], [best_five(b) for _, b in pairs]
    return {
        "num_clips": len(ref),
        "top1": sum(best(a) == best(b) for a, b in pairs) / len(pairs),
        "top5": sum(len(a & b) / len(a) for a, b in zip(five, ours, strict=True)) / len(pairs),
        "near_flips": sum(margin <= tie_margin * scale for margin in flips),
        "clear_flips": sum(margin > tie_margin * scale for margin in flips),
        "max_abs": max(differences),
        "max": max(differences) / scale,
        "rms": math.sqrt(math.fsum(d * d for d in differences) / len(differences)) / scale,
        "kl": max(divergence(a, b) for a, b in pairs),
        "cosine": min(cosine(a, b) for a, b in pairs),
        "nonfinite": 0,
    }


@settings(max_examples=150, deadline=None)
@given(
    seed=st.integers(0, 10**6),
    num_clips=st.integers(1, 6),
    num_labels=st.integers(2, 9),
    noise=st.sampled_from([0.0, 1e-3, 0.3, 3.0]),
    tie_margin=st.sampled_from([0.0, 0.02, 0.3, 2.0]),
)
def test_figures_are_those_of_plain_loops(
    seed: int, num_clips: int, num_labels: int, noise: float, tie_margin: float
) -> None:
    rng = np.random.default_rng(seed)
    ref = rng.standard_normal((num_clips, num_labels)).astype(np.float32) * 5
    out = ref + noise * rng.standard_normal(ref.shape).astype(np.float32)
    drift = compare(results(ref), results(out), tie_margin)
    for name, value in naive(ref.tolist(), out.tolist(), tie_margin).items():
        assert getattr(drift, name) == pytest.approx(value, rel=1e-9, abs=1e-12), name
    assert drift.embedding_cosine is None


@settings(max_examples=200, deadline=None)
@given(st.integers(1, 30), st.sampled_from([1, 2, 7]), st.integers(1, 30), st.sampled_from(get_args(Task)), st.data())
def test_parts_lead_to_the_figures_of_the_whole(
    clips: int, labels: int, part: int, task: Task, data: st.DataObject
) -> None:
    random = np.random.default_rng(data.draw(st.integers(0, 2**32)))
    ref = results(random.normal(size=(clips, labels)), random.normal(size=(clips, 3)))
    ours = {name: (a + random.normal(size=a.shape) / 3).astype(np.float32) for name, a in ref.items()}
    if data.draw(st.booleans()):
        ours["logits"][data.draw(st.integers(0, clips - 1)), 0] = data.draw(st.sampled_from([math.nan, math.inf]))
    parts = Comparison(scale_of(ref["logits"].astype(np.float64)), 0.02, task)
    for i in range(0, clips, part):
        parts.add({n: a[i : i + part] for n, a in ref.items()}, {n: a[i : i + part] for n, a in ours.items()})
    found, whole = (asdict(drift) for drift in (parts.drift, compare(ref, ours, 0.02, task)))
    assert {n: v for n, v in found.items() if v is None} == {n: v for n, v in whole.items() if v is None}
    assert {n: v or 0 for n, v in found.items()} == pytest.approx(
        {n: v or 0 for n, v in whole.items()}, rel=1e-14, abs=1e-300, nan_ok=True
    )


def test_equal_results_do_not_drift() -> None:
    ref = results([[1, 2, 3], [9, -4, 0]], [[1, 0], [0, 0]])
    assert compare(ref, ref) == Drift(2, 1.0, 1.0, 0, 0, 0.0, 0.0, 0.0, 0.0, 1.0, 1.0, 0)


def test_a_flip_is_near_up_to_the_margin_and_clear_beyond() -> None:
    # The reference's range is 10; its margins are 1 (0.1 of the range), 2 and 10.
    ref = results([[9, 10, 5], [0, 10, 8], [0, 10, 0]])
    out = results([[10, 9, 5], [0, 8, 10], [0, 10, 0]])
    counts = {m: compare(ref, out, m) for m in (0.0, 0.1, 0.15, 0.2)}
    assert [(d.near_flips, d.clear_flips) for d in counts.values()] == [(0, 2), (1, 1), (1, 1), (2, 0)]
    assert {d.top1 for d in counts.values()} == {1 / 3}


def test_a_tie_that_falls_the_other_way_is_near_at_any_margin() -> None:
    drift = compare(results([[5, 5, 0]]), results([[5, 5.001, 0]]), tie_margin=0.0)
    assert (drift.near_flips, drift.clear_flips) == (1, 0)


def test_margin_of_a_gate_is_what_its_error_can_flip() -> None:
    assert parse_gate("max=0.03", Precision.FP16).tie_margin == 0.06
    assert Gate({}).tie_margin == 0.0


def test_one_label_or_one_value_throughout() -> None:
    drift = compare(results([[3], [3]]), results([[3], [4]]))
    assert (drift.top1, drift.top5, drift.max, drift.kl, drift.clear_flips) == (1.0, 1.0, 1 / 3, 0.0, 0)


def test_one_logit_near_zero_may_change_its_sign() -> None:
    """The cosine of one number is -1 then; the difference is what counts."""
    drift = compare(results([[1e-4], [5]]), results([[-1e-4], [5]]))
    assert drift.cosine is None
    assert drift.max == pytest.approx(2e-4 / (5 - 1e-4))
    gate = parse_gate(None, Precision.FP16)
    assert gate.violations(drift) == []
    assert gate.violations(compare(results([[1], [5]]), results([[1.1], [5]]))) == ["max 0.025 is above 0.01"]


def test_an_embedding_alone_is_judged_by_its_cosine() -> None:
    drift = compare(results(None, [[3, 4], [1, 0]]), results(None, [[3, 4], [1, 1]]))
    assert drift.embedding_cosine == pytest.approx(0.5**0.5)
    assert (drift.top1, drift.max, drift.cosine) == (None, None, None)


def test_a_zero_embedding_agrees_with_itself_only() -> None:
    zero, other = results(None, [[0, 0]]), results(None, [[0, 1]])
    assert compare(zero, zero).embedding_cosine == 1.0
    assert compare(zero, other).embedding_cosine == 0.0


# --- NaN and infinity --------------------------------------------------------------------------


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("gate", ["nonfinite=0", "max=0.9", "kl=9", "rms=9", "cosine=-0.9", "max_abs=9"])
def test_results_that_are_no_numbers_pass_no_gate(value: float, gate: str) -> None:
    ref, out = results([[1, 2, 3], [4, 5, 6]]), results([[1, 2, 3], [4, value, 6]])
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # nor do they clutter the screen
        drift = compare(ref, out)
    assert drift.nonfinite == 1
    (limit,) = parse_gate(gate, Precision.FP32).limits.keys() & {gate.partition("=")[0]}
    only = Gate({limit: parse_gate(gate, Precision.FP32).limits[limit]})
    assert only.violations(drift), f"{limit} is {getattr(drift, limit)}"
    json.dumps(to_json(drift), allow_nan=False)


def test_numbers_that_are_none_are_counted_in_every_output() -> None:
    drift = compare(results([[1, 2]], [[1, 2]]), results([[1, np.nan]], [[np.inf, np.nan]]))
    assert drift.nonfinite == 3
    assert to_json(drift)["nonfinite"] == 3
    assert to_json(drift)["embedding_cosine"] is None


# --- other tasks -------------------------------------------------------------------------------


def sigmoid(x: float) -> float:
    return 1 / (1 + math.exp(-x))


def label_divergence(a: list[float], b: list[float]) -> float:
    pairs = [(sigmoid(x), sigmoid(y)) for x, y in zip(a, b, strict=True)]
    return math.fsum(p * math.log(p / q) + (1 - p) * math.log((1 - p) / (1 - q)) for p, q in pairs)


@settings(max_examples=100, deadline=None)
@given(
    seed=st.integers(0, 10**6),
    shape=st.tuples(st.integers(1, 6), st.integers(1, 7)),
    noise=st.sampled_from([0.0, 1e-3, 0.3, 3.0]),
    tie_margin=st.sampled_from([0.0, 0.02, 0.3, 2.0]),
)
def test_decisions_of_labels_are_those_of_plain_loops(
    seed: int, shape: tuple[int, int], noise: float, tie_margin: float
) -> None:
    rng = np.random.default_rng(seed)
    ref = rng.standard_normal(shape).astype(np.float32) * 3
    out = ref + noise * rng.standard_normal(shape).astype(np.float32)
    found = compare(results(ref), results(out), tie_margin, "multi_label_classification")
    pairs = [(float(a), float(b)) for a, b in zip(ref.ravel(), out.ravel(), strict=True)]
    scale = float(np.ptp(ref.astype(np.float64))) or abs(float(ref[0, 0]))
    flips = [abs(a) for a, b in pairs if (sigmoid(a) >= 0.5) != (sigmoid(b) >= 0.5)]
    assert found.agreement == pytest.approx(1 - len(flips) / len(pairs))
    assert found.near_flips == sum(a <= tie_margin * scale / 2 for a in flips)
    assert found.clear_flips == sum(a > tie_margin * scale / 2 for a in flips)
    rows = zip(ref.tolist(), out.tolist(), strict=True)
    assert found.kl == pytest.approx(max(label_divergence(a, b) for a, b in rows), rel=1e-6, abs=1e-12)
    assert (found.top1, found.top5) == (None, None)


def test_a_regression_has_differences_only() -> None:
    found = compare(results([[1.0], [3.0]]), results([[1.1], [3.0]]), task="regression")
    assert found.max == pytest.approx(0.05)
    assert {found.top1, found.top5, found.agreement, found.near_flips, found.clear_flips, found.kl} == {None}


def test_a_single_value_is_its_own_scale() -> None:
    found = compare(results([[-400.0]]), results([[-404.0]]), task="regression")
    assert found.max_abs == 4.0
    assert found.max == pytest.approx(0.01)


@pytest.mark.parametrize("task", get_args(Task))
@pytest.mark.parametrize("outputs", [("logits",), ("embedding",), ("logits", "embedding")])
@pytest.mark.parametrize("num_labels", [1, 3])
def test_a_gate_limits_only_what_is_measured(task: Task, outputs: tuple[str, ...], num_labels: int) -> None:
    arrays = {name: np.eye(3, num_labels, dtype=np.float32) for name in outputs}
    found = to_json(compare(arrays, arrays, 0.0, task))
    measured = {name for name, value in found.items() if value is not None and name != "num_clips"}
    assert measured_metrics(outputs, task, num_labels) == measured
    gate = parse_gate(None, Precision.FP16, measured=measured)
    assert set(gate.limits) == set(Precision.FP16.gate) & measured
    for name in METRICS - OF_LABELS - measured:
        with pytest.raises(UsageError, match=f"this model has no {name}, because of its task or outputs; use one of"):
            parse_gate(f"{name}=1", Precision.FP16, measured=measured)


# --- gates -------------------------------------------------------------------------------------


def drift(**changes: float | None) -> Drift:
    perfect = dict.fromkeys(("top1", "top5", "cosine", "embedding_cosine"), 1.0)
    zero = dict.fromkeys(("near_flips", "clear_flips", "max_abs", "max", "rms", "kl", "nonfinite"), 0)
    return Drift(**{"num_clips": 3, **perfect, **zero, **changes})  # type: ignore[arg-type]


@pytest.mark.parametrize("precision", list(Precision))
def test_perfect_results_pass_the_default_gates(precision: Precision) -> None:
    assert parse_gate(None, precision).violations(drift()) == []


@pytest.mark.parametrize("precision", list(Precision))
@pytest.mark.parametrize(
    "changes", [{"max": 0.2}, {"cosine": 0.9}, {"clear_flips": 1}, {"nonfinite": 1}, {"embedding_cosine": 0.9}]
)
def test_each_default_limit_can_fail(precision: Precision, changes: dict[str, float]) -> None:
    (said,) = parse_gate(None, precision).violations(drift(**changes))
    ((name, value),) = changes.items()
    assert said.startswith(f"{name} {value:.6g} is ")


@pytest.mark.parametrize("precision", list(Precision))
def test_a_model_without_a_head_is_gated_too(precision: Precision) -> None:
    rng = np.random.default_rng(0)
    embedding = rng.standard_normal((4, 32)).astype(np.float32)
    gate = parse_gate(None, precision)
    assert gate.violations(compare(results(None, embedding), results(None, embedding))) == []
    damaged = compare(results(None, embedding), results(None, embedding[:, ::-1]))
    assert gate.violations(damaged)


@pytest.mark.parametrize(
    ("limits", "changes", "said"),
    [
        ({"top1": 0.99}, {"top1": 0.98}, "top1 0.98 is below 0.99"),
        ({"top5": 0.99}, {"top5": 0.5}, "top5 0.5 is below 0.99"),
        ({"kl": 1e-6}, {"kl": 2e-6}, "kl 2e-06 is above 1e-06"),
        ({"near_flips": 0}, {"near_flips": 2}, "near_flips 2 is above 0"),
        ({"rms": 0.1}, {"rms": 0.2}, "rms 0.2 is above 0.1"),
    ],
)
def test_violations_name_the_figure_and_the_limit(
    limits: dict[str, float], changes: dict[str, float], said: str
) -> None:
    assert Gate(limits).violations(drift(**changes)) == [said]
    assert Gate(limits).violations(drift()) == []


def test_a_limit_itself_is_allowed() -> None:
    assert Gate({"top1": 0.5, "max": 0.1}).violations(drift(top1=0.5, max=0.1)) == []


def test_gate_replaces_and_adds_to_the_defaults() -> None:
    gate = parse_gate(" max=0.02 , top1 = 0.99", Precision.FP16)
    assert gate.limits == {**Precision.FP16.gate, "max": 0.02, "top1": 0.99}
    assert Precision.FP16.gate["max"] == 0.01
    for nothing in (None, ""):
        assert parse_gate(nothing, Precision.BF16).limits == Precision.BF16.gate


def test_with_known_labels_the_drop_of_accuracy_is_limited() -> None:
    gate = parse_gate("accuracy_drop=0.01", Precision.FP16, measured=METRICS)
    assert gate.violations(drift(accuracy_drop=0.02)) == ["accuracy_drop 0.02 is above 0.01"]
    assert gate.violations(drift(accuracy_drop=-0.5)) == [] == gate.violations(drift())


def test_the_strictest_and_the_loosest_limits_are_accepted() -> None:
    text = "top1=1,top5=1e-9,cosine=-0.999,embedding_cosine=1,max=0,clear_flips=0,kl=1e9"
    assert parse_gate(text, Precision.FP16).limits["kl"] == 1e9


@pytest.mark.parametrize("precision", Precision)
def test_no_default_limit_is_useless(precision: Precision) -> None:
    assert not [name for name, limit in precision.gate.items() if why_useless(name, limit)]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("accuracy=0.9", "gate='accuracy=0.9': 'accuracy' is not a metric; use one of .*clear_flips, cosine"),
        ("num_clips=3", "'num_clips' is not a metric"),
        ("top1", "'' is not a number; write for instance top1=0.99"),
        ("top1=", "'' is not a number"),
        ("max=0.1,top1=high", "gate='top1=high': 'high' is not a number"),
        ("top1=nan", "a limit cannot be NaN"),
        ("=0.9", "'' is not a metric"),
        ("top1=2", "gate='top1=2': no model could pass it; the limit must be above 0, and at most 1"),
        ("top1=99", "no model could pass it"),
        ("top5=0", "no model could fail it; the limit must be above 0, and at most 1"),
        ("cosine=-1", "no model could fail it; the limit must be above -1, and at most 1"),
        ("embedding_cosine=1.001", "no model could pass it; the limit must be above -1, and at most 1"),
        ("max=-1", "no model could pass it; the limit must be 0 or more, and finite"),
        ("clear_flips=inf", "no model could fail it; the limit must be 0 or more, and finite"),
        ("max=-inf", "no model could pass it"),
        ("accuracy_drop=0.1", "accuracy_drop is measured only with known labels .* check the bundle with labels=FILE"),
        ("max=0.1,top1=0.9, max=0.2", "gate=' max=0.2': max has two limits; give one"),
    ],
)
def test_gates_that_cannot_be_read(text: str, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        parse_gate(text, Precision.FP16)
