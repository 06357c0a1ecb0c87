"""What callers give, as Python's own whole numbers, texts and paths, or as it is; all else is refused in a sentence.

Of what may be one or several, one alone is taken for a row of one: a text is never taken apart into its letters.
"""

from __future__ import annotations

import operator
import os
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from vivit_export.errors import UsageError, option
from vivit_export.files import as_path

T = TypeVar("T")


def whole(name: str, value: object, least: int | None = None) -> int:
    """Return a whole number as Python's: also one of NumPy, or of anything else that counts as an index.

    Args:
        name: the option that it is of.
        value: what was given; truth values do not count.
        least: the smallest that may be given.

    Raises:
        UsageError: it is not a whole number, or too small.
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
    found = _several(values) if count is not None or _has_items(values) else (values,)
    if found is None or (count is not None and len(found) != count):
        raise UsageError(f"{option(name, repr(values))} must be {'' if count is None else f'{count} '}whole numbers")
    return tuple(whole(name, value) for value in found)


def pair(name: str, values: object) -> tuple[int, int]:
    """Do `wholes` for two numbers."""
    first, second = wholes(name, values, 2)
    return first, second


def pair_or_none(name: str, values: object) -> tuple[int, int] | None:
    """Do `pair`, but for None."""
    return None if values is None else pair(name, values)


def three(name: str, values: object) -> tuple[int, int, int]:
    """Do `wholes` for three numbers."""
    first, second, third = wholes(name, values, 3)
    return first, second, third


def text(name: str, value: object) -> str:
    """Return a text.

    Args:
        name: the option that it is of.
        value: what was given.

    Raises:
        UsageError: it is something else.
    """
    if not isinstance(value, str):
        raise UsageError(f"{option(name, repr(value))} must be a text")
    return value


def text_or_none(name: str, value: object) -> str | None:
    """Do `text`, but for None."""
    return None if value is None else text(name, value)


def texts(name: str, values: object) -> tuple[str, ...]:
    """Return one text or several.

    Args:
        name: the option that they are of.
        values: what was given.

    Raises:
        UsageError: they are something else.
    """
    found = (values,) if isinstance(values, str) else _several(values)
    if found is None or not all(isinstance(value, str) for value in found):
        raise UsageError(f"{option(name, repr(values))} must be a text, or several")
    return tuple(text(name, value) for value in found)


def path_or_none(name: str, value: object) -> Path | None:
    """Do `files.as_path`, but for None."""
    return None if value is None else as_path(value, name)


def paths(name: str, values: object) -> tuple[Path, ...]:
    """Return one path or several.

    Args:
        name: the option that they are of.
        values: what was given.

    Raises:
        UsageError: they are something else; see `files.as_path`.
    """
    found = None if isinstance(values, os.PathLike) else _several(values)
    return tuple(as_path(value, name) for value in ((values,) if found is None else found))


def instance(name: str, value: object, kind: type[T]) -> T:
    """Return an object of a class of this package, which has no other form.

    Args:
        name: the argument that it is.
        value: what was given.
        kind: that class.

    Raises:
        UsageError: it is something else; the message says so if that has one.
    """
    if isinstance(value, kind):
        return value
    has_one = isinstance(getattr(value, name, None), kind)
    fix = f"; give its .{name}" if has_one else ""
    raise UsageError(f"{name} must be a {kind.__name__}, got {type(value).__name__}{fix}")


def set_fields(record: object, convert: Callable[[str, object], object], *names: str, within: str = "") -> None:
    """Replace fields of a frozen record, while it is made, by what a function above makes of them.

    Args:
        record: the record.
        convert: takes the name of an option and a value.
        names: of the fields.
        within: what the options' names begin with, if that is more than the fields'.

    Raises:
        UsageError: a field holds something else.
    """
    for name in names:
        object.__setattr__(record, name, convert(within + name, getattr(record, name)))


def _has_items(value: object) -> bool:
    """Whether a value can be iterated; an array of no dimension says that it can, and cannot."""
    try:
        iter(value)  # type: ignore[call-overload]
    except TypeError:
        return False
    return True


def _several(values: object) -> tuple[object, ...] | None:
    """Return the items of what has some; None for a text and for all else."""
    return None if isinstance(values, (str, bytes)) or not _has_items(values) else tuple(values)  # type: ignore
