"""Whole numbers that callers give: of Python, of NumPy, or of anything else that counts as an index."""

from __future__ import annotations

import operator
from collections.abc import Iterable, Mapping

from vivit_export.errors import UsageError, option


def whole(name: str, value: object, least: int | None = None) -> int:
    """Return a whole number as Python's.

    Args:
        name: the option that it is of.
        value: what was given; truth values do not count.
        least: the smallest that may be given.

    Raises:
        UsageError: it is no whole number, or too small.
    """
    try:
        number = None if _is_truth_value(value) else operator.index(value)  # type: ignore[arg-type]
    except TypeError:
        number = None
    if number is None:
        raise UsageError(f"{option(name, repr(value))} must be a whole number")
    if least is not None and number < least:
        raise UsageError(f"{option(name, number)} must be at least {least}")
    return number


def _is_truth_value(value: object) -> bool:
    """Whether a value is one of Python's, NumPy's or PyTorch's, without loading either: the CLI needs neither."""
    return isinstance(value, bool) or str(getattr(value, "dtype", "")).removeprefix("torch.") == "bool"


def whole_or_none(name: str, value: object, least: int | None = None) -> int | None:
    """Do `whole`, but for None."""
    return None if value is None else whole(name, value, least)


def wholes(name: str, values: object, count: int | None = None) -> tuple[int, ...]:
    """Return several whole numbers.

    Args:
        name: the option that they are of.
        values: what was given.
        count: how many there must be; None: any number.

    Raises:
        UsageError: they are something else, or fewer or more.
    """
    found = tuple(values) if isinstance(values, Iterable) and not isinstance(values, (str, bytes)) else None
    if found is None or (count is not None and len(found) != count):
        raise UsageError(f"{option(name, repr(values))} must be {'' if count is None else f'{count} '}whole numbers")
    return tuple(whole(name, value) for value in found)


def pair(name: str, values: object) -> tuple[int, int]:
    """Do `wholes` for two numbers."""
    first, second = wholes(name, values, 2)
    return first, second


def set_wholes(record: object, one: Iterable[str], several: Mapping[str, int | None]) -> None:
    """Turn fields of a frozen record into whole numbers of Python, where they are not None.

    Args:
        record: when it is made.
        one: fields with one number.
        several: fields with several, and how many; None: any number.

    Raises:
        UsageError: a field holds something else.
    """
    for name in one:
        object.__setattr__(record, name, whole_or_none(name, getattr(record, name)))
    for name, count in several.items():
        if (values := getattr(record, name)) is not None:
            object.__setattr__(record, name, wholes(name, values, count))
