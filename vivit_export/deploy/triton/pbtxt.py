"""The part of the protocol buffers text format that Triton's ``config.pbtxt`` needs.

We write it ourselves so that you can make a repository without protobuf and Triton's message definitions.
Tests read the result back with both.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

_ESCAPES = {"\\": "\\\\", '"': '\\"', "\n": "\\n", "\r": "\\r", "\t": "\\t"}


@dataclass(frozen=True, slots=True)
class Symbol:
    """The name of an enumeration's value, which is written without quotes."""

    name: str


Message = Mapping[str, Any]
"""Fields by name, each a bool, int, str, `Symbol` or message, or a list of these."""


def render(message: Message, indent: str = "") -> str:
    """Return a message as text, with its fields in the given order.

    A list of messages becomes a repeated field, a list of anything else a short list on one line.
    """
    lines: list[str] = []
    for name, value in message.items():
        items: Sequence[Any] = value if _is_list(value) else [value]
        if all(isinstance(item, Mapping) for item in items):
            for item in items:
                lines += [f"{indent}{name} {{", render(item, indent + "  ").rstrip("\n"), f"{indent}}}"]
        elif _is_list(value):
            lines.append(f"{indent}{name}: [ {', '.join(map(_scalar, items))} ]")
        else:
            lines.append(f"{indent}{name}: {_scalar(value)}")
    return "\n".join(lines) + "\n"


def map_field(entries: Mapping[str, Any]) -> list[Message]:
    """Return a ``map<string, …>`` as a repeated message, which is its text form."""
    return [{"key": key, "value": value} for key, value in entries.items()]


def _is_list(value: Any) -> bool:
    return isinstance(value, Sequence) and not isinstance(value, str)


def _scalar(value: Any) -> str:
    if isinstance(value, Symbol):
        return value.name
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int):
        return str(value)
    assert isinstance(value, str)
    return f'"{"".join(_ESCAPES.get(c) or _control(c) for c in value)}"'


def _control(character: str) -> str:
    return f"\\{ord(character):03o}" if ord(character) < 32 or ord(character) == 127 else character
