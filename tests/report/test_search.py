"""How the choice of a precision is told."""

from __future__ import annotations

import pytest

from vivit_export.bundle.search import PrecisionSearch, TriedPrecision
from vivit_export.errors import InputError
from vivit_export.precision import Precision
from vivit_export.records import from_json, to_json
from vivit_export.report.search import search_text
from vivit_export.runtime.bench.run import this_machine

TRIED = (
    TriedPrecision(Precision.FP8, "beyond the gate", "max 0.2 is above 0.1"),
    TriedPrecision(Precision.INT8, "chosen", drift=0.0123, engine="openvino", ms_per_clip=12.345),
    TriedPrecision(Precision.FP32, "slower", "takes 2.00 times as long as int8", 1e-7, "openvino", 24.69),
)


def test_times_are_told_with_the_machine() -> None:
    machine = this_machine()
    first, *rows = search_text(PrecisionSearch("time", 1, TRIED, 20, machine))
    assert (
        first
        == f"int8, by --precision auto: engines timed in turns on this machine ({machine.cpu}), batch 1, 20 rounds"
    )
    assert [" ".join(row.split()) for row in rows] == [
        "fp8 beyond the gate max 0.2 is above 0.1",
        "int8 chosen 1.2 % 12.3 ms openvino",
        "fp32 slower 1e-05 % 24.7 ms openvino takes 2.00 times as long as int8",
    ]


def test_rated_plans_say_that_nothing_was_timed() -> None:
    tried = (TriedPrecision(Precision.FP16, "chosen", drift=0.001, engine="tensorrt-rtx-sm89", plan_cost=1.0),)
    first, row = search_text(PrecisionSearch("plan", 4, tried))
    assert "nothing was timed" in first and "plans rated at batch 4" in first
    assert " ".join(row.split()) == "fp16 chosen 0.1 % cost 1.00 tensorrt-rtx-sm89"


def test_a_record_with_none_or_two_chosen_is_refused() -> None:
    assert from_json(PrecisionSearch, to_json(PrecisionSearch("time", 1, TRIED)), "search").chosen == TRIED[1]
    for tried in (TRIED[::2], (TRIED[1], TRIED[1])):
        with pytest.raises(InputError, match="one of the precisions must be chosen, and each be there once"):
            PrecisionSearch("time", 1, tried)
