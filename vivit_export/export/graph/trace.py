"""Trace a checkpoint into an ONNX graph: one ``Attention`` op for each of its attentions, nothing decomposed.

The graph takes ``pixel_values`` float32 (batch, T, 3, H, W) and returns ``logits`` and/or
``embedding``; only the batch is dynamic. It is the same for checkpoints saved with eager and with
SDPA attention. Every node is named after the module it came from
(``layers.0.attention.q_proj/MatMul``), so that you can find a layer in a drift table or in the plan.
"""

from __future__ import annotations

import ast
import logging
import warnings
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import onnx_ir as ir
import torch

from vivit_export.errors import BuildError
from vivit_export.export.checkpoint.load import Checkpoint

TRACE_OPSET = 23
"""First opset with ``Attention``; `vivit_export.export.graph.rewrites` lowers it on request."""

_SCOPES = "pkg.torch.onnx.name_scopes"


class _Outputs(torch.nn.Module):
    """The chosen outputs of a checkpoint, as positional results."""

    def __init__(self, checkpoint: Checkpoint, names: Sequence[str]) -> None:
        super().__init__()
        self.network = checkpoint.network
        self._checkpoint = checkpoint
        self._names = names

    def forward(self, pixel_values: torch.Tensor) -> tuple[torch.Tensor, ...]:
        results = self._checkpoint.outputs(pixel_values)
        return tuple(results[name] for name in self._names)


def trace(checkpoint: Checkpoint, outputs: Sequence[str]) -> ir.Model:
    """Trace ``checkpoint`` with a dynamic batch at opset 23.

    Args:
        checkpoint: the loaded network; it is not modified.
        outputs: names from ``logits`` and ``embedding``, in order.

    Returns:
        An onnx-ir model in float32, whose weights share memory with the network.

    Raises:
        BuildError: torch cannot trace the network, or the trace does not have one ``Attention``
            for each of the network's.
    """
    clip = checkpoint.clip
    # Two clips: torch.export treats a dimension of 1 as a constant.
    example = torch.zeros(2, clip.num_frames, 3, clip.height, clip.width)
    with checkpoint.adapter.traceable(checkpoint.network), _silent_exporter(), torch.no_grad():
        try:
            program = torch.onnx.export(
                _Outputs(checkpoint, outputs).eval(),
                (example,),
                dynamo=True,
                opset_version=TRACE_OPSET,
                input_names=["pixel_values"],
                output_names=list(outputs),
                dynamic_shapes=({0: torch.export.Dim("batch", min=1, max=1 << 16)},),
                optimize=True,
                verify=False,
                verbose=False,
            )
        except Exception as e:
            raise BuildError(f"torch could not trace the network: {str(e).strip().splitlines()[0]}") from e
    assert program is not None
    model = program.model
    _drop_idle_reshapes(model)
    _name_by_module(model, checkpoint.adapter.family.base)
    _forget_origin(model)
    _require_attention(model, checkpoint.anatomy.num_attentions)
    return model


def _require_attention(model: ir.Model, expected: int) -> None:
    found = [node for node in model.graph if node.op_type == "Attention"]
    if len(found) != expected or any(len(node.inputs) > 3 for node in found):
        raise BuildError(
            f"tracing gave {len(found)} Attention nodes (masked: {sum(len(n.inputs) > 3 for n in found)}) for "
            f"{expected} attentions; this version of transformers is not supported, use the one in constraints.txt"
        )


def _drop_idle_reshapes(model: ir.Model) -> None:
    """Remove every Reshape that changes nothing; torch leaves one after attention with a single head."""
    for node in list(model.graph):
        source, result = node.inputs[0] if node.op_type == "Reshape" else None, node.outputs[0]
        if source is None or source.shape is None or result.shape is None or result.is_graph_output():
            continue
        # One dimension may be symbolic: the number of elements leaves it no choice.
        if list(source.shape) == list(result.shape) and sum(not isinstance(d, int) for d in source.shape) <= 1:
            ir.convenience.replace_all_uses_with(result, source)
            model.graph.remove(node, safe=True)


@contextmanager
def _silent_exporter() -> Iterator[None]:
    """Hide torch's messages about missing torchvision and its own deprecations."""
    logger = logging.getLogger("torch.onnx")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.setLevel(level)


def _module_path(node: ir.Node, base: str) -> str:
    """Path of the innermost module that emitted ``node``, without our wrapper's prefixes."""
    scopes = ast.literal_eval(node.metadata_props.get(_SCOPES, "[]"))
    modules = [s for s in scopes[:-1] if s and not s.startswith("_")]
    path = modules[-1] if modules else ""
    path = path.removeprefix("network.").removeprefix(f"{base}.")
    return path if path not in ("network", base) else ""


def _name_by_module(model: ir.Model, base: str) -> None:
    seen: Counter[str] = Counter()
    for node in model.graph:
        path = _module_path(node, base)
        name = f"{path}/{node.op_type}" if path else node.op_type
        seen[name] += 1
        node.name = name if seen[name] == 1 else f"{name}_{seen[name]}"
        for i, value in enumerate(node.outputs):
            if not value.is_graph_output():
                value.name = f"{node.name}:{i}" if i else f"{node.name}_out"
    _name_weights(model, base)


def _name_weights(model: ir.Model, base: str) -> None:
    """Name weights after the module of their first consumer; constant folding named them ``val_13``."""
    renamed: dict[str, ir.Value] = {}
    for value in list(model.graph.initializers.values()):
        uses = tuple(value.uses())
        consumer = uses[0].node if uses else None
        name = str(value.name).removeprefix("network.").removeprefix(f"{base}.")
        if name.startswith("val_") and consumer is not None:
            name = f"{str(consumer.name).rpartition('/')[0] or 'graph'}.{_role(consumer, uses[0].idx)}"
        while name in renamed:
            name += "_"
        renamed[name] = value
    model.graph.initializers.clear()
    for name, value in renamed.items():
        value.name = name
        if value.const_value is not None:
            value.const_value.name = name
        model.graph.register_initializer(value)


def _role(node: ir.Node, index: int) -> str:
    roles = {"MatMul": "weight", "Gemm": "weight", "Conv": "weight", "Reshape": "shape", "Gather": "indices"}
    return roles.get(node.op_type, f"input{index}")


def _forget_origin(model: ir.Model) -> None:
    """Remove stack traces and file paths, so that the same weights produce the same bytes on every machine."""
    model.metadata_props.clear()
    model.graph.metadata_props.clear()
    model.producer_name, model.producer_version = "vivit-export", None
    model.graph.name, model.doc_string, model.graph.doc_string = "vivit", None, None
    values = [*model.graph.inputs, *model.graph.outputs, *model.graph.initializers.values()]
    for node in model.graph:
        node.metadata_props.clear()
        node.doc_string = None
        values.extend(node.outputs)
    for value in values:
        value.metadata_props.clear()
        value.doc_string = None
