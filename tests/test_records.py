"""Records as JSON: read strictly, with the path and the value of what is wrong, and written so that they come back."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum
from typing import Any, ClassVar, Literal

import pytest
from hypothesis import given
from hypothesis import strategies as st
from jsonschema import Draft202012Validator

from vivit_export.errors import InputError
from vivit_export.records import DuplicateKeyError, from_json, json_schema, parse_foreign_json, parse_json, to_json


class Color(str, Enum):
    """Two of them."""

    RED = "red"
    BLUE = "blue"


@dataclass(frozen=True)
class Inner:
    """A record in another."""

    size: int
    name: str = ""


@dataclass(frozen=True)
class Wrapped:
    """In JSON it is its only field."""

    JSON_FIELD: ClassVar[str] = "limits"

    limits: Mapping[str, float]


@dataclass(frozen=True)
class Outer:
    """Every kind of field."""

    color: Color
    rule: Literal["a", "b"]
    pair: tuple[int, int]
    many: tuple[Inner, ...] = ()
    by_name: Mapping[str, Inner] = field(default_factory=dict)
    maybe: Inner | None = None
    share: float | None = None
    mixed: tuple[int | str, ...] = ()
    flag: bool = False
    gate: Wrapped = Wrapped({})
    free: Mapping[str, object] = field(default_factory=dict)


WHOLE: dict[str, Any] = {
    "color": "red",
    "rule": "a",
    "pair": [1, 2],
    "many": [{"size": 1}, {"size": 2, "name": "x"}],
    "by_name": {"a b": {"size": 3}},
    "maybe": {"size": 4},
    "share": 1,
    "mixed": [1, "batch"],
    "flag": True,
    "gate": {"max": 0.5},
    "free": {"anything": [1, None, {"x": "y"}]},
}


def test_what_is_read_is_typed() -> None:
    found = from_json(Outer, WHOLE, "outer")
    assert (found.color, found.pair, found.many[1]) == (Color.RED, (1, 2), Inner(2, "x"))
    assert found.by_name == {"a b": Inner(3)} and found.maybe == Inner(4)
    assert (type(found.share), found.share, found.gate) == (float, 1.0, Wrapped({"max": 0.5}))
    assert found.free == {"anything": [1, None, {"x": "y"}]}


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"color": "green"}, "outer.color must be red or blue, got 'green'"),
        ({"rule": "c"}, "outer.rule must be a or b, got 'c'"),
        ({"rule": None}, "outer.rule must be a or b, got None"),
        ({"pair": [1]}, "outer.pair must be a list of 2 int, got [1]"),
        ({"pair": [1, True]}, "outer.pair[1] must be int, got True"),
        ({"pair": [1, 2.0]}, "outer.pair[1] must be int, got 2.0"),
        ({"many": {}}, "outer.many must be a list of a JSON object, got {}"),
        ({"many": [{"size": 1}, 3]}, "outer.many[1] must be a JSON object, got int"),
        ({"by_name": {"a b": {}}}, "outer.by_name.a b lacks the field 'size'; it is incomplete"),
        ({"by_name": []}, "outer.by_name must be a JSON object, got []"),
        ({"maybe": {"size": "4"}}, "outer.maybe.size must be int, got '4'"),
        ({"maybe": []}, "outer.maybe must be a JSON object, got list"),
        ({"share": "1"}, "outer.share must be a finite number or null, got '1'"),
        ({"share": math.inf}, "outer.share must be a finite number or null, got inf"),
        ({"share": True}, "outer.share must be a finite number or null, got True"),
        ({"mixed": [None]}, "outer.mixed[0] must be int or str, got None"),
        ({"flag": 1}, "outer.flag must be bool, got 1"),
        ({"gate": {"max": None}}, "outer.gate.max must be a finite number, got None"),
        ({"more": 1}, "outer has an unknown field 'more'; it was written by another version"),
        ({"color": "x" * 100}, "outer.color must be red or blue, got '" + "x" * 59 + "…"),
    ],
)
def test_what_is_wrong_is_named_with_its_place_and_value(change: dict[str, Any], sentence: str) -> None:
    with pytest.raises(InputError) as raised:
        from_json(Outer, {**WHOLE, **change}, "outer")
    assert str(raised.value) == sentence


def test_what_is_missing_is_named() -> None:
    with pytest.raises(InputError, match=r"^outer lacks the field 'rule'; it is incomplete$"):
        from_json(Outer, {k: v for k, v in WHOLE.items() if k != "rule"}, "outer")


INNERS = st.builds(Inner, st.integers(), st.text(max_size=5))
OUTERS = st.builds(
    Outer,
    st.sampled_from(Color),
    st.sampled_from(["a", "b"]),
    st.tuples(st.integers(), st.integers()),
    st.lists(INNERS, max_size=3).map(tuple),
    st.dictionaries(st.text(max_size=5), INNERS, max_size=3),
    st.none() | INNERS,
    st.none() | st.floats(allow_nan=False, allow_infinity=False),
    st.lists(st.integers() | st.text(max_size=5), max_size=3).map(tuple),
    st.booleans(),
    st.dictionaries(st.text(max_size=5), st.floats(allow_nan=False, allow_infinity=False), max_size=3).map(Wrapped),
)


@given(OUTERS)
def test_what_is_written_comes_back_and_fits_the_schema(outer: Outer) -> None:
    data = to_json(outer)
    assert from_json(Outer, data, "outer") == outer
    Draft202012Validator(json_schema(Outer, "outer")).validate(data)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=5,
)


@given(st.sampled_from(sorted(WHOLE)), JSON)
def test_any_value_is_read_or_refused_in_a_sentence_and_the_schema_agrees(name: str, value: Any) -> None:
    data = {**WHOLE, name: value}
    try:
        from_json(Outer, data, "outer")
    except InputError:
        return
    Draft202012Validator(json_schema(Outer, "outer")).validate(data)


def test_what_json_lacks_becomes_null() -> None:
    assert to_json({"a": math.nan, "b": (math.inf, 1.5), "c": Color.BLUE}) == {
        "a": None,
        "b": [None, 1.5],
        "c": "blue",
    }


@pytest.mark.parametrize("text", ['{"a": 1, "b": 2, "a": 3}', '{"x": [{"a": 1, "a": 1}]}'])
def test_a_key_that_stands_twice_is_refused(text: str) -> None:
    with pytest.raises(DuplicateKeyError, match="the key 'a' stands twice in one object"):
        parse_json(text)


@pytest.mark.parametrize("text", ["NaN", "[Infinity]", '{"a": -Infinity}'])
def test_numbers_that_json_lacks_are_refused(text: str) -> None:
    with pytest.raises(ValueError, match="is not a number in JSON"):
        parse_json(text)


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("[" * 65 + "]" * 65, "more than 64 levels"),
        ('{"a":' * 65 + "1" + "}" * 65, "more than 64 levels"),
        ("[" * 100_000, "more than 64 levels"),
        ("[" + "[]," * 200_000 + "[]]", "more than 200000 arrays and objects"),
        ('["\\ud800"]', "half of a surrogate pair"),
        ('{"\\uDFFF": 1}', "half of a surrogate pair"),
        ('["\\udc00\\ud800"]', "half of a surrogate pair"),
    ],
    ids=["lists", "objects", "far too deep", "far too many", "a value", "a key", "a pair the wrong way round"],
)
def test_what_no_reader_could_write_again_is_refused(text: str, why: str) -> None:
    for parse in (parse_json, parse_foreign_json):
        with pytest.raises(ValueError, match=why):
            parse(text)


@pytest.mark.parametrize("text", ["9223372036854775808", "-9223372036854775808", "1" * 5000, "1e400", "-1e999"])
def test_numbers_beyond_64_bits_are_refused(text: str) -> None:
    with pytest.raises(ValueError, match="beyond"):
        parse_json(text)


def test_what_is_just_within_the_limits_is_read() -> None:
    assert parse_json("[" * 64 + "]" * 64)
    assert parse_json("[9223372036854775807, -9223372036854775807, 1e308]") == [2**63 - 1, 1 - 2**63, 1e308]
    assert parse_json('["\\ud83d\\ude00"]') == ["\U0001f600"]
    assert parse_foreign_json('{"a": 1, "a": Infinity}') == {"a": math.inf}


def test_a_key_that_stands_twice_among_many_is_found_at_once() -> None:
    text = "{" + "".join(f'"{i}": 0, ' for i in range(200_000)) + '"199999": 0}'
    with pytest.raises(DuplicateKeyError, match="'199999'"):
        parse_json(text)


def test_a_wrong_value_is_named_in_short() -> None:
    with pytest.raises(InputError) as e:
        from_json(Inner, {"x" * 10_000: 1}, "inner")
    assert len(str(e.value)) < 200
