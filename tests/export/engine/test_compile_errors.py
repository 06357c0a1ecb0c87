"""Real compiler failures of our own graphs: the message names the module and the way out."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir as ir
import pytest
from checkpoints import Checkpoints

from vivit_export.bundle import MODEL
from vivit_export.choices import AttentionForm
from vivit_export.errors import BuildError
from vivit_export.export.engine.compile import EngineRequest, build_engine
from vivit_export.export.graph.build import build_graph
from vivit_export.flavour import Flavour
from vivit_export.precision import Precision

DEDICATED = (
    r"Attention operation was not supported by a dedicated kernel "
    r"\(ONNX node layers\.0\.attention/Attention or one of 1 like it\); .* use precision=fp16, or attention=pattern$"
)


def fc1(model: ir.Model) -> ir.Value:
    (value,) = (n.inputs[1] for n in model.graph if n.name == "layers.1.mlp.fc1/MatMul")
    assert value is not None and value.const_value is not None
    return value


def too_narrow(model: ir.Model) -> None:
    value = fc1(model)
    array = np.ascontiguousarray(value.const_value.numpy()[1:])  # type: ignore[union-attr]
    value.const_value, value.shape = ir.tensor(array, name=value.name), ir.Shape(array.shape)


def in_float32(model: ir.Model) -> None:
    value = fc1(model)
    value.const_value = ir.tensor(value.const_value.numpy().astype(np.float32), name=value.name)  # type: ignore[union-attr]
    value.type = ir.TensorType(ir.DataType.FLOAT)


def unchanged(model: ir.Model) -> None:
    pass


@pytest.mark.needs_rtx
@pytest.mark.parametrize(
    ("precision", "form", "width", "change", "message"),
    [
        ("fp32", "fused-op", 64, unchanged, DEDICATED),
        ("fp16", "fused-op", 640, unchanged, DEDICATED),  # heads of 320
        ("fp16", "pattern", 64, too_narrow, r"layers\.1\.mlp\.fc1/MatMul: last dimension .* is at fault: report it$"),
        ("fp16", "pattern", 64, in_float32, r"layers\.1\.mlp\.fc1/MatMul: .* must have same input types.* report it$"),
    ],
    ids=["fp32", "head-320", "shape", "type"],
)
def test_the_module_is_named(
    checkpoints: Checkpoints,
    tmp_path: Path,
    precision: str,
    form: AttentionForm,
    width: int,
    change: Callable[[ir.Model], None],
    message: str,
) -> None:
    fields: dict[str, Any] = {"hidden_size": width, "num_hidden_layers": 3}
    model = build_graph(
        checkpoints.load(**fields),
        precision=Precision(precision),
        form=form,
        opset=23,
        input_mode="crops",
        outputs=("logits",),
    ).model
    change(model)
    ir.save(model, tmp_path / MODEL)
    request = EngineRequest(Flavour.TENSORRT_RTX, tmp_path / MODEL, "frames", (4, 16, 16, 3), (1, 1, 2), (89,))
    with pytest.raises(BuildError, match=message):
        build_engine(request, tmp_path / "engine.plan", tmp_path / "build.log")
    assert not (tmp_path / "engine.plan").exists()
