"""Frozen dataclasses as JSON: written plainly, read strictly, described by a JSON schema.

The annotations of a dataclass are its format. Reading refuses a field that is missing, unknown or of the wrong type,
with a message that names its path, its value and the required type. No other module looks at raw JSON.
"""

from __future__ import annotations

import dataclasses
import functools
import inspect
import json
import math
import re
import sys
import types
import typing
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from enum import Enum
from typing import Any, Literal, TypeVar, Union

from vivit_export.errors import InputError

JsonObject = dict[str, Any]
"""An object that is about to become JSON, or was just parsed; nothing else is typed so loosely."""

T = TypeVar("T")

_STANDS_FOR = "JSON_FIELD"
"""Class attribute of a record that is, in JSON, the one field that it names."""

MOST_LEVELS = 64
"""How deep arrays and objects may lie in each other; repeated in detail/manifest/json.hpp."""
MOST_CONTAINERS = 200_000
"""How many arrays and objects a file may have: each costs a hundred times its text."""
_LARGEST_INTEGER = 2**63 - 1  # what C++ reads, too
_SHOWN = 60  # characters of a wrong value
_LONE_SURROGATE = re.compile(r"[\ud800-\udfff]")
_FIELD_OF_DOCSTRING = re.compile(r"^    (\w+): (.*(?:\n {5,}.*)*)", re.MULTILINE)
_ESCAPED_SURROGATE = re.compile(r"\\u[dD][89a-fA-F]")


class DuplicateKeyError(ValueError):
    """A JSON object with a duplicate key: readers would disagree about its value."""


def parse_json(text: str) -> Any:
    """Parse JSON strictly, refusing what only some readers accept.

    Raises:
        ValueError: it is not JSON; it has a duplicate key, an invalid number or one beyond 64 bits, half of a surrogate
            pair, more than `MOST_LEVELS` levels, or more than `MOST_CONTAINERS` arrays and objects.
    """
    hooks: dict[str, Any] = {"object_pairs_hook": _object, "parse_constant": _not_a_number}
    return _parse(text, parse_int=_integer, parse_float=_float, **hooks)


def parse_foreign_json(text: str) -> Any:
    """Parse JSON that another program wrote, which may have duplicate keys and NaN.

    Raises:
        ValueError: it is not JSON, has half of a surrogate pair, more than `MOST_LEVELS` levels, or more than
            `MOST_CONTAINERS` arrays and objects.
    """
    return _parse(text)


def _parse(text: str, **hooks: Any) -> Any:
    if text.count("[") + text.count("{") > MOST_CONTAINERS:  # also in strings, which is close enough
        raise ValueError(f"it has more than {MOST_CONTAINERS} arrays and objects")
    try:
        found = json.loads(text, **hooks)
    except RecursionError as e:
        raise ValueError(_TOO_DEEP) from e
    _require_levels(found)
    if _ESCAPED_SURROGATE.search(text) and _LONE_SURROGATE.search(json.dumps(found, ensure_ascii=False)):
        raise ValueError("it has half of a surrogate pair, which is not a character")
    return found


_TOO_DEEP = f"it has more than {MOST_LEVELS} levels of arrays and objects"


def _require_levels(found: Any) -> None:
    level = [found] if isinstance(found, (dict, list)) else []
    for _ in range(MOST_LEVELS):
        inner = (item for outer in level for item in (outer.values() if isinstance(outer, dict) else outer))
        level = [item for item in inner if isinstance(item, (dict, list))]
        if not level:
            return
    raise ValueError(_TOO_DEEP)


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        twice = next(name for name, count in Counter(name for name, _ in pairs).items() if count > 1)
        raise DuplicateKeyError(f"the key {shown(twice)} stands twice in one object")
    return found


def _not_a_number(text: str) -> None:
    raise ValueError(f"{text} is not a number in JSON")


def _integer(text: str) -> int:
    if len(text) > 20 or abs(int(text)) > _LARGEST_INTEGER:
        raise ValueError(f"the number {shortly(text)} is beyond 64 bits")
    return int(text)


def _float(text: str) -> float:
    found = float(text)
    if not math.isfinite(found):
        raise ValueError(f"the number {shortly(text)} is beyond what 64 bits hold")
    return found


def to_json(value: Any) -> Any:
    """Return a record as JSON types; NaN and infinity, which JSON lacks, become null."""
    if isinstance(value, Enum):
        return value.value
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {str(key): to_json(item) for key, item in value.items()}
    if isinstance(value, (tuple, list)):
        return [to_json(item) for item in value]
    if dataclasses.is_dataclass(value):
        if inner := getattr(value, _STANDS_FOR, None):
            return to_json(getattr(value, inner))
        return {f.name: to_json(getattr(value, f.name)) for f in dataclasses.fields(value)}
    return value


def from_json(cls: Callable[..., T], data: Any, where: str) -> T:
    """Read a record.

    Args:
        cls: a dataclass with field types that `describe` supports.
        data: the parsed JSON.
        where: what messages call it, such as ``contract``.

    Raises:
        InputError: a field is missing, unknown, or of the wrong type, or the record itself refuses its values.
    """
    if inner := getattr(cls, _STANDS_FOR, None):
        return cls(_read(_hints(cls)[inner], data, where))
    if not isinstance(data, dict):
        raise InputError(f"{where} must be a JSON object, got {type(data).__name__}")
    hints = _hints(cls)
    unknown = sorted(set(data) - set(hints))
    if unknown:
        raise InputError(f"{where} has an unknown field {shown(unknown[0])}; it was written by another version")
    missing = [name for name in _required(cls) if name not in data]
    if missing:
        raise InputError(f"{where} lacks the field {missing[0]!r}; it is incomplete")
    read = {name: _read(hints[name], value, f"{where}.{name}") for name, value in data.items()}
    return cls(**read)


@functools.cache
def _hints(cls: Any) -> dict[str, Any]:
    hints = typing.get_type_hints(cls)
    return {f.name: hints[f.name] for f in dataclasses.fields(cls)}


@functools.cache
def _required(cls: Any) -> tuple[str, ...]:
    missing = dataclasses.MISSING
    fields = dataclasses.fields(cls)
    return tuple(f.name for f in fields if f.default is missing and f.default_factory is missing)


def _read(hint: Any, value: Any, where: str) -> Any:
    origin, args = typing.get_origin(hint), typing.get_args(hint)
    if dataclasses.is_dataclass(hint) and isinstance(hint, type):
        return from_json(hint, value, where)
    if origin in (types.UnionType, Union):
        return _read_union(hint, value, where)
    if origin is tuple and isinstance(value, list):
        if args[-1] is Ellipsis and _are_all(args[0], value):
            return tuple(value)
        kinds = [args[0]] * len(value) if args[-1] is Ellipsis else list(args)
        if len(kinds) == len(value):
            return tuple(_read(k, v, f"{where}[{i}]") for i, (k, v) in enumerate(zip(kinds, value, strict=True)))
    elif origin is list and isinstance(value, list):
        return [_read(args[0], v, f"{where}[{i}]") for i, v in enumerate(value)]
    elif origin in (dict, Mapping) and isinstance(value, dict):
        return {key: _read(args[1], item, f"{where}.{shortly(key)}") for key, item in value.items()}
    elif hint is object:  # data of another program
        return value
    elif _fits(hint, value):
        return hint(value) if isinstance(hint, type) else value
    raise InputError(f"{where} must be {_words(hint)}, got {shown(value)}")


def _are_all(hint: Any, values: Sequence[Any]) -> bool:
    """Return whether a list needs no second look: a hostile one may have millions of items."""
    return hint in (str, int) and all(type(value) is hint for value in values)


def _read_union(hint: Any, value: Any, where: str) -> Any:
    options = [option for option in typing.get_args(hint) if option is not type(None)]
    if value is None and len(options) < len(typing.get_args(hint)):
        return None
    if len(options) == 1 and dataclasses.is_dataclass(options[0]):
        return _read(options[0], value, where)  # its own words say what is wrong inside
    for option in options:
        try:
            return _read(option, value, where)
        except InputError:
            continue
    raise InputError(f"{where} must be {_words(hint)}, got {shown(value)}")


def _fits(hint: Any, value: Any) -> bool:
    """Return whether a simple value is of a type; true is not an integer, and an integer is a number."""
    if typing.get_origin(hint) is Literal:
        return type(value) is str and value in typing.get_args(hint)
    if hint is float:
        return type(value) in (int, float) and abs(value) <= sys.float_info.max  # false for NaN
    if isinstance(hint, type) and issubclass(hint, Enum):
        return value in [member.value for member in hint]
    return type(value) is hint


def _words(hint: Any) -> str:
    """Return an annotation in words."""
    origin, args = typing.get_origin(hint), typing.get_args(hint)
    if origin in (tuple, list):
        counted = origin is tuple and args[-1] is not Ellipsis
        return f"a list of {len(args)} {_words(args[0])}" if counted else f"a list of {_words(args[0])}"
    if origin is Literal:
        return " or ".join(map(str, args))
    if origin in (types.UnionType, Union):
        return " or ".join(map(_words, args))
    if origin in (dict, Mapping) or dataclasses.is_dataclass(hint):
        return "a JSON object"
    if hint is type(None):
        return "null"
    if isinstance(hint, type) and issubclass(hint, Enum):
        return " or ".join(str(member.value) for member in hint)
    return "a finite number" if hint is float else str(hint.__name__)


def shown(value: object) -> str:
    """Return a value in Python's notation, for a message."""
    return shortly(repr(value))


def shortly(text: str) -> str:
    """Return the beginning of a text, for a message."""
    return text if len(text) <= _SHOWN else f"{text[:_SHOWN]}…"


def json_schema(cls: type, title: str, file_format: str | None = None) -> JsonObject:
    """Return the JSON schema (draft 2020-12) of what `from_json` reads.

    Args:
        cls: the record.
        title: name of the file.
        file_format: value of its field ``format``; None: the file has none.
    """
    definitions: dict[str, Any] = {}
    body = _definition(cls, definitions)
    if file_format is not None:
        body["properties"] = {"format": {"const": file_format}, **body["properties"]}
        body["required"] = ["format", *body["required"]]
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": title,
        **body,
        **({"$defs": dict(sorted(definitions.items()))} if definitions else {}),
    }


def _definition(cls: type, definitions: dict[str, Any]) -> dict[str, Any]:
    said = _descriptions(cls)
    return {
        "type": "object",
        "description": _plain((inspect.getdoc(cls) or "").partition("\n\n")[0]),  # 3.13 has dedented it
        "properties": {
            name: {**describe(hint, definitions), **({"description": said[name]} if name in said else {})}
            for name, hint in _hints(cls).items()
        },
        "required": list(_required(cls)),
        "additionalProperties": False,
    }


def _descriptions(cls: type) -> dict[str, str]:
    """Return what the docstrings of a record and of its bases say of each field, as editors show it."""
    found: dict[str, str] = {}
    for base in reversed(cls.__mro__):
        _, _, section = (inspect.cleandoc(base.__doc__ or "")).partition("Attributes:\n")
        for name, text in _FIELD_OF_DOCSTRING.findall(section.partition("\n\n")[0]):
            found[name] = _plain(text)
    return found


def _plain(text: str) -> str:
    return " ".join(text.split()).replace("``", "`")


def describe(hint: Any, definitions: dict[str, Any]) -> dict[str, Any]:
    """Return the schema of one annotation; add the records that it names to ``definitions``."""
    origin, args = typing.get_origin(hint), typing.get_args(hint)
    if dataclasses.is_dataclass(hint) and isinstance(hint, type):
        if inner := getattr(hint, _STANDS_FOR, None):
            return describe(_hints(hint)[inner], definitions)
        if hint.__name__ not in definitions:
            definitions[hint.__name__] = {}  # reserves the name, should it contain itself
            definitions[hint.__name__] = _definition(hint, definitions)
        return {"$ref": f"#/$defs/{hint.__name__}"}
    if origin is tuple and args[-1] is not Ellipsis:
        items = [describe(arg, definitions) for arg in args]
        return {"type": "array", "prefixItems": items, "items": False, "minItems": len(items)}
    if origin in (tuple, list):
        return {"type": "array", "items": describe(args[0], definitions)}
    if origin in (dict, Mapping):
        return {"type": "object", "additionalProperties": describe(args[1], definitions)}
    if origin in (types.UnionType, Union):
        return {"anyOf": [describe(arg, definitions) for arg in args]}
    if origin is Literal:
        return {"enum": list(args)}
    if isinstance(hint, type) and issubclass(hint, Enum):
        return {"enum": [member.value for member in hint]}
    return {"type": _JSON_TYPES[hint]} if hint in _JSON_TYPES else {}


_JSON_TYPES = {str: "string", bool: "boolean", int: "integer", float: "number", type(None): "null"}
