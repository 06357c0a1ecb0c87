"""Heads are scaled against each other, and compute what they did."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from anatomies import vivit
from checkpoints import Checkpoints
from graphs import to_double
from rewriting import DEEP, LAYERS, assert_same_function, double_pixels

from vivit_export.bundle.manifest import Declined
from vivit_export.export.graph.build import rewrite_graph
from vivit_export.export.graph.quantize import find_groups
from vivit_export.export.graph.rewrites import equalize_heads
from vivit_export.precision import Precision


@pytest.mark.parametrize("fields", [DEEP, {"hidden_size": 160, **DEEP}, {"qkv_bias": False}], ids=str)
def test_equalizing_heads_changes_no_result(checkpoints: Checkpoints, fields: dict[str, Any]) -> None:
    checkpoint = checkpoints.load(**fields)
    before = rewrite_graph(checkpoint, ("logits", "embedding"), Precision.FP16, ("class-token",)).model
    after = before.clone()
    assert equalize_heads(after) == checkpoint.num_layers
    assert_same_function(to_double(before), to_double(after), double_pixels(checkpoint), of_range=1e-12)


def test_equalized_weights_have_nearly_one_largest_magnitude(checkpoints: Checkpoints) -> None:
    model = rewrite_graph(checkpoints.load(**DEEP), ("logits",), Precision.INT8).model
    for place in find_groups(model, vivit(2)):
        if place.group.name.endswith("qkv"):
            query, key, value = (np.abs(weight).max(axis=0) for weight in place.group.weights)
            assert (np.abs(np.log2(query / key)) <= 1.0 + 1e-6).all()  # a power of two moves their ratio by four
            top = max(query.max(), key.max())
            assert (value <= top).all() and (value > top / 2).all()


def test_heads_with_biases_are_left_alone(checkpoints: Checkpoints) -> None:
    skip = ("key-bias", "value-bias", "query-bias")
    applied = rewrite_graph(checkpoints.load(**DEEP), ("logits",), Precision.INT8, skip).applied
    assert applied.counts["head-scales"] == 0
    nodes = [f"layers.{i}.attention/Attention" for i in range(LAYERS)]
    assert applied.declined == tuple(Declined("head-scales", node, "Q, K or V has a bias") for node in nodes)
