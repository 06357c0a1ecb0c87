"""The geometry of the drawings: within their frame, whatever a bundle says."""

from __future__ import annotations

from dataclasses import replace

import pytest
from long_report import long_report

from vivit_export.bundle.checks import BlockDrift
from vivit_export.report.charts import block_bars, block_map, effect_bars, latency_bars, percent, step_bars, tap_bars


@pytest.mark.parametrize(
    ("value", "of", "expected"),
    [
        (1, 4, 25),
        (5, 4, 100),
        (-1, 4, 0),
        (1, 0, 0),
        (0, 0, 0),
        (1e308, 1e-308, 0),
        (10**400, 3, 0),
        (float("nan"), 1, 0),
    ],
)
def test_a_length_is_between_nothing_and_all(value: float, of: float, expected: float) -> None:
    assert percent(value, of) == expected


def test_the_block_map_has_a_row_for_each_layer_in_the_order_of_the_data() -> None:
    found = block_map(long_report().precision.layers)
    assert found is not None and found.blocks == 12
    assert [name for name, _, _ in found.rows] == [
        *("attention.q_proj", "attention.k_proj", "attention.v_proj", "attention.o_proj", "mlp.fc1", "mlp.fc2")
    ]
    _, words, cells = found.rows[0]
    assert words == "int8 in 11 blocks; float16 in 3"
    assert [cell.kind for cell in cells[:4]] == ["code", "code", "code", "half"]
    assert cells[3].text == "block 3: float16" and cells[3].start == 25 and cells[-1].start + cells[-1].width == 100
    assert found.types == {"code": "int8", "half": "float16"}
    assert found.others == (("classifier", "float16"), ("embeddings.projection", "float16"))


@pytest.mark.parametrize("layers", [{}, {"head": "float32"}, {"layers.999.fc": "int8"}, {"layers.99999.fc": "int8"}])
def test_no_map_where_there_are_no_blocks_or_absurdly_many(layers: dict[str, str]) -> None:
    assert block_map(layers) is None


def test_bars_are_relative_to_the_largest() -> None:
    report = long_report()
    assert report.bench is not None and report.checks is not None and report.precision.quantization is not None
    bars = latency_bars(report.bench)
    assert [bar.label for bar in bars] == ["tensorrt-rtx, batch 1", "tensorrt-rtx, batch 4", "eager, batch 1"]
    assert bars[2].mark is not None and bars[2].mark == pytest.approx(98, abs=0.1)
    assert bars[2].width / bars[2].mark == pytest.approx(130.4 / 138.7, abs=0.01)
    assert [bar.width for bar in block_bars(report.checks.blocks)][-1] == 100
    effects = effect_bars(report.precision.quantization.sensitivity)
    assert len(effects) == 12 and effects[0].width == 100 and effects[1].width == 50
    assert block_bars([BlockDrift("a", 0.0, 0.0)])[0].width == 0
    assert block_bars([BlockDrift("a", None, None)])[0].value == "not finite"


def test_taps_have_the_eager_model_as_a_mark_and_stand_out_beyond_their_budget() -> None:
    checks = long_report().checks
    assert checks is not None and checks.taps is not None
    bars = tap_bars(checks.taps)
    assert (bars[0].label, bars[-1].label) == ("embeddings", "logits") and len(bars) == 26
    assert [bar.kind for bar in bars].count("bad") == 6 and bars[-1].kind == "bad"
    assert bars[-1].width == pytest.approx(100 / 1.02, abs=0.01)
    assert bars[-1].mark == pytest.approx(100 / 1.02 / 20, abs=0.01)


def test_steps_follow_each_other() -> None:
    report = long_report()
    assert report.bench is not None
    (fast, slow) = step_bars(report.bench)
    assert fast[:2] == ("tensorrt-rtx", "43.4 ms")
    assert [part.label for part in slow[2]] == ["open", "decode", "preprocess", "run"]
    for before, after in zip(slow[2], slow[2][1:], strict=False):
        assert after.start == pytest.approx(before.start + before.width, abs=0.01)
    assert slow[2][-1].start + slow[2][-1].width == pytest.approx(100, abs=0.05)
    huge = replace(report.bench.contenders["eager"], steps_seconds={"a": 1e308, "b": 1e308})
    assert step_bars(replace(report.bench, contenders={"x": huge}))
