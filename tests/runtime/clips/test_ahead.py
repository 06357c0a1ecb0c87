"""Decoders share the cores."""

from __future__ import annotations

from vivit_export.cores import usable_cores
from vivit_export.runtime.clips.ahead import share_cores
from vivit_export.runtime.clips.video.reading import Reading


def test_cores_are_shared_among_decoders() -> None:
    cores = usable_cores()
    assert [share_cores(Reading("full"), n) for n in (1, cores, 2 * cores)] == [
        Reading("full", cores),
        Reading("full", 1),
        Reading("full", 1),
    ]
