"""What callers give is taken as Python's own, or refused in a sentence."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from bundles import need

from vivit_export.arguments import (
    pair,
    pair_or_none,
    path_or_none,
    paths,
    set_fields,
    text,
    text_or_none,
    texts,
    three,
    whole,
    whole_or_none,
    wholes,
)
from vivit_export.errors import UsageError


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


@pytest.mark.parametrize("values", [2, np.int64(2), np.array(2), [2], np.array([2]), iter([2])])
def test_one_number_alone_is_a_row_of_one(values: Any) -> None:
    assert wholes("x", values) == (2,)


def test_counts_have_functions_of_their_own() -> None:
    assert pair_or_none("x", None) is None and pair_or_none("x", [2, 1]) == (2, 1)
    assert three("x", [1, 4, 8]) == (1, 4, 8)
    with pytest.raises(UsageError, match=r"^x=None must be 3 whole numbers$"):
        three("x", None)


@pytest.mark.parametrize("values", ["ab", ["ab"], ("ab",), iter(["ab"])])
def test_a_text_is_not_taken_apart(values: Any) -> None:
    assert texts("x", values) == ("ab",)
    assert text("x", "ab") == text_or_none("x", "ab") == "ab" and text_or_none("x", None) is None


@pytest.mark.parametrize("values", [None, 3, b"ab", ["ab", 3], np.array(3)])
def test_what_is_no_text_is_refused(values: Any) -> None:
    with pytest.raises(UsageError, match=r"^x=.* must be a text, or several$"):
        texts("x", values)
    with pytest.raises(UsageError, match=r"^x=.* must be a text$"):
        text("x", values)


@pytest.mark.parametrize("values", ["a/b", Path("a/b"), ["a/b"], (Path("a/b"),), iter(["a/b"])])
def test_paths_may_be_strings_and_one_may_be_alone(values: Any) -> None:
    assert paths("x", values) == (Path("a/b"),)
    assert path_or_none("x", "a/b") == Path("a/b") and path_or_none("x", None) is None


@pytest.mark.parametrize("values", [None, 3, b"ab", ["ab", 3], "a\0b"])
def test_what_is_no_path_is_refused(values: Any) -> None:
    with pytest.raises(UsageError, match=r"^x"):
        paths("x", values)


def test_fields_of_a_record_are_replaced() -> None:
    @dataclass(frozen=True)
    class Record:
        one: Any
        several: Any

    record = Record(np.int64(1), [np.int64(1), 2])
    set_fields(record, whole, "one")
    set_fields(record, wholes, "several")
    assert record == Record(1, (1, 2)) and type(record.one) is type(record.several[0]) is int
    with pytest.raises(UsageError, match=r"^calibration\.one=1 must be a text$"):
        set_fields(record, text, "one", within="calibration.")
