"""The layers of a plan: what each does, and the compact form in the sidecar."""

from __future__ import annotations

import json
from collections import Counter
from typing import Any

import pytest
from plan_logs import LOGS, log

from vivit_export.bundle.engines import LayerRecord
from vivit_export.errors import InputError
from vivit_export.export.engine.layers import Layer, PlanTensor, layers_from_log
from vivit_export.export.engine.plan import parse_rtx_log
from vivit_export.records import from_json, to_json


@pytest.mark.parametrize("name", LOGS)
def test_every_layer_has_one_role_and_the_summary_counts_them(name: str) -> None:
    roles = Counter(layer.role for layer in layers_from_log(log(name)))
    plan = parse_rtx_log(log(name))
    assert sum(roles.values()) == plan.layers
    assert plan.layers - roles["host"] == plan.kernels
    counted = (roles["attention"], roles["product"], roles["copy"], roles["gemm"])
    assert counted == (plan.attention_fused, plan.unfused_matmuls, plan.copies, len(plan.gemm_layers))


@pytest.mark.parametrize("name", LOGS)
def test_layers_survive_their_json(name: str) -> None:
    layers = layers_from_log(log(name))
    stored = json.loads(json.dumps([to_json(layer.record()) for layer in layers]))
    assert tuple(Layer.from_record(from_json(LayerRecord, layer, "layer")) for layer in stored) == layers


@pytest.mark.parametrize(
    ("tensor", "text"),
    [
        (PlanTensor("q", (-1, 257, 64), "Half"), "Half[-1,257,64] q"),
        (PlanTensor("Reformatted Input [0] to head", (), "Float"), "Float[] Reformatted Input [0] to head"),
    ],
)
def test_a_tensor_is_one_string(tensor: PlanTensor, text: str) -> None:
    assert str(tensor) == text
    assert PlanTensor.from_text(text) == tensor


@pytest.mark.parametrize("change", [{"name": None}, {"inputs": ["no tensor"]}, {"nodes": 3}])
def test_a_damaged_layer_is_refused(change: dict[str, Any]) -> None:
    data = {**to_json(layers_from_log(log(LOGS[0]))[0].record()), **change}
    with pytest.raises(InputError, match=r"damaged or of another version|lacks the field 'name'|nodes must be a list"):
        Layer.from_record(from_json(LayerRecord, {k: v for k, v in data.items() if v is not None}, "layer"))
