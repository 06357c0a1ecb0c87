"""There are as many attacks as SECURITY.md's promise needs."""

from __future__ import annotations

from count_attacks import count_attacks


def test_at_least_120_attacks_of_every_kind_are_tried() -> None:
    counts = count_attacks()
    assert len(counts) >= 6
    assert sum(counts.values()) >= 120
    assert min(counts.values()) >= 10
