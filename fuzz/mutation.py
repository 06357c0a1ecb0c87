"""Change one place of a JSON document: bytes that a coverage-guided fuzzer flips seldom stay JSON."""

from __future__ import annotations

import json
import random
from collections.abc import Iterator
from typing import Any

_ODD: tuple[Any, ...] = (
    *(None, True, False, -1, 0, 1, 2, 3, 5, 8, 64, 255, 2**31 - 1, 2**31, 2**53, 2**63 - 1, 2**63, 10**30),
    *(0.0, -0.0, 0.5, 1e-300, 1e308, float("nan"), float("inf"), "", "x", "\ud800", "\x1b[2J", "\n", "é" * 61),
    *("x" * 2000, [], {}, [[]], [None], {"": {}}, [1, 2], [1, 2, 3], ["x"] * 2000, {"a": 1}, [0] * 5000),
)


def mutated(data: bytes, seed: int, most: int) -> bytes | None:
    """Return the document with a value replaced, removed, doubled or swapped with another.

    Args:
        data: a JSON document.
        seed: decides what happens.
        most: bytes that it may have.

    Returns:
        The new document; None: ``data`` is not JSON, or there is no room.
    """
    try:
        document = json.loads(data)
    except (ValueError, RecursionError):
        return None
    chance = random.Random(seed)
    places = list(_places(document))
    if not places:
        return None
    holder, key = chance.choice(places)
    text = _double(document, holder, key) if chance.random() < 0.05 else None
    if text is None:
        _change(holder, key, chance, places)
        text = json.dumps(document, ensure_ascii=chance.random() < 0.9)
    made = text.encode("utf-8", errors="surrogatepass")
    return made if len(made) <= most else None


def _places(value: Any) -> Iterator[tuple[Any, Any]]:
    pairs = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, inner in list(pairs):
        yield value, key
        yield from _places(inner)


def _change(holder: Any, key: Any, chance: random.Random, places: list[tuple[Any, Any]]) -> None:
    what, value = chance.random(), holder[key]
    if what < 0.1:
        del holder[key]
    elif what < 0.2:
        other, at = chance.choice(places)
        holder[key] = json.loads(json.dumps(other[at]))
    elif what < 0.3 and isinstance(value, list) and value:
        holder[key] = value * chance.choice((2, 3, 100))
    elif what < 0.5 and isinstance(value, (int, float)) and not isinstance(value, bool):
        holder[key] = value + chance.choice((-1, 1, 0.5, value, -2 * value))
    elif what < 0.6 and isinstance(holder, dict):
        holder[chance.choice(("x", key + " ", key.upper(), "format", "files"))] = value
    elif what < 0.7 and isinstance(value, str):
        at = chance.randrange(len(value) + 1)
        holder[key] = value[:at] + chance.choice(("/", "..", "\\", "\x00", "\u2028", "[", "1")) + value[at:]
    else:
        holder[key] = chance.choice(_ODD)


def _double(document: Any, holder: Any, key: Any) -> str | None:
    """The document with a key that stands twice in one object."""
    if not isinstance(holder, dict):
        return None
    mark = "\ue000double\ue000"
    holder[mark] = holder[key]
    return json.dumps(document).replace(json.dumps(mark), json.dumps(key))
