"""The layers of a plan: read them from the output of a TensorRT compiler, and classify what each one does.

Both flavours describe an engine built with ``ProfilingVerbosity.DETAILED`` layer by layer:
TensorRT for RTX in its verbose log (without a GPU it cannot load an engine), TensorRT through
``EngineInspector`` as JSON. The fields are the same, because the same compiler core (Myelin) writes them.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

from vivit_export.bundle.engines import LayerRecord
from vivit_export.errors import BuildError, InputError
from vivit_export.records import JsonObject, parse_foreign_json, shown

Role = Literal["attention", "gemm", "product", "copy", "other", "host"]

_BITS = defaultdict(lambda: 64, {"Int8": 8, "FP8": 8, "Half": 16, "BFloat16": 16, "Float": 32})
# Layers outside Myelin spell a type inside its format: "Row major linear FP16 format".
_DTYPE_WORDS = {"FP32": "Float", "FP16": "Half", "BF16": "BFloat16", "INT8": "Int8", "FP8": "FP8", "FP8E4M3": "FP8"}
_HOST_KINDS = {"shape_call", "signal", "wait", "constant", "noop"}
_INDEX_DTYPES = {"Int64", "Int32", "Bool"}
# A generated kernel is named after its operations: __myl_AddReshTranReshMove_myl0_5.
_LAYOUT_OPS = {"Tran", "Move", "Repl", "Conc", "Slic", "Gath"}
_PRODUCT = "MulSum"
_MOST_DIMS, _MOST_DIGITS = 16, 18  # of a tensor, and of one of its sides
_NOT_UNDERSTOOD = (ValueError, KeyError, TypeError, AttributeError)  # what the fields of another form lead to
_POINTWISE_OPS = {"Resh", "Add", "Sub", "Mul", "Min", "Max", "Roun", "Cast"}


@dataclass(frozen=True, slots=True)
class PlanTensor:
    """A tensor that a layer reads or writes, as the plan spells it.

    Attributes:
        name: its name; a layer may read a tensor under a different shape than it was written with.
        dims: -1 where dynamic.
        dtype: Half, BFloat16, Float, Int8, FP8, or another name that the compiler uses.
    """

    name: str
    dims: tuple[int, ...]
    dtype: str

    @property
    def bits(self) -> int:
        """Size of an element; 64 for a type that is not known."""
        return _BITS[self.dtype]

    def __str__(self) -> str:
        return f"{self.dtype}[{','.join(map(str, self.dims))}] {self.name}"

    @classmethod
    def from_text(cls, text: str) -> PlanTensor:
        """Rebuild a tensor from its text, such as ``Half[-1,257,64] q``."""
        found = re.fullmatch(r"(.*?)\[([-\d,]*)\] (.*)", text)
        sides = [d for d in found[2].split(",") if d] if found else []
        if found is None or len(sides) > _MOST_DIMS or any(len(d) > _MOST_DIGITS for d in sides):
            raise ValueError(f"{shown(text)} is not a tensor of a plan")
        return cls(found[3], tuple(map(int, sides)), found[1])

    @classmethod
    def read(cls, data: JsonObject) -> PlanTensor:
        """Read a tensor from the inspector's JSON."""
        dims = re.findall(r"-?\d+", str(data.get("Dimensions", "")))
        text = str(data.get("Datatype") or data.get("Format/Datatype") or "")
        words = [_DTYPE_WORDS[w.upper()] for w in text.split() if w.upper() in _DTYPE_WORDS]
        return cls(data["Name"], tuple(map(int, dims)), words[0] if words else text)


@dataclass(frozen=True, slots=True)
class Layer:
    """One entry of a plan, in order of execution.

    Attributes:
        name: the compiler's name.
        kind: its ``LayerType``, lower case: gemm, kgen (a generated kernel), runtime_fusion, shape_call, ...
        inputs: activations.
        constants: weights and scalars.
        outputs: activations.
        tactic: the kernel, if the compiler names it.
        nodes: names of the ONNX nodes that it executes.
    """

    name: str
    kind: str
    inputs: tuple[PlanTensor, ...]
    constants: tuple[PlanTensor, ...]
    outputs: tuple[PlanTensor, ...]
    tactic: str
    nodes: tuple[str, ...]

    @property
    def role(self) -> Role:
        """The role of the layer.

        ``attention`` is fused; ``gemm`` multiplies with weights; ``product`` multiplies two activations (an
        unfused attention has two); ``copy`` only changes a layout, at most adding, scaling or rounding on the
        way; ``other`` kernels are LayerNormalization and element-wise ones; ``host`` runs no kernel.
        """
        return _role(self)

    @property
    def dtype(self) -> str:
        """The wider of its narrowest activation and its narrowest weights: a residual or a bias may be wider.

        Two factors of a generated product have one type: if a Cast precedes it, as after the Float statistics of
        LayerNormalization, that of the weights, or that of the result if the weights are codes.
        """
        activation = _narrowest(self.factors or self.inputs, "?")
        weights = _narrowest(_row_weights(self) or self.weights, activation)
        if _casts_before_product(self):
            activation = weights if _BITS[weights] >= _BITS["Half"] else _narrowest(self.outputs, activation)
        return max(activation, weights, key=_BITS.__getitem__)

    @property
    def factors(self) -> list[PlanTensor]:
        """Activations that are not scalars."""
        return [t for t in self.inputs if set(t.dims) - {1}]

    @property
    def weights(self) -> list[PlanTensor]:
        """Constants of at least two dimensions."""
        return [t for t in self.constants if len(t.dims) > 1 and set(t.dims) - {1}]

    def record(self) -> LayerRecord:
        """Return a compact form: a tensor is one string."""
        inputs, constants, outputs = (tuple(map(str, g)) for g in (self.inputs, self.constants, self.outputs))
        return LayerRecord(self.name, self.kind, inputs, constants, outputs, self.tactic, self.nodes)

    @classmethod
    def from_record(cls, record: LayerRecord) -> Layer:
        """Rebuild a layer from `record`.

        Raises:
            InputError: a tensor of it has the wrong form.
        """
        groups = (record.inputs, record.constants, record.outputs)
        try:
            inputs, constants, outputs = (tuple(map(PlanTensor.from_text, group)) for group in groups)
        except ValueError as e:
            raise InputError(f"a layer of the plan is damaged or of another version: {e}") from e
        return cls(record.name, record.kind, inputs, constants, outputs, record.tactic, record.nodes)


def layers_from_log(text: str) -> tuple[Layer, ...]:
    """Read the layers from the verbose log of a TensorRT for RTX build.

    The log has one ``Layers:`` block for any number of compute capabilities: they share the plan,
    and the lowest one decides it (1.7.1: with SM 75 added, SM 89 gets the plan of SM 75).

    Raises:
        BuildError: the log holds no plan, or several.
    """
    blocks = re.findall(r"^.*\bLayers:\s*\n((?:\s*Name: .*, LayerType: .*\n?)+)", text, re.MULTILINE)
    if len(blocks) != 1:
        raise BuildError(
            f"the compiler's log holds {len(blocks)} layer plans where one is expected, so the precision "
            "cannot be proven; this version of TensorRT for RTX is not understood (1.7.1 is)"
        )
    try:
        return tuple(_layer_from_line(line) for line in blocks[0].splitlines() if line.strip())
    except _NOT_UNDERSTOOD as e:
        raise BuildError(
            f"the compiler's log has a layer of another form ({type(e).__name__}: {e}), so the precision cannot be "
            "proven; this version of TensorRT for RTX is not understood (1.7.1 is)"
        ) from e


def layers_from_inspector(json_text: str) -> tuple[Layer, ...]:
    """Read the layers from ``EngineInspector.get_engine_information(JSON)``.

    Raises:
        BuildError: the text is not JSON, or the engine was built without layer details.
    """
    try:
        return tuple(_layer_from_json(layer) for layer in parse_foreign_json(json_text)["Layers"])
    except _NOT_UNDERSTOOD as e:
        raise BuildError(
            f"the engine inspector's answer has no layer details ({type(e).__name__}: {e}), so the precision "
            "cannot be proven; the engine must be built with ProfilingVerbosity.DETAILED"
        ) from e


def _layer_from_line(line: str) -> Layer:
    """Parse ``Name: …, LayerType: …, Inputs: [ { Name: …, Dimensions: […], … }], …``."""
    flat = re.sub(r"\{.*?\}", lambda m: m.group().replace(", ", ";").replace(": ", "="), line)
    marks = list(re.finditer(r"(?:^\s*|, )([A-Z]\w*):(?: |$)", flat))
    ends = [m.start() for m in marks[1:]] + [len(flat)]
    data: JsonObject = {m[1]: flat[m.end() : end].strip() for m, end in zip(marks, ends, strict=True)}
    for field in ("Inputs", "Constants", "Outputs"):
        bodies = [body.split(";") for body in re.findall(r"\{(.*?)\}", data.get(field, ""))]
        data[field] = [dict(part.strip().split("=", 1) for part in body if "=" in part) for body in bodies]
    return _layer_from_json(data)


def _layer_from_json(data: JsonObject) -> Layer:
    inputs = [PlanTensor.read(t) for t in data.get("Inputs", ())]
    constants = [PlanTensor.read(t) for t in data.get("Constants", ())]
    # Before the field Constants existed, weights stood among the inputs under a telling name.
    if "Constants" not in data:
        constants += [t for t in inputs if re.search(r"const|_(alpha|beta)$", t.name)]
    return Layer(
        name=data["Name"],
        kind=data["LayerType"].lower(),
        inputs=tuple(t for t in inputs if t not in constants),
        constants=tuple(constants),
        outputs=tuple(PlanTensor.read(t) for t in data.get("Outputs", ())),
        tactic=data.get("TacticName") or "",
        nodes=tuple(re.findall(r"\[ONNX Layer: (.*?)\]", data.get("Metadata") or "")),
    )


def _narrowest(tensors: Iterable[PlanTensor], otherwise: str) -> str:
    return min((t.dtype for t in tensors), key=_BITS.__getitem__, default=otherwise)


def _operations(layer: Layer) -> list[str]:
    """Return the operations of a generated kernel in order; other kernels have none."""
    return re.findall(r"[A-Z][a-z]+", re.sub(r"_myl\d+_\d+$", "", layer.name)) if layer.kind == "kgen" else []


def _row_weights(layer: Layer) -> list[PlanTensor]:
    """Return the weights (K, N) that a generated kernel multiplies a row (K) with; empty if it does not.

    Myelin generates kernels for products of one row, such as those after the last attention at batch 1: they multiply,
    then add up, and do what precedes and follows too (tensorrt-rtx 1.7.1). A sum of squares has the same name, so the
    kernel must also execute a product of the graph, read K and write N numbers.
    """
    if _PRODUCT not in "".join(_operations(layer)) or not any(re.search(r"MatMul|Gemm", node) for node in layer.nodes):
        return []
    read, written = ({d for t in tensors for d in t.dims} for tensors in (layer.inputs, layer.outputs))
    return [t for t in layer.weights if t.dims[-2] > 1 and t.dims[-2] in read and t.dims[-1] in written]


def _casts_before_product(layer: Layer) -> bool:
    return bool(_row_weights(layer)) and "Cast" in "".join(_operations(layer)).rpartition(_PRODUCT)[0]


def _role(layer: Layer) -> Role:
    tensors = layer.inputs + layer.outputs
    if layer.kind in _HOST_KINDS or (tensors and all(t.dtype in _INDEX_DTYPES for t in tensors)):
        return "host"
    # Not just "mha": a projection is named after its ONNX node, which may well contain that.
    if re.search(r"gem[mv]_mha|fmha", f"{layer.name} {layer.tactic}"):
        return "attention"
    return _product(layer) or ("copy" if _is_copy(layer) else "other")


def _product(layer: Layer) -> Literal["gemm", "product"] | None:
    """Return what a layer multiplies its input with: weights, or another activation (Q·Kᵀ and P·V)."""
    if layer.kind == "kgen":
        return "gemm" if _row_weights(layer) else None
    # "correlation" is Myelin's convolution: with stride = kernel, the patch embedding is a GEMM.
    pattern, where = r"^gemm$|^fc$|^correlation$|matrix_?multiply|conv", layer.kind
    if layer.kind.endswith("fusion"):
        pattern, where = r"Fc|Gemm|MatMul|Conv", layer.name  # as in __myl_FcAddAdd_myl0_9
    if not re.search(pattern, where):
        return None
    first, second = [*layer.factors, None, None][:2]
    if layer.weights or first is None or second is None or min(len(first.dims), len(second.dims)) < 3:
        return "gemm"
    # A residual is in the same position as the factor, but has no dimension to contract.
    return "product" if first.dims[-1] == second.dims[-2] else "gemm"


def _is_copy(layer: Layer) -> bool:
    if layer.kind != "kgen":
        return layer.kind in {"reformat", "copy"}
    ops = set(_operations(layer))
    return bool(ops & _LAYOUT_OPS) and ops <= _LAYOUT_OPS | _POINTWISE_OPS
