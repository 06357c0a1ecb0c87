"""One place of a document changes, the same way for the same seed."""

from __future__ import annotations

import json

import pytest
from corpora import inputs
from mutation import mutated

DOCUMENT = inputs("contract")["crops.json"]


def test_a_document_stays_one_and_changes() -> None:
    made = [mutated(DOCUMENT, seed, 1 << 20) for seed in range(300)]
    assert made == [mutated(DOCUMENT, seed, 1 << 20) for seed in range(300)]
    whole = [data for data in made if data is not None]
    assert len(whole) > 290 and len({*whole}) > 200
    for data in whole:
        json.loads(data.decode("utf-8", errors="surrogatepass"))
    assert sum(json.loads(data.decode("utf-8", "surrogatepass")) != json.loads(DOCUMENT) for data in whole) > 200


@pytest.mark.parametrize("data", [b"", b"{", b"7", b"[]", b"\xff", b"[" * 100_000])
def test_what_has_no_places_is_left_alone(data: bytes) -> None:
    assert mutated(data, 1, 1000) is None


def test_a_document_does_not_outgrow_its_room() -> None:
    assert all(len(mutated(DOCUMENT, seed, 1400) or b"") <= 1400 for seed in range(300))


def test_a_key_may_stand_twice() -> None:
    doubled = [mutated(b'{"a": 1, "b": 2}', seed, 1000) for seed in range(300)]
    assert any(data is not None and data.count(b'"a"') + data.count(b'"b"') == 3 for data in doubled)
