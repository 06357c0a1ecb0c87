"""The soak of live video counts windows, and finds those that are missing."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import soak_live
from bundles import Bundles
from click.testing import CliRunner

from vivit_export.runtime.session.prediction import Prediction
from vivit_export.runtime.stream import StreamPrediction


@pytest.mark.needs_onnxruntime
def test_two_connections_of_two_seconds(bundles: Bundles, tmp_path: Path) -> None:
    options = ["--minutes", "0.07", "--connections", "2", "--results", str(tmp_path)]
    done = CliRunner().invoke(soak_live.main, [str(bundles.demo().path), *options], catch_exceptions=False)
    assert done.exit_code == 0
    told = json.loads((tmp_path / "live.json").read_text())
    assert (told["connections"], told["windows_missing"], told["windows_dropped"]) == (2, 0, 0)
    assert told["windows"] >= told["windows_expected"] > 4
    assert told["in_order"] and told["finite"]


def result(start: float, connection: int = 0, logit: float = 0.0) -> soak_live.Seen:
    """What is kept of a prediction whose place and value alone count."""
    prediction = Prediction(np.array([logit], np.float32), None, ("a",))
    return soak_live.Seen.of(StreamPrediction("it", prediction, (start, start + 1), 0.01, connection=connection))


def test_what_is_missing_late_or_no_number_is_told() -> None:
    frames = round(soak_live.FPS * (soak_live.WINDOW + 2 * soak_live.HOP))  # three windows
    whole = [result(0.2 * number) for number in range(3)]
    told = soak_live.facts([frames], whole, [5, 5])
    assert (told["windows_expected"], told["windows_missing"], told["in_order"], told["finite"]) == (3, 0, True, True)
    told = soak_live.facts([frames, frames], [whole[1], whole[0], result(9, 1, float("nan"))], [5, 6])
    assert (told["windows_expected"], told["windows_missing"], told["in_order"], told["finite"]) == (6, 3, False, False)
    assert told["growth"] == 0.2
