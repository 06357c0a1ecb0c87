"""A model in memory against what was saved of it, in every family."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from family_checkpoints import CASES, folder

from vivit_export.errors import CheckpointError
from vivit_export.export.checkpoint.same_network import require_same


def network(place: Path, *, headless: bool) -> Any:
    kind = transformers.AutoModel if headless else transformers.AutoModelForVideoClassification
    return kind.from_pretrained(place).train()


@pytest.mark.parametrize("headless", [False, True])
@pytest.mark.parametrize("case", CASES)
def test_it_is_the_same_until_a_weight_changes(case: str, headless: bool) -> None:
    place = folder(case, headless=headless)
    model = network(place, headless=headless)
    assert require_same(model, place) is None
    assert all(module.training for module in model.modules())
    with torch.no_grad():
        next(model.parameters()).mul_(1.5)
    with pytest.raises(CheckpointError, match=r"its output differs from that of the saved one by [\d.]+ %"):
        require_same(model, place)


def test_parts_that_do_not_train_stay_so() -> None:
    model = network(folder("timesformer"), headless=False)
    model.timesformer.eval()
    assert require_same(model, folder("timesformer")) is None
    assert model.training and not model.timesformer.training


def test_another_shape_is_named() -> None:
    model = network(folder("timesformer"), headless=False)
    model.classifier.register_forward_hook(lambda _module, _inputs, output: output[:, :1])
    with pytest.raises(CheckpointError, match=r"has the shape \[1, 1\], and that of the saved one \[1, \d+\]"):
        require_same(model, folder("timesformer"))


def test_values_that_are_not_finite_differ() -> None:
    model = network(folder("timesformer"), headless=False)
    model.classifier.register_forward_hook(lambda _module, _inputs, output: output * float("nan"))
    with pytest.raises(CheckpointError, match="by nan % of the range"):
        require_same(model, folder("timesformer"))
