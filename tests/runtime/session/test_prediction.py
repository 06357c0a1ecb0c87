"""Scores of each task, against transformers' pipeline for video classification."""

from __future__ import annotations

from types import SimpleNamespace
from typing import get_args

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from transformers import VideoClassificationPipeline

from vivit_export.contract import Task
from vivit_export.errors import UsageError
from vivit_export.runtime.session.prediction import Prediction

CLASSIFICATIONS = [task for task in get_args(Task) if task != "regression"]
logit_rows = st.lists(st.floats(-1e4, 1e4, width=32), min_size=1, max_size=9)


def predicted(logits: list[float], task: Task) -> Prediction:
    return Prediction(np.array(logits, np.float32), None, tuple(f"label {i}" for i in range(len(logits))), task)


def pipelines(logits: list[float], task: Task) -> dict[str, float]:
    """What transformers makes of the logits, in float64."""
    names = {i: f"label {i}" for i in range(len(logits))}
    config = SimpleNamespace(problem_type=task, num_labels=len(logits), id2label=names)
    stub = SimpleNamespace(model=SimpleNamespace(config=config))
    outputs = SimpleNamespace(logits=torch.tensor([logits], dtype=torch.float64))
    found = VideoClassificationPipeline.postprocess(stub, outputs, top_k=len(logits))
    return {one["label"]: one["score"] for one in found}


@pytest.mark.parametrize("task", get_args(Task))
@given(logits=logit_rows)
def test_scores_are_those_of_transformers_pipeline(task: Task, logits: list[float]) -> None:
    expected = pipelines(logits, task)
    with np.errstate(all="raise", under="ignore"):
        found = dict(predicted(logits, task).top(len(logits)))
    assert found == pytest.approx(expected, rel=1e-6, abs=1e-37)


@pytest.mark.parametrize("task", CLASSIFICATIONS)
@given(logits=logit_rows)
def test_the_most_probable_labels_come_first(task: Task, logits: list[float]) -> None:
    prediction = predicted(logits, task)
    scores = [score for _, score in prediction.top(4)]
    assert scores == sorted(prediction.probabilities.tolist(), reverse=True)[:4]
    assert prediction.top(0) == []


def test_top_labels() -> None:
    prediction = Prediction(np.array([1, 3, 2], np.float32), None, ("a", "b", "c"))
    assert [label for label, _ in prediction.top()] == ["b", "c", "a"]
    assert [label for label, _ in prediction.top(1)] == ["b"]
    assert sum(chance for _, chance in prediction.top()) == pytest.approx(1)
    assert prediction.probabilities.dtype == np.float32


def test_values_of_a_regression_keep_their_order_and_are_no_probabilities() -> None:
    prediction = predicted([1.5, -3, 40], "regression")
    assert prediction.top(2) == [("label 0", 1.5), ("label 1", -3)]
    np.testing.assert_array_equal(prediction.scores, np.array([1.5, -3, 40], np.float32))
    with pytest.raises(UsageError, match="values of a regression, not probabilities; take scores"):
        _ = prediction.probabilities


@pytest.mark.parametrize("task", get_args(Task))
def test_without_logits_there_are_no_scores(task: Task) -> None:
    prediction = Prediction(None, np.zeros(4, np.float32), ("a", "b"), task)
    for read in (lambda: prediction.scores, lambda: prediction.probabilities, prediction.top):
        with pytest.raises(UsageError, match="an embedding but no logits"):
            read()
