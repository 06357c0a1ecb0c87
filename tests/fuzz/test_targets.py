"""Every input that was kept goes through its target, and a target that breaks its promise is noticed."""

from __future__ import annotations

import time

import pytest
import targets
from corpora import inputs
from targets import FindError, check

from vivit_export.errors import InputError


@pytest.mark.parametrize("name", targets.ALL)
def test_what_was_kept_is_accepted_or_refused(name: str) -> None:
    kept = inputs(name)
    accepted = [check(name, data) for data in kept.values()]
    assert any(accepted), "no input gets through: write the seeds anew"
    for junk in (b"", b"\0", b"{", b"\xff" * 100):
        check(name, junk)


def raise_other(_data: bytes) -> None:
    raise KeyError("x")


def take_long(_data: bytes) -> None:
    end = time.process_time() + 0.02
    while time.process_time() < end:
        pass


def refuse_in_no_words(_data: bytes) -> None:
    raise InputError("\ud800")


@pytest.mark.parametrize(
    ("target", "error"), [(raise_other, KeyError), (take_long, FindError), (refuse_in_no_words, UnicodeEncodeError)]
)
def test_a_broken_promise_is_noticed(monkeypatch: pytest.MonkeyPatch, target: object, error: type[Exception]) -> None:
    monkeypatch.setitem(targets.TARGETS, "broken", target)
    monkeypatch.setattr(targets, "SECONDS", 0.01)
    with pytest.raises(error):
        check("broken", b"")


def test_what_is_read_as_something_else_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(targets, "to_json", lambda value: {} if value is not None else None)
    with pytest.raises((FindError, InputError)):
        targets.TARGETS["processor"](inputs("processor")["demo.json"])


def test_one_byte_chooses_among_all(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[bytes] = []
    for name in targets.ALL:
        monkeypatch.setitem(targets.TARGETS, name, seen.append)
    for number in range(len(targets.ALL)):
        check("everything", bytes([number]) + b"x")
    check("everything", b"")
    assert seen == [b"x"] * len(targets.ALL) + [b""]
