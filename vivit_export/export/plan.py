"""The layer plan a TensorRT compiler prints: read it, sum it up, prove the promised precision.

Both flavours describe an engine built with ``ProfilingVerbosity.DETAILED`` layer by layer:
TensorRT for RTX in its verbose log (without a GPU it cannot load an engine), TensorRT through
``EngineInspector`` as JSON, with the same fields, as the same back end (Myelin) writes them.
"""

from __future__ import annotations

import dataclasses
import json
import re
from collections import Counter, defaultdict
from collections.abc import Collection, Iterable
from dataclasses import dataclass
from typing import Any, Literal

from vivit_export.errors import BuildError, InputError, PrecisionError

# What each precision promises for the encoder's GEMMs, in the compiler's words.
PROMISED_DTYPE = {"fp32": "Float", "fp16": "Half", "bf16": "BFloat16", "int8": "Int8", "fp8": "FP8"}

_BITS = defaultdict(lambda: 64, {"Int8": 8, "FP8": 8, "Half": 16, "BFloat16": 16, "Float": 32})
# Layers outside Myelin spell a type inside its format: "Row major linear FP16 format".
_DTYPE_WORDS = {"FP32": "Float", "FP16": "Half", "BF16": "BFloat16", "INT8": "Int8", "FP8": "FP8", "FP8E4M3": "FP8"}
_HOST_KINDS = {"shape_call", "signal", "wait", "constant", "noop"}
_INDEX_DTYPES = {"Int64", "Int32", "Bool"}
# A generated kernel is named after its operations: __myl_AddReshTranReshMove_myl0_5.
_LAYOUT_OPS = {"Tran", "Move", "Repl", "Conc", "Slic", "Gath"}
_POINTWISE_OPS = {"Resh", "Add", "Sub", "Mul", "Min", "Max", "Roun", "Cast"}
_GEMMS_PER_BLOCK = 4  # at least: Q, K and V in one, out-projection, fc1, fc2
_NAMES_SHOWN = 5


@dataclass(frozen=True, slots=True)
class Gemm:
    """One matrix product with weights, as the compiler scheduled it.

    Attributes:
        name: layer name in the plan.
        dtype: type it multiplies in (Half, BFloat16, Float, Int8, FP8), not the type weights are stored in.
        nodes: names of the ONNX nodes merged in it.
        encoder: False for the patch embedding and the head.
    """

    name: str
    dtype: str
    nodes: tuple[str, ...]
    encoder: bool


@dataclass(frozen=True, slots=True)
class Plan:
    """What a compiled engine does, summed up; plain JSON both ways.

    Attributes:
        layers: entries of the plan.
        kernels: entries that run on the GPU (no host-side shape arithmetic, no stream events).
        attention_fused: attention kernels that never write the score matrix.
        attention_dtypes: how many of those read Q in each type.
        unfused_matmuls: products of two activations; an unfused attention has two.
        copies: kernels that only change a layout, at most adding, scaling or rounding on the way.
        activation_bytes: scratch memory of one execution context at the largest batch.
        weight_bytes: weights in the engine.
        gemm_layers: every product with weights, in order of execution.
    """

    layers: int
    kernels: int
    attention_fused: int
    attention_dtypes: dict[str, int]
    unfused_matmuls: int
    copies: int
    activation_bytes: int
    weight_bytes: int
    gemm_layers: tuple[Gemm, ...]

    @property
    def gemms(self) -> dict[str, int]:
        """How many GEMM kernels multiply in each type."""
        return _count(g.dtype for g in self.gemm_layers)

    def to_json(self) -> dict[str, Any]:
        """Return a dict of JSON types only; ``gemms`` is added for readers."""
        data: dict[str, Any] = json.loads(json.dumps(dataclasses.asdict(self)))
        return {**data, "gemms": self.gemms}

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> Plan:
        """Rebuild a plan from `to_json`.

        Raises:
            InputError: a field is missing or unknown.
        """
        fields = {k: v for k, v in data.items() if k != "gemms"}
        try:
            fields["gemm_layers"] = tuple(Gemm(**{**g, "nodes": tuple(g["nodes"])}) for g in fields["gemm_layers"])
            return cls(**fields)
        except (KeyError, TypeError) as e:
            raise InputError(f"plan summary is incomplete or of another version: {e}") from e


def parse_rtx_log(text: str) -> Plan:
    """Read the plan from the verbose log of a TensorRT for RTX build.

    It holds one ``Layers:`` block however many compute capabilities are built for: they share
    the plan, and the lowest one decides it (1.7.1: with SM 75 added, SM 89 gets that of SM 75).

    Raises:
        BuildError: the log holds no plan, or several.
    """
    blocks = re.findall(r"^.*\bLayers:\s*\n((?:\s*Name: .*, LayerType: .*\n?)+)", text, re.MULTILINE)
    if len(blocks) != 1:
        raise BuildError(
            f"the compiler's log holds {len(blocks)} layer plans where one is expected, so the precision "
            "cannot be proven; this version of TensorRT for RTX is not understood (1.7.1 is)"
        )
    layers = [_layer_from_line(line) for line in blocks[0].splitlines() if line.strip()]
    return _summarise(layers, *memory_from_log(text))


def parse_inspector(json_text: str, *, activation_bytes: int = 0, weight_bytes: int = 0) -> Plan:
    """Read the plan from ``EngineInspector.get_engine_information(JSON)``; it tells no memory sizes.

    Raises:
        BuildError: the text is no JSON, or the engine was built without layer details.
    """
    try:
        layers = [_layer_from_json(layer) for layer in json.loads(json_text)["Layers"]]
    except (ValueError, KeyError, TypeError, AttributeError) as e:
        raise BuildError(
            f"the engine inspector's answer has no layer details ({type(e).__name__}: {e}), so the precision "
            "cannot be proven; the engine must be built with ProfilingVerbosity.DETAILED"
        ) from e
    return _summarise(layers, activation_bytes, weight_bytes)


def memory_from_log(text: str) -> tuple[int, int]:
    """Return (activation, weight) bytes as the last engine in a verbose log reports them, else 0."""
    sizes = dict(re.findall(r"Total (Activation|Weights) Memory: (\d+) bytes", text))
    return int(sizes.get("Activation", 0)), int(sizes.get("Weights", 0))


def prove(
    plan: Plan,
    *,
    precision: str,
    num_attention: int,
    single_query: int = 0,
    linears: Collection[str] = (),
    allow_unfused: bool = False,
) -> list[str]:
    """Check that a plan keeps what a precision promises, and say so in sentences for the report.

    Promised is: attention fused in every block (except fp32, for which no fused kernel exists
    up to tensorrt-rtx 1.7.1), and every GEMM of the encoder in `PROMISED_DTYPE`.

    Args:
        plan: the compiled plan.
        precision: fp32, fp16, bf16, int8 or fp8.
        num_attention: attention blocks of the model.
        single_query: how many of them attend from one token only (`rewrites.keep_class_token`): without a
            fused kernel they write no tokens x tokens matrix either.
        linears: ONNX nodes the precision was promised for, if not for all of the encoder.
        allow_unfused: report unfused attention instead of failing.

    Raises:
        PrecisionError: something promised was not achieved; the message names the layers.
    """
    evidence = [_prove_attention(plan, precision, num_attention, single_query, allow_unfused)]
    wanted = PROMISED_DTYPE[precision]
    promised = [g for g in plan.gemm_layers if (set(linears) & set(g.nodes) if linears else g.encoder)]
    lost = sorted(set(linears).difference(*(g.nodes for g in promised)))
    fewest = 1 if linears else _GEMMS_PER_BLOCK * num_attention
    if lost or len(promised) < fewest:
        found = f"no GEMM for {_listed(lost)}" if lost else f"{len(promised)} encoder GEMMs where {fewest} are expected"
        raise PrecisionError(
            f"the compiled plan has {found}, so {precision} cannot be proven; "
            "leave out of the promise what the compiler runs as another kind of kernel"
        )
    wrong = [g for g in promised if g.dtype != wanted]
    if wrong:
        raise PrecisionError(
            f"{len(wrong)} of {len(promised)} encoder GEMMs run in {'/'.join(_count(g.dtype for g in wrong))} "
            f"instead of {wanted} ({precision}): {_listed([g.name for g in wrong])}; "
            "type or quantise them in the graph, or name them as fallbacks of the recipe"
        )
    evidence.append(f"{len(promised)} of {len(promised)} encoder GEMMs in {wanted}")
    others = _count(g.dtype for g in plan.gemm_layers if g not in promised)
    return [*evidence, "other GEMMs: " + (", ".join(f"{n} in {dtype}" for dtype, n in others.items()) or "none")]


def _prove_attention(plan: Plan, precision: str, num_attention: int, single_query: int, allow_unfused: bool) -> str:
    share = f"attention fused in {plan.attention_fused} of {num_attention} blocks"
    dtypes = ", ".join(plan.attention_dtypes)
    if plan.attention_fused >= num_attention:
        return f"{share} ({dtypes})"
    if num_attention > plan.attention_fused >= num_attention - single_query:
        return f"{share} ({dtypes}); the class token's own needs no fused kernel"
    if precision == "fp32":
        return f"{share} (no fused kernel exists for fp32)"
    if allow_unfused:
        return f"{share} (allowed)"
    raise PrecisionError(
        f"{share} ({precision}), {plan.unfused_matmuls} products were left outside, each with a tokens x tokens "
        "matrix in memory; use --attention pattern, and keep Q, K, V and softmax in fp16 or bf16"
    )


@dataclass(frozen=True, slots=True)
class _Tensor:
    name: str
    dims: tuple[int, ...]  # -1 where dynamic
    dtype: str

    @classmethod
    def read(cls, data: dict[str, Any]) -> _Tensor:
        dims = re.findall(r"-?\d+", str(data.get("Dimensions", "")))
        text = str(data.get("Datatype") or data.get("Format/Datatype") or "")
        words = [_DTYPE_WORDS[w.upper()] for w in text.split() if w.upper() in _DTYPE_WORDS]
        return cls(data["Name"], tuple(map(int, dims)), words[0] if words else text)


@dataclass(frozen=True, slots=True)
class _Layer:
    name: str
    kind: str
    inputs: tuple[_Tensor, ...]
    constants: tuple[_Tensor, ...]
    outputs: tuple[_Tensor, ...]
    tactic: str
    nodes: tuple[str, ...]

    @property
    def factors(self) -> list[_Tensor]:
        return [t for t in self.inputs if set(t.dims) - {1}]

    @property
    def weights(self) -> list[_Tensor]:
        return [t for t in self.constants if len(t.dims) > 1 and set(t.dims) - {1}]


def _layer_from_line(line: str) -> _Layer:
    """Parse ``Name: …, LayerType: …, Inputs: [ { Name: …, Dimensions: […], … }], …``."""
    flat = re.sub(r"\{.*?\}", lambda m: m.group().replace(", ", ";").replace(": ", "="), line)
    marks = list(re.finditer(r"(?:^\s*|, )([A-Z]\w*):(?: |$)", flat))
    ends = [m.start() for m in marks[1:]] + [len(flat)]
    data: dict[str, Any] = {m[1]: flat[m.end() : end].strip() for m, end in zip(marks, ends, strict=True)}
    for field in ("Inputs", "Constants", "Outputs"):
        bodies = [body.split(";") for body in re.findall(r"\{(.*?)\}", data.get(field, ""))]
        data[field] = [dict(part.strip().split("=", 1) for part in body if "=" in part) for body in bodies]
    return _layer_from_json(data)


def _layer_from_json(data: dict[str, Any]) -> _Layer:
    inputs = [_Tensor.read(t) for t in data.get("Inputs", ())]
    constants = [_Tensor.read(t) for t in data.get("Constants", ())]
    # Before the field Constants existed, weights stood among the inputs under a telling name.
    if "Constants" not in data:
        constants += [t for t in inputs if re.search(r"const|_(alpha|beta)$", t.name)]
    return _Layer(
        name=data["Name"],
        kind=data["LayerType"].lower(),
        inputs=tuple(t for t in inputs if t not in constants),
        constants=tuple(constants),
        outputs=tuple(_Tensor.read(t) for t in data.get("Outputs", ())),
        tactic=data.get("TacticName") or "",
        nodes=tuple(re.findall(r"\[ONNX Layer: (.*?)\]", data.get("Metadata") or "")),
    )


def _summarise(layers: list[_Layer], activation_bytes: int, weight_bytes: int) -> Plan:
    attention = [x for x in layers if _is_attention(x)]
    encoder = _encoder_span(layers)
    gemms = [
        Gemm(x.name, _compute_dtype(x), x.nodes, i in encoder) for i, x in enumerate(layers) if _product(x) == "weights"
    ]
    return Plan(
        layers=len(layers),
        kernels=sum(map(_is_kernel, layers)),
        attention_fused=len(attention),
        attention_dtypes=_count(x.inputs[0].dtype for x in attention if x.inputs),
        unfused_matmuls=sum(_product(x) == "activations" for x in layers),
        copies=sum(map(_is_copy, layers)),
        activation_bytes=activation_bytes,
        weight_bytes=weight_bytes,
        gemm_layers=tuple(gemms),
    )


def _is_attention(layer: _Layer) -> bool:
    # Not just "mha": a projection is named after its ONNX node, which may well contain that.
    return bool(re.search(r"gem[mv]_mha|fmha", f"{layer.name} {layer.tactic}"))


def _is_kernel(layer: _Layer) -> bool:
    tensors = layer.inputs + layer.outputs
    return layer.kind not in _HOST_KINDS and (not tensors or any(t.dtype not in _INDEX_DTYPES for t in tensors))


def _product(layer: _Layer) -> Literal["weights", "activations"] | None:
    """What a layer multiplies its input with: weights, or another activation (Q·Kᵀ and P·V)."""
    # "correlation" is Myelin's convolution: with stride = kernel, the patch embedding is a GEMM.
    pattern, where = r"^gemm$|^fc$|^correlation$|matrix_?multiply|conv", layer.kind
    if layer.kind.endswith("fusion"):
        pattern, where = r"Fc|Gemm|MatMul|Conv", layer.name  # as in __myl_FcAddAdd_myl0_9
    if _is_attention(layer) or not re.search(pattern, where):
        return None
    first, second = [*layer.factors, None, None][:2]
    if layer.weights or first is None or second is None or min(len(first.dims), len(second.dims)) < 3:
        return "weights"
    # A residual stands beside the factor in the same place, but has no dimension to contract.
    return "activations" if first.dims[-1] == second.dims[-2] else "weights"


def _compute_dtype(layer: _Layer) -> str:
    """Return the wider of the narrowest activation (a residual may be wider) and the weights (a bias may be)."""
    activation = min((t.dtype for t in layer.factors or layer.inputs), key=_BITS.__getitem__, default="?")
    weights = min((t.dtype for t in layer.weights), key=_BITS.__getitem__, default=activation)
    return max(activation, weights, key=_BITS.__getitem__)


def _is_copy(layer: _Layer) -> bool:
    if layer.kind != "kgen" or _is_attention(layer):
        return layer.kind in {"reformat", "copy"}
    ops = set(re.findall(r"[A-Z][a-z]+", re.sub(r"_myl\d+_\d+$", "", layer.name)))
    return bool(ops & _LAYOUT_OPS) and ops <= _LAYOUT_OPS | _POINTWISE_OPS


def _encoder_span(layers: list[_Layer]) -> range:
    """Return the layers from what feeds the first attention to the third product after the last one (fc2)."""
    anchors = [i for i, x in enumerate(layers) if _is_attention(x) or _product(x) == "activations"]
    if not anchors:
        return range(len(layers))
    after = [i for i in range(anchors[-1] + 1, len(layers)) if _product(layers[i]) == "weights"][:3]
    # An unfused attention is two products: the second one leads back to V.
    projections = [i for anchor in anchors[:2] for i in _projections(layers, anchor)]
    return range(min(projections, default=0), (after[-1] if after else len(layers) - 1) + 1)


def _projections(layers: list[_Layer], anchor: int) -> set[int]:
    """Follow the inputs of a layer back to the nearest products with weights."""
    found: set[int] = set()
    pending, seen = [anchor], {anchor}
    while pending:
        current = pending.pop()
        names = {t.name for t in layers[current].inputs}
        for i in range(current):
            if i not in seen and any(t.name in names for t in layers[i].outputs):
                seen.add(i)
                (found.add if _product(layers[i]) == "weights" else pending.append)(i)
    return found


def _count(items: Iterable[str]) -> dict[str, int]:
    return dict(sorted(Counter(items).items()))


def _listed(names: list[str]) -> str:
    more = f" and {len(names) - _NAMES_SHOWN} more" if len(names) > _NAMES_SHOWN else ""
    return ", ".join(names[:_NAMES_SHOWN]) + more
