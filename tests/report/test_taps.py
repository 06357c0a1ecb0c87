"""The taps as a table, and the first suspect in words."""

from __future__ import annotations

from dataclasses import replace

from vivit_export.bundle.taps import Suspect, Tap, TapError, TapReport
from vivit_export.precision import Precision
from vivit_export.report.taps import suspect_sentence, taps_lines

FINE = TapError(4e-4, 0.9999999, 0.1, 5e-3)
LOST = TapError(None, None, None, 5e-3)
TAPS = (Tap("embeddings", FINE, FINE, FINE), Tap("layer 0 MLP", LOST, FINE, replace(LOST, budget=None)))
SUSPECT = Suspect(
    "layer 0 MLP", "precision", "embeddings", ("layers.0.mlp.fc1/MatMul", "b", "c", "d", "e", "f", "g", "h"),
    ("layers.0.mlp.fc1",), "keep_fp32", r"^layers\.0\.mlp",
)  # fmt: skip


def test_a_table_names_the_first_tap_beyond_its_budget_and_what_to_keep() -> None:
    assert taps_lines(TapReport("ort, fp16 rounding emulated", Precision.FP16, TAPS, SUSPECT)) == [
        "tap           eager fp16     graph        total     cosine",
        "embeddings      4.0e-04   4.0e-04      4.0e-04   0.9999999",
        "layer 0 MLP  not finite*  4.0e-04   not finite           –",
        "eager fp16: from eager fp32; graph: from eager fp16 (ort, fp16 rounding emulated); total: graph from eager "
        "fp32",
        "relative RMS error, the worst of the clips; * is beyond its budget",
        "drift begins in layer 0 MLP (embeddings is within its budget): eager fp16 is off by values that are not "
        "finite, where 0.005 is allowed, so the type is the cause",
        "between: 8 nodes, layers.0.mlp.fc1/MatMul, b, c, d, e, f and 2 more",
        r"to do: export again with --keep-fp32 '^layers\.0\.mlp', or with --fix, which finds the fewest",
    ]


def test_a_float32_graph_has_nothing_wider() -> None:
    taps = (Tap("embeddings", None, TapError(0.1, 0.9, 1.0, 1e-5), FINE),)
    suspect = replace(SUSPECT, tap="embeddings", cause="graph", after=None, option=None, pattern=None)
    report = TapReport("ort", Precision.FP32, taps, suspect)
    assert suspect_sentence(report) == (
        "drift begins in embeddings: the graph is off from eager fp32 by 1.0e-01, where 1e-05 is allowed, so the "
        "graph is the cause"
    )
    assert taps_lines(report)[0].split() == ["tap", "graph", "cosine"]
    assert taps_lines(report)[-1].startswith("to do: nothing is wider than fp32")


def test_without_a_suspect_it_says_so() -> None:
    report = TapReport("ort", Precision.FP16, TAPS[:1])
    assert taps_lines(report)[-1] == "no tap is beyond its budget"
    assert suspect_sentence(report) == ""
