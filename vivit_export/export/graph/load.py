"""Load a bundle's graph into onnx-ir, from the bytes that were verified.

``ir.load`` would open the files by their names, and map the one with the weights whenever these are used.
"""

from __future__ import annotations

import onnx_ir as ir
from onnx import helper

from vivit_export.bundle import Bundle
from vivit_export.runtime.session.external_weights import load_graph, read_external_weights


def load_verified(bundle: Bundle) -> ir.Model:
    """Return a bundle's graph with all of its weights; nothing in it refers to a file.

    Raises:
        BundleError: the graph or its weights were altered.
    """
    proto = load_graph(bundle)
    weights = read_external_weights(bundle.read, proto)
    model = ir.serde.deserialize_model(proto)
    for name, weight in weights.tensors.items():
        values = weight.data.view(helper.tensor_dtype_to_np_dtype(weight.type)).reshape(weight.shape)
        model.graph.initializers[name].const_value = ir.Tensor(values, ir.DataType(weight.type), name=name)
    return model
