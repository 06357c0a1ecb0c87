"""From a checkpoint to the final ONNX graph: trace, rewrite, quantize, lower, add the pixel arithmetic, save."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import cast

import numpy as np
import onnx
import onnx_ir as ir

from vivit_export.anatomy import Anatomy
from vivit_export.bundle import MODEL, MODEL_DATA
from vivit_export.bundle.manifest import LargestWeight, PrecisionRecord, QuantizationRecord
from vivit_export.calibration.ranges import Ranges
from vivit_export.choices import AttentionForm
from vivit_export.contract import IO, InputMode, Tensor
from vivit_export.errors import BuildError, PrecisionError, option
from vivit_export.export.checkpoint.load import Checkpoint
from vivit_export.export.graph.keeping import nodes_to_keep
from vivit_export.export.graph.lowering import Lowered, lower_precision
from vivit_export.export.graph.pixels import prepend_pixels
from vivit_export.export.graph.quantize import find_groups, quantize
from vivit_export.export.graph.quantize_attention import quantize_attention
from vivit_export.export.graph.rewrites import Applied, apply_rewrites, fold_pixels, lower_attention
from vivit_export.export.graph.rewrites.nodes import module_path
from vivit_export.export.graph.trace import trace
from vivit_export.precision import Precision
from vivit_export.rewrite import REWRITE_NAMES, Rewrite, choose_rewrites, merged_linears
from vivit_export.runtime import Preprocessor

_EXTERNAL_BYTES = 64 << 20
"""Above this, weights go to a file of their own (a protobuf ends at 2 GiB, and viewers open faster)."""

_GEMMS = frozenset({"MatMul", "Gemm", "Conv"})


@dataclass(frozen=True)
class Graph:
    """A finished graph and the facts about it.

    Attributes:
        model: onnx-ir model.
        facts: for the manifest: precision, attention form, opset, pixel form, type of each layer.
    """

    model: ir.Model
    facts: PrecisionRecord


@dataclass(frozen=True)
class Quantization:
    """How to quantize a graph.

    Attributes:
        rewritten: the float32 graph that was calibrated; see `rewrite_graph`.
        ranges: what the calibration found.
        keep: names of layers that stay in fp16.
        attention: whether attention is quantized too; see `quantize_attention`.
    """

    rewritten: Rewritten
    ranges: Ranges
    keep: tuple[str, ...] = ()
    attention: bool = False


@dataclass(frozen=True)
class Rewritten:
    """A float32 graph after the exact rewrites, and what they changed."""

    model: ir.Model
    applied: Applied


def rewrite_graph(
    checkpoint: Checkpoint, outputs: Sequence[str], precision: Precision, skip: Collection[str] = ()
) -> Rewritten:
    """Trace the checkpoint and apply the exact rewrites.

    Args:
        checkpoint: not modified.
        outputs: names, in order.
        precision: precision of the final graph.
        skip: names of rewrites to leave out; see `vivit_export.rewrite`.
    """
    model = trace(checkpoint, outputs)
    return Rewritten(model, apply_rewrites(model, precision, skip))


def build_graph(
    checkpoint: Checkpoint,
    *,
    precision: Precision,
    form: AttentionForm,
    opset: int,
    input_mode: str,
    outputs: Sequence[str],
    frame_size: tuple[int, int] | None = None,
    skip_rewrites: Collection[str] = (),
    quantization: Quantization | None = None,
    keep_fp32: str | None = None,
    rewritten: Rewritten | None = None,
) -> Graph:
    """Trace the checkpoint and turn it into the graph that ships.

    Args:
        checkpoint: not modified.
        precision: type of weights and GEMMs.
        form: attention as ``fused-op`` or ``pattern``.
        opset: version to declare.
        input_mode: ``crops``, ``pixels`` or ``frames``.
        outputs: names, in order.
        frame_size: (height, width) of ``frames``.
        skip_rewrites: names of rewrites to leave out; see `vivit_export.rewrite`.
        quantization: for INT8 and FP8; it has its own rewritten graph, which is not modified.
        keep_fp32: regular expression of the nodes that stay in float32; see `keeping`.
        rewritten: the graph after the exact rewrites, which is not modified; None: trace the checkpoint.
    """
    given = quantization.rewritten if quantization is not None else rewritten
    rewritten = given or rewrite_graph(checkpoint, outputs, precision, skip_rewrites)
    model = rewritten.model.clone() if given else rewritten.model
    lower_attention(model, single_query_only=form == "fused-op")
    kept = nodes_to_keep(model, keep_fp32)
    quantized = None if quantization is None else quantize_graph(model, checkpoint.anatomy, quantization, kept)
    preprocessor = Preprocessor(checkpoint.clip, checkpoint.preprocess)
    # In float32, the pixel values stay bit-equal to the processor's.
    may_fold = precision.rounds and input_mode != "pixels" and not _reads_input(model, kept)
    folded = may_fold and fold_pixels(model, preprocessor.table) > 0
    lowered: Lowered | None = None
    if precision.rounds:
        try:
            lowered = lower_precision(model, precision.base, float_inputs=not folded, keep=kept)
        except BuildError as e:
            culprit = _overflowing_rewrite(checkpoint, outputs, precision.base, skip_rewrites)
            if culprit is None:
                raise
            remedy = option("skip_rewrites", culprit)
            raise BuildError(f"{e.args[0]}, or {remedy}, which made it so large") from None
    layers = layer_types(model)
    linears = checkpoint.anatomy.num_linears - merged_linears(rewritten.applied.counts)
    _require_reached(layers, quantized, precision, linears)
    pixels = None if input_mode == "pixels" else prepend_pixels(model, preprocessor, frame_size, folded=folded)
    model.graph.opset_imports[""] = opset
    model.ir_version = 10
    record = PrecisionRecord(
        name=precision,
        attention=form,
        opset=opset,
        layers=layers,
        rewrites=rewritten.applied.counts,
        declined=rewritten.applied.declined,
        pixels=pixels,
        quantization=quantized,
    )
    return Graph(model, record if lowered is None else _with_lowering(record, lowered, kept))


def _reads_input(model: ir.Model, kept: Collection[str]) -> bool:
    return any(use.node.name in kept for value in model.graph.inputs for use in value.uses())


def quantize_graph(
    model: ir.Model, anatomy: Anatomy, quantization: Quantization, kept: Collection[str]
) -> QuantizationRecord:
    """Quantize all layers in place, but those to keep in fp16 and those with a product that is kept in float32.

    Args:
        model: float32, with attention in its final form.
        anatomy: of the network.
        quantization: how.
        kept: names of nodes that stay in float32.
    """
    ranges = quantization.ranges
    products = {place.group.name: {str(node.name) for node in place.matmuls} for place in find_groups(model, anatomy)}
    wide = {name for name, nodes in products.items() if nodes & set(kept)}
    layers = quantize(model, anatomy, ranges, {*quantization.keep, *wide})
    for name in wide & {name for name, nodes in products.items() if nodes <= set(kept)}:
        layers[name] = replace(layers[name], type="float32")
    attention = quantize_attention(model, ranges) if quantization.attention else None
    return QuantizationRecord(ranges.method, ranges.clips, layers, ranges.sensitivity, attention)


def _require_reached(
    layers: Mapping[str, str], quantized: QuantizationRecord | None, precision: Precision, expected: int
) -> None:
    """Refuse a graph that does not have what its precision promises; no engine is needed to see that.

    Args:
        layers: from `layer_types`.
        quantized: how it was quantized.
        precision: what was promised.
        expected: Linears of its blocks.

    Raises:
        PrecisionError: no layer has the type, or Linears were not found.
    """
    found = sum(len(layer.linears) for layer in quantized.layers.values()) if quantized else 0
    if quantized is not None and found != expected:
        raise PrecisionError(
            f"{precision} was promised for the {expected} Linears of the encoder, but {found} were found in the graph, "
            "so nothing is exported; report it with the version of transformers"
        )
    attention = quantized is not None and quantized.attention is not None
    if precision.dtype.name.lower() not in layers.values() and not attention:
        kept = f"; let fewer layers stay in fp16 ({option('keep_fp16')}), or export {precision.base}"
        raise PrecisionError(
            f"{precision} reached none of the graph's {len(layers)} layers, so nothing is exported"
            f"{kept if precision.quantized else '; report it with the version of transformers'}"
        )


def _with_lowering(record: PrecisionRecord, lowered: Lowered, kept: tuple[str, ...]) -> PrecisionRecord:
    return replace(
        record,
        largest_weight=LargestWeight(*lowered.largest_weight),
        subnormal_weights=lowered.subnormal,
        float32_ops=lowered.float32_ops,
        float32_inside="LayerNormalization statistics (stash_type=1)",
        kept_float32=kept,
    )


def _overflowing_rewrite(
    checkpoint: Checkpoint, outputs: Sequence[str], base: Precision, left_out: Collection[str]
) -> Rewrite | None:
    """Return the rewrite that moves a weight beyond the type's range, or None if the checkpoint itself is beyond it."""
    model, limit = trace(checkpoint, outputs), float(base.dtype.max)

    def overflows() -> bool:
        constants = [value.const_value for value in model.graph.initializers.values()]
        return any(c is not None and c.size and np.abs(c.numpy()).max() > limit for c in constants)

    if overflows():
        return None
    for rewrite in choose_rewrites(base, left_out):
        apply_rewrites(model, base, {*REWRITE_NAMES} - {rewrite})
        if overflows():
            return rewrite
    return None


def layer_types(model: ir.Model) -> dict[str, str]:
    """Return the type that stores the weight of every Linear and convolution, by module path."""
    types = {}
    for node in model.graph:
        weight = node.inputs[1] if node.op_type in _GEMMS else None
        producer = weight.producer() if weight is not None else None
        if producer is not None and producer.op_type == "DequantizeLinear":
            weight = producer.inputs[0]
        if weight is not None and weight.const_value is not None and weight.dtype is not None:
            types[module_path(node)] = weight.dtype.name.lower()
    return types


def signature(model: ir.Model, mode: str, frame_size: tuple[int, int] | None = None) -> IO:
    """Read the inputs and outputs from the graph, so that the contract states only what was exported."""
    return IO(
        mode=cast("InputMode", mode),
        inputs=tuple(_tensor(v) for v in model.graph.inputs),
        outputs=tuple(_tensor(v) for v in model.graph.outputs),
        frame_size=frame_size,
    )


def _tensor(value: ir.Value) -> Tensor:
    assert value.shape is not None and value.dtype is not None
    shape = tuple(d if isinstance(d, int) else "batch" for d in value.shape)
    return Tensor(str(value.name), str(value.dtype.numpy()), shape)


def save_graph(model: ir.Model, folder: Path) -> None:
    """Write ``model.onnx`` (and ``model.onnx.data`` if large) and check it against the ONNX specification.

    Raises:
        BuildError: the checker refuses the graph.
    """
    path = folder / MODEL
    weights = sum(v.const_value.nbytes for v in model.graph.initializers.values() if v.const_value is not None)
    if weights > _EXTERNAL_BYTES:
        ir.save(model, path, external_data=MODEL_DATA, size_threshold_bytes=1024)
    else:
        ir.save(model, path)
    try:
        onnx.checker.check_model(str(path), full_check=True)
    except (onnx.checker.ValidationError, onnx.shape_inference.InferenceError) as e:
        raise BuildError(f"the exported graph is not valid ONNX: {str(e).strip().splitlines()[0]}") from e
