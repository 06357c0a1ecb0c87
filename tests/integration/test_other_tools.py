"""What docs/graph.md says of other tools and graphs with the Attention op: if one learns it, the page changes."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from bundles import Bundles, need

pytestmark = pytest.mark.needs_onnxruntime


def test_the_quantizer_of_onnxruntime_must_be_told_to_leave_the_op_alone(bundles: Bundles, tmp_path: Path) -> None:
    need("onnxruntime")
    import onnxruntime
    from onnxruntime.quantization import quantize_dynamic

    graph = bundles.demo().model
    assert "Attention" in {node.op_type for node in onnx.load(graph, load_external_data=False).graph.node}
    quantize_dynamic(graph, tmp_path / "all.onnx")
    with pytest.raises(Exception, match="QAttention"):
        onnxruntime.InferenceSession(str(tmp_path / "all.onnx"), providers=["CPUExecutionProvider"])
    quantize_dynamic(graph, tmp_path / "some.onnx", op_types_to_quantize=["MatMul"])
    session = onnxruntime.InferenceSession(str(tmp_path / "some.onnx"), providers=["CPUExecutionProvider"])
    (source,) = session.get_inputs()
    clip = np.zeros((1, *source.shape[1:]), np.uint8)
    assert session.run(["logits"], {source.name: clip})[0].shape == (1, 8)


def test_openvino_reads_the_op(bundles: Bundles) -> None:
    need("openvino")
    import openvino

    graph = bundles.demo().model
    found = [op.get_type_name() for op in openvino.Core().read_model(graph).get_ops()]
    wanted = [node.op_type for node in onnx.load(graph, load_external_data=False).graph.node]
    assert found.count("ScaledDotProductAttention") == wanted.count("Attention") > 0
