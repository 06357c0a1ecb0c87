"""Whether ``model.onnx`` is a graph that we could have written, before any other library reads it.

Correct hashes prove only that a file is the one its author listed. It may still not be a graph, may hang or crash the
library that loads it, or may name other files. Valid is what an export writes: one flat list of standard ops in order,
in the opsets that we write, weights in the file itself or in ``model.onnx.data``, and the contract's input and outputs.
Time and memory are proportional to the size of the file. What this cannot bound is how long a valid graph computes.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

from vivit_export.bundle.manifest import FileRecord
from vivit_export.bundle.names import MODEL, MODEL_DATA
from vivit_export.bundle.reading import Bundle
from vivit_export.contract import Tensor
from vivit_export.errors import BundleError
from vivit_export.limits import MOST_ELEMENTS, MOST_GRAPH_BYTES, MOST_NODES
from vivit_export.records import shown

if TYPE_CHECKING:
    from google.protobuf.message import Message
    from onnx import GraphProto, ModelProto, NodeProto, TensorProto, TypeProto, ValueInfoProto

LOWEST_OPSET, HIGHEST_OPSET = 17, 24
# Arithmetic on whole tensors whose output shapes follow from the graph: no control flow, no randomness, no strings.
OPS = frozenset((
    *("Abs", "Add", "Attention", "Cast", "Ceil", "Clip", "Concat", "Conv", "Cos", "DequantizeLinear", "Div", "Elu"),
    *("Erf", "Exp", "Expand", "Flatten", "Floor", "Gather", "Gelu", "Gemm", "HardSigmoid", "HardSwish", "Identity"),
    *("LayerNormalization", "LeakyRelu", "Log", "MatMul", "Max", "Min", "Mish", "Mul", "Neg", "PRelu", "Pad"),
    *("Pow", "QuantizeLinear", "Reciprocal", "ReduceMax", "ReduceMean", "ReduceSum", "Relu", "Reshape", "Round"),
    *("Selu", "Shape", "Sigmoid", "Sign", "Sin", "Slice", "Softmax", "Softplus", "Softsign", "Split", "Sqrt"),
    *("Squeeze", "Sub", "Sum", "Swish", "Tanh", "Tile", "Transpose", "Unsqueeze", "Where"),
))  # fmt: skip
_IR_VERSIONS = range(8, 14)
_MOST_DIMS = 8
_EXTERNAL_KEYS = {"location", "offset", "length"}


def require_sound_graph(bundle: Bundle) -> None:
    """Refuse a graph that is none, or that an export would not write.

    Args:
        bundle: says which bytes the file holds; a file with other bytes is refused too.

    Raises:
        BundleError: says what is wrong.
    """
    path, manifest = bundle.model, bundle.manifest
    model = _parsed(bundle)
    if model.ir_version not in _IR_VERSIONS:
        _refuse(path, f"has the format version {model.ir_version}, not {_IR_VERSIONS[0]} to {_IR_VERSIONS[-1]}")
    opset = _opset(path, model)
    graph = model.graph
    if model.functions or model.training_info or graph.sparse_initializer:
        _refuse(path, "holds functions, training or sparse weights")
    if max(len(graph.node), len(graph.initializer), len(graph.value_info)) > MOST_NODES:
        _refuse(path, f"has more than {MOST_NODES} nodes, weights or tensors")
    _require_text(path, model)
    for weight in graph.initializer:
        _check_weight(path, weight, manifest.files)
    _check_nodes(path, graph, opset, model.ir_version)
    contract = manifest.contract
    _check_values(path, graph.input, contract.io.inputs)
    _check_values(path, graph.output, contract.io.outputs)
    _check_shapes(path, model)


def _refuse(path: Path, why: str) -> NoReturn:
    raise BundleError(f"{path} {why}, which no export writes; export the bundle again")


def parse_graph(content: bytes) -> ModelProto | None:
    """Read a serialized graph; None if the bytes are none."""
    from google.protobuf.message import DecodeError
    from onnx import ModelProto

    try:
        model: ModelProto = ModelProto.FromString(content)
    except DecodeError:
        return None
    return model


def _parsed(bundle: Bundle) -> ModelProto:
    path, size = bundle.model, bundle.manifest.files[MODEL].size
    if size > MOST_GRAPH_BYTES:
        _refuse(path, f"has {size} bytes")
    model = parse_graph(bundle.read(MODEL))
    if model is None:
        raise BundleError(f"{path} is not an ONNX graph; export the bundle again")
    if not model.graph.node:
        raise BundleError(f"{path} is not an ONNX graph, or one without nodes; export the bundle again")
    return model


def _require_text(path: Path, message: Message) -> None:
    """Refuse names that are not UTF-8: protobuf gives them as bytes, and other libraries stumble over them later."""
    for field, value in message.ListFields():
        values = [value] if isinstance(value, (str, bytes)) or hasattr(value, "ListFields") else value
        if field.type == field.TYPE_STRING and not all(isinstance(text, str) for text in values):
            _refuse(path, f"has a {field.name} that is not text")
        if field.type == field.TYPE_MESSAGE:
            for inner in values:
                _require_text(path, inner)


def _opset(path: Path, model: ModelProto) -> int:
    found = [(opset.domain, opset.version) for opset in model.opset_import]
    if len(found) != 1 or found[0][0] not in ("", "ai.onnx"):
        _refuse(path, f"imports the op sets {shown([domain for domain, _ in found])}, not the standard one alone")
    version = found[0][1]
    if not LOWEST_OPSET <= version <= HIGHEST_OPSET:
        _refuse(path, f"has the opset {version}, not {LOWEST_OPSET} to {HIGHEST_OPSET}")
    return int(version)


def _check_weight(path: Path, weight: TensorProto, files: Mapping[str, FileRecord]) -> None:
    from onnx import TensorProto
    from onnx.helper import tensor_dtype_to_np_dtype

    if len(weight.dims) > _MOST_DIMS or any(side < 0 for side in weight.dims) or math.prod(weight.dims) > MOST_ELEMENTS:
        _refuse(path, f"has a weight {shown(weight.name)} of the shape {shown(list(weight.dims))}")
    allowed = (
        *(TensorProto.FLOAT, TensorProto.FLOAT16, TensorProto.BFLOAT16, TensorProto.INT8, TensorProto.UINT8),
        *(TensorProto.FLOAT8E4M3FN, TensorProto.INT32, TensorProto.INT64, TensorProto.BOOL),
    )
    if weight.data_type not in allowed:
        _refuse(path, f"has a weight {shown(weight.name)} of the type {weight.data_type}")
    needed = math.prod(weight.dims) * tensor_dtype_to_np_dtype(weight.data_type).itemsize
    if weight.data_location == TensorProto.EXTERNAL:
        _check_external(path, weight, needed, files)
    elif weight.external_data or (len(weight.raw_data) != needed and not _typed(weight)):
        _refuse(path, f"has a weight {shown(weight.name)} with other data than its {needed} bytes")


def _typed(weight: TensorProto) -> bool:
    """Whether the numbers are stored one by one, as ONNX's own helpers may, and all of them."""
    counts = (len(weight.float_data), len(weight.int32_data), len(weight.int64_data))
    return not weight.raw_data and sum(counts) == max(counts) == math.prod(weight.dims)


def _check_external(path: Path, weight: TensorProto, needed: int, files: Mapping[str, FileRecord]) -> None:
    told = {item.key: item.value for item in weight.external_data}
    if told.get("location") != MODEL_DATA or MODEL_DATA not in files:
        _refuse(path, f"keeps the weight {shown(weight.name)} in {shown(told.get('location'))}, not in {MODEL_DATA}")
    numbers = [told.get("offset", "0"), told.get("length", str(needed))]
    if set(told) - _EXTERNAL_KEYS or not all(text.isascii() and text.isdigit() and len(text) < 20 for text in numbers):
        _refuse(path, f"says of the weight {shown(weight.name)} {shown(told)}")
    offset, length = map(int, numbers)
    if length != needed or offset + length > files[MODEL_DATA].size:
        _refuse(path, f"keeps the weight {shown(weight.name)} beyond the end of {MODEL_DATA}, or in another size")


def _check_nodes(path: Path, graph: GraphProto, opset: int, ir_version: int) -> None:
    """Refuse unknown ops, subgraphs, and nodes that read what no earlier one wrote: so there are no circles."""
    from onnx import checker

    context = checker.C.CheckerContext()
    context.ir_version, context.opset_imports = ir_version, {"": opset}
    known = {weight.name for weight in graph.initializer}
    if len(known) < len(graph.initializer):
        _refuse(path, "has two weights of one name")
    known.update(value.name for value in graph.input)
    for node in graph.node:
        if node.domain not in ("", "ai.onnx") or node.op_type not in OPS:
            _refuse(path, f"has the op {shown(f'{node.domain}.{node.op_type}'.lstrip('.'))}")
        _check_attributes(path, node)
        unknown = [name for name in node.input if name and name not in known]
        if unknown:
            _refuse(path, f"has a node {shown(node.name)} that reads {shown(unknown[0])}, written by none before it")
        for name in node.output:
            if name and name in known:
                _refuse(path, f"writes the tensor {shown(name)} twice")
            known.add(name)
        try:
            checker.check_node(node, context)
        except checker.ValidationError as e:
            reason = str(e).splitlines()[0] if str(e) else "it is incomplete"
            _refuse(path, f"has a node {shown(node.name)} that is not a {node.op_type} ({reason})")


def _check_attributes(path: Path, node: NodeProto) -> None:
    from onnx import AttributeProto

    single = (AttributeProto.FLOAT, AttributeProto.INT, AttributeProto.STRING)
    plain = (*single, AttributeProto.FLOATS, AttributeProto.INTS, AttributeProto.STRINGS)
    for attribute in node.attribute:
        if attribute.type not in plain or attribute.ref_attr_name or len(attribute.ints) > MOST_NODES:
            _refuse(
                path, f"has a node {shown(node.name)} with a graph, a tensor or no value in {shown(attribute.name)}"
            )


def _check_values(path: Path, values: Iterable[ValueInfoProto], wanted: Iterable[Tensor]) -> None:
    """Refuse inputs or outputs that are not the contract's, but for the name of the batch."""
    found = {value.name: _signature(value.type) for value in values}
    needed = {tensor.name: (tensor.dtype, tensor.shape[1:]) for tensor in wanted}
    if found != needed:
        _refuse(path, f"has the tensors {_words(found)} where the contract has {_words(needed)}")


def _words(tensors: Mapping[str, tuple[str, tuple[int | str, ...]]]) -> str:
    return shown({name: f"{dtype} {list(shape)}" for name, (dtype, shape) in tensors.items()})


def _signature(kind: TypeProto) -> tuple[str, tuple[int | str, ...]]:
    from onnx import TensorProto

    tensor = kind.tensor_type
    dtypes: dict[int, str] = {TensorProto.UINT8: "uint8", TensorProto.FLOAT: "float32"}
    sides = [side.dim_value if side.HasField("dim_value") else side.dim_param for side in tensor.shape.dim]
    if not sides or not isinstance(sides[0], str):
        return "a fixed batch of", tuple(sides)
    return dtypes.get(tensor.elem_type, f"type {tensor.elem_type}"), tuple(sides[1:])


def _check_shapes(path: Path, model: ModelProto) -> None:
    """Refuse tensors of absurd shapes, and outputs that are not what the graph says of them."""
    from onnx import shape_inference

    for value in model.graph.value_info:
        _check_shape(path, value)
    try:
        inferred = shape_inference.infer_shapes(model, check_type=True, strict_mode=True, data_prop=True)
    except (shape_inference.InferenceError, ValueError, RuntimeError, TypeError) as e:
        reason = str(e).splitlines()[0] if str(e) else "its shapes do not fit together"
        raise BundleError(f"{path} is not a valid ONNX graph ({reason}); export the bundle again") from e
    for value in (*inferred.graph.value_info, *inferred.graph.output):
        _check_shape(path, value)


def _check_shape(path: Path, value: ValueInfoProto) -> None:
    sides = [side.dim_value for side in value.type.tensor_type.shape.dim if side.HasField("dim_value")]
    if len(sides) > _MOST_DIMS or any(side < 0 for side in sides) or math.prod(sides) > MOST_ELEMENTS:
        _refuse(path, f"has a tensor {shown(value.name)} of the shape {shown(sides)}")
