"""Whole numbers: those of NumPy are taken as Python's, and everything else is refused in a sentence."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
from bundles import need

from vivit_export.errors import UsageError
from vivit_export.whole import pair, set_wholes, whole, whole_or_none, wholes


@pytest.mark.parametrize("value", [3, np.int64(3), np.uint8(3), np.array(3)])
def test_every_kind_of_integer_becomes_pythons(value: Any) -> None:
    assert type(whole("x", value, 3)) is int and whole("x", value) == 3
    assert whole_or_none("x", None) is None


@pytest.mark.parametrize("value", [2.0, np.float32(2), "2", True, np.bool_(True), None, [2], np.array([2, 3])])
def test_anything_else_is_refused(value: Any) -> None:
    with pytest.raises(UsageError, match=r"^x=.* must be a whole number$"):
        whole("x", value)


def test_tensors_count_as_numbers_and_truth_values_as_they_do_elsewhere() -> None:
    need("torch")
    import torch

    assert whole("x", torch.tensor(3)) == 3
    with pytest.raises(UsageError, match=r"^x=.* must be a whole number$"):
        whole("x", torch.tensor(True))


def test_what_is_too_small_is_refused() -> None:
    with pytest.raises(UsageError, match=r"^x=0 must be at least 1$"):
        whole_or_none("x", np.int8(0), 1)


@pytest.mark.parametrize("values", [(2, 1), [2, 1], np.array([2, 1]), iter([2, 1])])
def test_several_may_come_in_any_container(values: Any) -> None:
    found = pair("x", values)
    assert found == (2, 1) and all(type(number) is int for number in found)


@pytest.mark.parametrize("values", [2, "21", b"21", (1, 2, 3), None])
def test_other_containers_and_counts_are_refused(values: Any) -> None:
    with pytest.raises(UsageError, match=r"^x=.* must be 2 whole numbers$"):
        wholes("x", values, 2)


def test_fields_of_a_record_are_replaced() -> None:
    @dataclass(frozen=True)
    class Record:
        one: Any
        none: Any
        several: Any

    record = Record(np.int64(1), None, [np.int64(1), 2])
    set_wholes(record, ("one", "none"), {"several": None, "none": 2})
    assert record == Record(1, None, (1, 2)) and type(record.one) is type(record.several[0]) is int
