"""Make a float32 graph that rounds like a strongly typed fp16 or bf16 one.

ONNX Runtime's CPU provider has no bf16 kernels, and runs an fp16 graph in float32 with most of the
rounding between ops removed. On a 4-layer ViViT, its fp16 logits are three times closer to fp32 than
eager fp16's, so it would pass a model that drifts on a GPU. Here, every op computes in float32, as
tensor cores accumulate, and each result that the graph types as fp16 or bf16 is rounded to that type.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import onnx_ir as ir

from vivit_export.bundle import MODEL
from vivit_export.export.graph.lowering import cast, retype
from vivit_export.export.graph.rewrites.nodes import TypedTape
from vivit_export.leftovers import scratch
from vivit_export.runtime.session.onnxruntime import OnnxRuntimeSession

_MOVES = frozenset(
    {"Reshape", "Transpose", "Concat", "Expand", "Gather", "Identity", "Split", "Slice", "Squeeze", "Pad"}
)


def emulate_low_precision(model: ir.Model) -> ir.Model:
    """Return a float32 copy of ``model`` with explicit rounding; ``model`` is not modified.

    Args:
        model: a graph from `vivit_export.export.graph.lowering.lower_precision`.
    """
    copy = model.clone()
    graph = copy.graph
    for name, value in graph.initializers.items():
        if _is_low(value) and value.const_value is not None:
            value.const_value = ir.tensor(value.const_value.numpy().astype(np.float32), name=name)
            retype(value, ir.DataType.FLOAT)
    for node in list(graph):
        _emulate(node)
    return copy


@contextmanager
def emulated_session(
    model: ir.Model, near: Path | None = None, outputs: Sequence[str] = ()
) -> Iterator[OnnxRuntimeSession]:
    """Open the emulation of ``model`` in ONNX Runtime.

    Args:
        model: as for `emulate_low_precision`; a float32 graph runs as it is.
        near: folder for a temporary copy of its weights in float32; None: the system's temporary folder.
        outputs: names of inner values to return instead of the graph's outputs.
    """
    copy = emulate_low_precision(model)
    if outputs:
        values = {value.name: value for node in copy.graph for value in node.outputs}
        del copy.graph.outputs[:]
        copy.graph.outputs.extend(values.get(f"{name}/Rounded_out", values[name]) for name in outputs)
    with scratch(near) as folder:
        path = folder / MODEL
        ir.save(copy, path, external_data="data", size_threshold_bytes=1024)
        yield OnnxRuntimeSession(path)


def _is_low(value: ir.Value) -> bool:
    return value.dtype in (ir.DataType.FLOAT16, ir.DataType.BFLOAT16)


def _emulate(node: ir.Node) -> None:
    for value in node.outputs:
        if not _is_low(value):
            continue
        low = value.dtype
        assert low is not None
        retype(value, ir.DataType.FLOAT)
        if node.op_type == "Cast":
            node.attributes["to"] = ir.AttrInt64("to", ir.DataType.FLOAT)
        elif node.op_type in _MOVES:
            continue
        _round(node, value, low)


def _round(node: ir.Node, value: ir.Value, low: ir.DataType) -> None:
    tape = TypedTape()
    down = cast(tape, value, low, f"{value.name}/Round")
    ir.convenience.replace_all_uses_with(value, cast(tape, down, ir.DataType.FLOAT, f"{value.name}/Rounded"))
    tape.nodes[0].replace_input_with(0, value)
    tape.insert_after(node)
