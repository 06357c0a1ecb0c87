"""The soak counts what it says, and finds what is wrong."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soak
from bundles import Bundles, need
from click.testing import CliRunner

import vivit_export as ve
from vivit_export.errors import EnvironmentFault


def test_a_session_answers_all_and_refuses_what_is_bad(bundles: Bundles, tmp_path: Path) -> None:
    need("onnxruntime", "openvino")
    options = ["--requests", "30", "--threads", "3", "--bad-share", "0.3", "--batch", "2", "--results", str(tmp_path)]
    done = CliRunner().invoke(soak.main, [str(bundles.demo().path), *options], catch_exceptions=False)
    assert done.exit_code == 0
    told = json.loads((tmp_path / "soak.json").read_text())
    for engine in ("onnxruntime-cpu", "openvino"):
        found = told[engine]
        assert set(found["outcomes"]) == {"right", "refused"} and sum(found["outcomes"].values()) == 30
        assert found["largest_difference_of_range"] <= soak.TOLERANCE
        assert found["resident_bytes"]["peak"] > 1e7


class Faulty:
    """A session that answers wrongly, refuses nothing, and is away at times."""

    def __init__(self, known: Any) -> None:
        self._known, self._calls = known, 0

    def infer(self, clips: Any) -> Any:
        """Answer by turns: wrongly, late, with nothing that counts, or for one clip too few."""
        self._calls += 1
        if clips.dtype != np.uint8 or clips.shape[1:] != (8, 64, 64, 3) or not len(clips):
            return None
        logits = self._known.infer(clips)
        if self._calls % 4 == 0:
            raise EnvironmentFault("it is away")
        return (logits + 1, logits * np.nan, logits[1:])[self._calls % 4 - 1]


@pytest.mark.needs_onnxruntime
def test_faults_are_counted(bundles: Bundles) -> None:
    with ve.open_session(bundles.demo(), prefer="onnxruntime-cpu") as session:
        asker = soak.Asker(Faulty(session), session, 0.2, 2)
        seconds = soak.soak(asker, 40, 2, lambda: 5, iter(()))
    told = soak.facts(asker, seconds, 2)
    assert set(told["outcomes"]) == {"wrong", "failed", "accepted though bad"}
    assert sum(told["outcomes"].values()) == 40
    assert told["growth"] == 0 and told["resident_bytes"] == {"settled": 5, "end": 5, "peak": 5}


def test_the_kinds_of_memory_are_all_of_it() -> None:
    kinds = soak.resident_by_kind("self")
    assert set(kinds) == {"heap", "files", "shared"}
    assert sum(kinds.values()) == pytest.approx(soak.resident_bytes(), rel=0.05)


def test_growth_is_that_after_it_has_settled() -> None:
    asker = object.__new__(soak.Asker)
    asker.tally = soak.Tally(resident=[50] * 20 + [100] * 40 + [110] * 40)
    assert soak.facts(asker, 1.0, 1)["growth"] == pytest.approx(0.1)
