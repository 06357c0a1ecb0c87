"""What the plan of a bundle's engine must show, from what the bundle says about its graph; see `plan.prove`."""

from __future__ import annotations

import re

from vivit_export.bundle.manifest import PrecisionRecord
from vivit_export.precision import Precision

_ENCODER = "layers."
_PRODUCT = re.compile(r"(.*)/(?:MatMul|Gemm|Conv)")
_ATTENTION = re.compile(r"(.*)/(?:QK|PV|Attention)")


def promised_linears(record: PrecisionRecord) -> list[str]:
    """Return the products of the encoder that must have its type, if any was kept in another; empty: all of them."""
    kept = kept_products(record)
    nodes = [f"{path}/MatMul" for path in record.layers if path.startswith(_ENCODER)]
    return [node for node in nodes if node not in kept] if any(node in kept for node in nodes) else []


def kept_products(record: PrecisionRecord) -> dict[str, Precision]:
    """Return the products with weights that were kept in a wider type, as was asked for, with that type."""
    quantized = record.quantization.layers.values() if record.quantization else ()
    paths = [linear for layer in quantized if not layer.quantized for linear in layer.linears]
    kept = dict.fromkeys((f"{path}/MatMul" for path in paths), record.name.base)
    for node in record.kept_float32:
        found = _PRODUCT.fullmatch(node)
        if found and found[1] in record.layers:
            kept[node] = Precision.FP32
    return kept


def kept_attentions(record: PrecisionRecord) -> list[str]:
    """Return the module paths of attentions that multiply in float32, as was asked for."""
    return list(dict.fromkeys(found[1] for node in record.kept_float32 if (found := _ATTENTION.fullmatch(node))))
