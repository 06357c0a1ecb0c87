"""The contents of ``bundle.json``, section by section. No other module sees it as raw JSON."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields

from vivit_export.anatomy import Anatomy
from vivit_export.bundle.bench import BenchRecord
from vivit_export.bundle.checks import DriftReport
from vivit_export.bundle.engines import EngineRecord
from vivit_export.bundle.search import PrecisionSearch
from vivit_export.choices import AttentionForm
from vivit_export.contract import Contract
from vivit_export.errors import InputError
from vivit_export.precision import Precision


@dataclass(frozen=True, slots=True)
class Producer:
    """What wrote the bundle.

    Attributes:
        vivit_export: version of this package.
    """

    vivit_export: str


@dataclass(frozen=True, slots=True)
class ModelRecord:
    """Where the model comes from.

    Attributes:
        id: hub id, ``demo``, or the name of a folder.
        parameters: how many numbers it has.
        num_blocks: encoder blocks.
        config: the checkpoint's ``config.json``, for people and to distinguish models.
        anatomy: what the network is made of.
        revision: hub revision, if it came from the hub.
        weights_sha256: hash by weight file of the checkpoint.
        notes: what was done with the checkpoint besides loading it: weights that are not exported, a prefix of their
            names that was left out, settings that were replaced, pixel values that are unlikely.
    """

    id: str
    parameters: int
    num_blocks: int
    config: Mapping[str, object]
    anatomy: Anatomy
    revision: str | None = None
    weights_sha256: Mapping[str, str] = field(default_factory=dict)
    notes: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class LargestWeight:
    """The weight with the largest magnitude.

    Attributes:
        name: name of the tensor.
        magnitude: its largest absolute value.
    """

    name: str
    magnitude: float


@dataclass(frozen=True, slots=True)
class Smoothing:
    """How the input of a layer was smoothed (SmoothQuant, arXiv:2211.10438).

    Attributes:
        alpha: share of the difficulty that goes into the weights, 0 to 1.
        by: what divides the input by channel: ``free`` (weights of the op before) or ``mul`` (a multiplication).
    """

    alpha: float
    by: str


@dataclass(frozen=True, slots=True)
class QuantizedLayer:
    """How the Linears that read one tensor are quantized. If they are not, all but the first two fields are None.

    Attributes:
        type: type of the codes, or ``float16`` or ``float32``.
        linears: module path of each.
        amax: the codes of the input span [-amax, amax].
        error: mean squared error of the output relative to its mean square, on the calibration's rows.
        weight_percent: percentage of the largest weight that the codes of the weights span.
        bias_corrected: whether the mean shift caused by rounding weights is corrected in the bias.
        smoothing: how the input was smoothed.
    """

    type: str
    linears: tuple[str, ...]
    amax: float | None = None
    error: float | None = None
    weight_percent: int | None = None
    bias_corrected: bool = False
    smoothing: Smoothing | None = None

    @property
    def quantized(self) -> bool:
        """Whether its weights are codes."""
        return self.type not in ("float16", "float32")


@dataclass(frozen=True, slots=True)
class ClipsRecord:
    """The clips that the ranges were found on.

    Attributes:
        source: where the clips come from.
        used: how many.
        seed: seed of their order.
        set_aside: clips that could not be used, and why.
    """

    source: str
    used: int
    seed: int = 0
    set_aside: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class LayerEffect:
    """The effect of quantizing one layer.

    Attributes:
        layer: its name.
        error: mean squared error of the layer's output relative to its mean square.
        alone: RMS difference of the logits with only this layer quantized; None: not measured.
        without: the same with all other layers quantized.
        share: share of the multiplications of all layers.
    """

    layer: str
    error: float
    alone: float | None
    without: float | None
    share: float


@dataclass(frozen=True, slots=True)
class QuantizedAttention:
    """How the tensors of attention are quantized.

    Attributes:
        type: type of the codes.
        amax: range that Q, K and V of a block share, by its module path.
        softmax_scale: scale of the codes of the softmax.
    """

    type: str
    amax: Mapping[str, float]
    softmax_scale: float


@dataclass(frozen=True, slots=True)
class QuantizationRecord:
    """How a graph was quantized.

    Attributes:
        method: how ranges were found.
        clips: the clips that they were found on.
        layers: layers by name.
        sensitivity: effect of each layer on the logits, if measured; largest first.
        attention: how attention is quantized; None: it is not.
    """

    method: str
    clips: ClipsRecord
    layers: Mapping[str, QuantizedLayer]
    sensitivity: tuple[LayerEffect, ...] = ()
    attention: QuantizedAttention | None = None


@dataclass(frozen=True, slots=True)
class Declined:
    """A place that an exact rewrite left alone although it is meant for it.

    Attributes:
        rewrite: name of the rewrite.
        node: name of the node.
        reason: why it was left alone.
    """

    rewrite: str
    node: str
    reason: str


@dataclass(frozen=True, slots=True)
class PrecisionRecord:
    """The types of the graph, and the changes that led to them.

    Attributes:
        name: type of the encoder's weights and GEMMs.
        attention: form of attention in the graph.
        opset: declared ONNX opset.
        layers: type that stores the weight of every Linear and convolution, by module path.
        rewrites: how many places each exact rewrite changed.
        declined: places that a rewrite left alone although it is meant for them.
        outputs: type of the outputs.
        pixels: form of the pixel arithmetic in the graph; None: it takes pixel values.
        largest_weight: the weight with the largest magnitude, if weights were rounded.
        subnormal_weights: share of the nonzero weights that are below the type's normal range.
        float32_ops: names of the nodes that still compute in float32.
        float32_inside: what computes in float32 inside an op of a lower type.
        quantization: for INT8 and FP8.
        kept_float32: names of the nodes that compute in float32 because the user asked for it.
    """

    name: Precision
    attention: AttentionForm
    opset: int
    layers: Mapping[str, str] = field(default_factory=dict)
    rewrites: Mapping[str, int] = field(default_factory=dict)
    declined: tuple[Declined, ...] = ()
    outputs: str = "float32"
    pixels: str | None = None
    largest_weight: LargestWeight | None = None
    subnormal_weights: float | None = None
    float32_ops: tuple[str, ...] = ()
    float32_inside: str | None = None
    quantization: QuantizationRecord | None = None
    kept_float32: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class PreparedGraph:
    """A graph that C++ runs in ONNX Runtime in place of the portable one, in a deployed copy of a bundle.

    Attributes:
        file: name of the file.
        details: its arithmetic and attention, for people.
    """

    file: str
    details: str


@dataclass(frozen=True, slots=True)
class FileRecord:
    """A file of the bundle.

    Attributes:
        sha256: SHA-256 of its bytes, hexadecimal.
        size: size in bytes.
    """

    sha256: str
    size: int


@dataclass(frozen=True, slots=True)
class Content:
    """What a bundle says about itself, except for the list of its files.

    Attributes:
        producer: what wrote it.
        model: where the model comes from.
        contract: input and output of the model.
        precision: types of the graph.
        engines: engines by name.
        checks: results of the check at export; None: it was not checked.
        bench: results of ``vivit bench --save``.
        recheck: result of ``vivit check --save``.
        cpu_graph: the graph for the CPU, in a copy that was deployed for C++.
        cuda_graph: the graph for ONNX Runtime on a GPU, with fused attention, in such a copy.
        search: how the precision was chosen; None: it was given.
    """

    producer: Producer
    model: ModelRecord
    contract: Contract
    precision: PrecisionRecord
    engines: Mapping[str, EngineRecord] = field(default_factory=dict)
    checks: DriftReport | None = None
    bench: BenchRecord | None = None
    recheck: DriftReport | None = None
    cpu_graph: PreparedGraph | None = None
    cuda_graph: PreparedGraph | None = None
    search: PrecisionSearch | None = None


@dataclass(frozen=True, slots=True)
class Manifest(Content):
    """``bundle.json``.

    Attributes:
        files: every other file of the bundle by its path, with ``/`` between folders.
    """

    files: Mapping[str, FileRecord] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if not self.contract.io.outputs:
            raise InputError("io: a model has logits, an embedding or both, got no output")

    @property
    def content(self) -> Content:
        """Everything except the list of files."""
        return Content(**{f.name: getattr(self, f.name) for f in fields(Content)})
