"""The plan of an engine: a summary of its layers, and the proof that they keep the promised precision."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from types import MappingProxyType

from vivit_export.bundle.engines import Gemm, PlanSummary
from vivit_export.errors import PrecisionError, option
from vivit_export.export.engine.layers import Layer, Role, layers_from_inspector, layers_from_log
from vivit_export.precision import Precision

_NAMES_SHOWN = 5


def parse_rtx_log(text: str) -> PlanSummary:
    """Summarize the plan in the verbose log of a TensorRT for RTX build; see `layers_from_log`."""
    return sum_up(layers_from_log(text), *memory_from_log(text))


def parse_inspector(json_text: str, *, activation_bytes: int = 0, weight_bytes: int = 0) -> PlanSummary:
    """Summarize the plan from an engine inspector, without memory sizes; see `layers_from_inspector`."""
    return sum_up(layers_from_inspector(json_text), activation_bytes, weight_bytes)


def memory_from_log(text: str) -> tuple[int, int]:
    """Return the (activation, weight) bytes that the last engine in a verbose log reports, else 0."""
    sizes = dict(re.findall(r"Total (Activation|Weights) Memory: (\d+) bytes", text))
    return int(sizes.get("Activation", 0)), int(sizes.get("Weights", 0))


def sum_up(layers: Sequence[Layer], activation_bytes: int, weight_bytes: int) -> PlanSummary:
    """Count what the layers do."""
    roles = [layer.role for layer in layers]
    encoder = _encoder_span(layers, roles)
    return PlanSummary(
        layers=len(layers),
        kernels=sum(role != "host" for role in roles),
        attention_fused=roles.count("attention"),
        attention_dtypes=_count(
            x.inputs[0].dtype for x, role in zip(layers, roles, strict=True) if role == "attention" and x.inputs
        ),
        unfused_matmuls=roles.count("product"),
        copies=roles.count("copy"),
        activation_bytes=activation_bytes,
        weight_bytes=weight_bytes,
        gemms=_count(layer.dtype for layer, role in zip(layers, roles, strict=True) if role == "gemm"),
        gemm_layers=tuple(
            Gemm(x.name, x.dtype, x.nodes, i in encoder) for i, x in enumerate(layers) if roles[i] == "gemm"
        ),
    )


def prove(
    plan: PlanSummary,
    *,
    precision: Precision,
    num_attention: int,
    num_gemms: int,
    single_query: int = 0,
    linears: Collection[str] = (),
    attention_dtype: str | None = None,
    allow_unfused: bool = False,
    kept: Mapping[str, Precision] = MappingProxyType({}),
    kept_attention: int = 0,
) -> list[str]:
    """Check that a plan keeps what a precision promises, and return sentences for the report.

    The promise: attention is fused in every block (except in fp32, for which no fused kernel exists up to
    tensorrt-rtx 1.7.1), and every GEMM of the encoder runs in `Precision.plan_type`.

    Args:
        plan: the compiled plan.
        precision: type of the graph.
        num_attention: attentions of the model.
        num_gemms: products with weights that its blocks have at least.
        single_query: how many of them attend from only one token (`rewrites.keep_class_token`); these write no
            tokens x tokens matrix even without a fused kernel.
        linears: ONNX nodes that the precision was promised for; empty: all of the encoder.
        attention_dtype: type that the attention kernels must read, as the compiler names it; None: any.
        allow_unfused: report unfused attention instead of failing.
        kept: ONNX nodes that multiply with weights in another type, with that type; each must run in exactly that.
        kept_attention: how many attentions compute in float32, which has no fused kernel.

    Raises:
        PrecisionError: something promised was not achieved; the message names the layers.
    """
    if attention_dtype is not None and plan.attention_fused + single_query < num_attention and not allow_unfused:
        raise PrecisionError(
            f"attention fused in {plan.attention_fused} of {num_attention} blocks: the compiler has no kernel for "
            f"quantized attention of these heads and tokens; leave out {option('fp8_attention')}"
        )
    evidence = [_prove_attention(plan, precision, num_attention, single_query, allow_unfused, kept_attention)]
    if attention_dtype is not None:
        _prove_attention_dtype(plan, attention_dtype)
    wanted = precision.plan_type
    promised = [g for g in plan.gemm_layers if (set(linears) & set(g.nodes) if linears else g.encoder)]
    lost = sorted(set(linears).difference(*(g.nodes for g in promised)))
    fewest = 1 if linears else num_gemms
    if lost or len(promised) < fewest:
        found = f"no GEMM for {_listed(lost)}" if lost else f"{len(promised)} encoder GEMMs where {fewest} are expected"
        raise PrecisionError(
            f"the compiled plan has {found}, so {precision} cannot be proven: the compiler ran the others as kernels "
            "that this version does not know; report it with the options used, or try another "
            f"{option('batches.max')}, for which the compiler may choose others"
        )
    wrong = [g for g in promised if g.dtype != wanted]
    if wrong:
        raise PrecisionError(
            f"{len(wrong)} of {len(promised)} encoder GEMMs run in {'/'.join(_count(g.dtype for g in wrong))} "
            f"instead of {wanted} ({precision}): {_listed([g.name for g in wrong])}; "
            "type or quantize them in the graph, or name them as fallbacks of the recipe"
        )
    evidence.append(f"{len(promised)} of {len(promised)} encoder GEMMs in {wanted}")
    held = _prove_kept(plan, kept)
    evidence += [f"kept: {len(found)} of {len(found)} GEMMs in {dtype}" for dtype, found in held.items()]
    proven = [*promised, *(g for found in held.values() for g in found)]
    others = _count(g.dtype for g in plan.gemm_layers if g not in proven)
    return [*evidence, "other GEMMs: " + (", ".join(f"{n} in {dtype}" for dtype, n in others.items()) or "none")]


def _prove_kept(plan: PlanSummary, kept: Mapping[str, Precision]) -> dict[str, list[Gemm]]:
    """Return the GEMMs of what is kept in another type, by that type; each of the nodes must be in one of the type."""
    found: dict[str, list[Gemm]] = {}
    for precision in dict.fromkeys(kept.values()):
        nodes = {node for node, other in kept.items() if other is precision}
        gemms = [g for g in plan.gemm_layers if nodes & set(g.nodes)]
        lost = sorted(nodes.difference(*(g.nodes for g in gemms)))
        wrong = [g for g in gemms if g.dtype != precision.plan_type]
        if lost or wrong:
            what = f"no GEMM for {_listed(lost)}" if lost else f"{_listed([g.name for g in wrong])} in {wrong[0].dtype}"
            raise PrecisionError(
                f"the compiled plan has {what}, which was to be kept in {precision.plan_type}; report it with the "
                "options used"
            )
        found[precision.plan_type] = gemms
    return found


def _prove_attention(
    plan: PlanSummary,
    precision: Precision,
    num_attention: int,
    single_query: int,
    allow_unfused: bool,
    kept_attention: int,
) -> str:
    share = f"attention fused in {plan.attention_fused} of {num_attention} blocks"
    # One that is fused in float32 must not make up for one that is not fused.
    fused = plan.attention_fused - (plan.attention_dtypes.get(Precision.FP32.plan_type, 0) if kept_attention else 0)
    dtypes = f" ({', '.join(plan.attention_dtypes)})" if plan.attention_dtypes else ""
    if plan.attention_fused >= num_attention:
        return f"{share}{dtypes}"
    if kept_attention and fused >= num_attention - single_query - kept_attention:
        also = "; the class token's own needs none" if fused < num_attention - kept_attention else ""
        return f"{share}{dtypes}; {kept_attention} kept in fp32, for which no fused kernel exists{also}"
    if precision.rounds and plan.attention_fused >= num_attention - single_query:
        return f"{share}{dtypes}; the class token's own needs no fused kernel"
    if not precision.rounds:
        return f"{share} (no fused kernel exists for fp32)"
    if allow_unfused:
        return f"{share} (allowed)"
    raise PrecisionError(
        f"{share} ({precision}), {plan.unfused_matmuls} products were left outside, each with a tokens x tokens "
        f"matrix in memory; use {option('attention', 'pattern')}, and keep Q, K, V and softmax in fp16 or bf16 (heads "
        f"wider than 256 have no fused kernel: {option('allow_unfused')} accepts that)"
    )


def _prove_attention_dtype(plan: PlanSummary, promised: str) -> None:
    others = ", ".join(f"{n} in {dtype}" for dtype, n in plan.attention_dtypes.items() if dtype != promised)
    if others:
        raise PrecisionError(f"attention was promised in {promised}, and the plan has {others}")


def _encoder_span(layers: Sequence[Layer], roles: Sequence[Role]) -> range:
    """Return the layers from the inputs of the first attention to the third product after the last one (fc2)."""
    anchors = [i for i, role in enumerate(roles) if role in ("attention", "product")]
    if not anchors:
        return range(len(layers))
    after = [i for i in range(anchors[-1] + 1, len(layers)) if roles[i] == "gemm"][:3]
    # An unfused attention is two products: the second one leads back to V.
    projections = [i for anchor in anchors[:2] for i in _projections(layers, roles, anchor)]
    return range(min(projections, default=0), (after[-1] if after else len(layers) - 1) + 1)


def _projections(layers: Sequence[Layer], roles: Sequence[Role], anchor: int) -> set[int]:
    """Follow the inputs of a layer back to the nearest products with weights."""
    found: set[int] = set()
    pending, seen = [anchor], {anchor}
    while pending:
        current = pending.pop()
        names = {t.name for t in layers[current].inputs}
        for i in range(current):
            if i not in seen and any(t.name in names for t in layers[i].outputs):
                seen.add(i)
                (found.add if roles[i] == "gemm" else pending.append)(i)
    return found


def _count(items: Iterable[str]) -> dict[str, int]:
    return dict(sorted(Counter(items).items()))


def _listed(names: list[str]) -> str:
    more = f" and {len(names) - _NAMES_SHOWN} more" if len(names) > _NAMES_SHOWN else ""
    return ", ".join(names[:_NAMES_SHOWN]) + more
