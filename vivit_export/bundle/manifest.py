"""What ``bundle.json`` says, section by section. Nobody else sees it as raw JSON."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields

from vivit_export.bundle.bench import BenchRecord
from vivit_export.bundle.checks import DriftReport
from vivit_export.bundle.engines import EngineRecord
from vivit_export.choices import AttentionForm
from vivit_export.contract import Contract
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
        num_blocks: encoder blocks, each with one attention.
        config: the checkpoint's ``config.json``, for people and for telling models apart.
        revision: hub revision, where it came from the hub.
        weights_sha256: hash by weight file of the checkpoint.
    """

    id: str
    parameters: int
    num_blocks: int
    config: Mapping[str, object]
    revision: str | None = None
    weights_sha256: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class LargestWeight:
    """The weight with the largest magnitude.

    Attributes:
        name: of the tensor.
        magnitude: its largest absolute value.
    """

    name: str
    magnitude: float


@dataclass(frozen=True, slots=True)
class Smoothing:
    """How the input of a layer was smoothed (SmoothQuant, arXiv:2211.10438).

    Attributes:
        alpha: share of the difficulty that goes into the weights, 0 to 1.
        by: what divides the input by channel: ``free`` (weights of the op in front) or ``mul`` (a multiplication).
    """

    alpha: float
    by: str


@dataclass(frozen=True, slots=True)
class QuantizedLayer:
    """How the Linears that read one tensor are quantized; all but the first two are None where they are not.

    Attributes:
        type: of the codes, or ``float16``.
        linears: module path of each.
        amax: [-amax, amax] is what the codes of the input span.
        error: mean squared error of the output relative to its mean square, on the calibration's rows.
        weight_percent: of the largest weight that the codes of the weights span.
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
        return self.type != "float16"


@dataclass(frozen=True, slots=True)
class ClipsRecord:
    """What the ranges were found on.

    Attributes:
        source: where the clips come from.
        used: how many.
        seed: of their order.
        set_aside: clips that could not be used, and why.
    """

    source: str
    used: int
    seed: int = 0
    set_aside: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class LayerEffect:
    """What quantizing one layer does.

    Attributes:
        layer: its name.
        error: mean squared error of the layer's output relative to its mean square.
        alone: RMS difference of the logits where only this layer is quantized; None: not measured.
        without: the same where all other layers are.
        share: of the multiplications of all layers.
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
        type: of the codes.
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
        clips: what they were found on.
        layers: by name.
        sensitivity: what each layer does to the logits, where that was measured; most first.
        attention: how attention is quantized; None: it is not.
    """

    method: str
    clips: ClipsRecord
    layers: Mapping[str, QuantizedLayer]
    sensitivity: tuple[LayerEffect, ...] = ()
    attention: QuantizedAttention | None = None


@dataclass(frozen=True, slots=True)
class Declined:
    """A place that an exact rewrite left alone though it is meant for it.

    Attributes:
        rewrite: its name.
        node: name of the node.
        reason: why.
    """

    rewrite: str
    node: str
    reason: str


@dataclass(frozen=True, slots=True)
class PrecisionRecord:
    """How the graph is typed, and what was done to get there.

    Attributes:
        name: type of the encoder's weights and GEMMs.
        attention: form of attention in the graph.
        opset: declared ONNX opset.
        layers: type in which the weight of every Linear and convolution is stored, by module path.
        rewrites: how many places each exact rewrite changed.
        declined: places that one left alone though it is meant for them.
        outputs: type of the outputs.
        pixels: how the arithmetic on pixels is done in the graph: None where it takes pixel values.
        largest_weight: how far the weights reach, where they were rounded.
        subnormal_weights: share of the weights other than 0 that lie below the type's normal range.
        float32_ops: names of the nodes that still compute in float32.
        float32_inside: what computes in float32 inside of an op of a lower type.
        quantization: for INT8 and FP8.
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


@dataclass(frozen=True, slots=True)
class CpuGraph:
    """The graph that C++ takes on the CPU, in a deployed copy of a bundle.

    Attributes:
        file: its name.
        details: what it computes in, for people.
    """

    file: str
    details: str


@dataclass(frozen=True, slots=True)
class FileRecord:
    """A file of the bundle.

    Attributes:
        sha256: of its bytes, hexadecimal.
        size: in bytes.
    """

    sha256: str
    size: int


@dataclass(frozen=True, slots=True)
class Content:
    """What a bundle says about itself, all but the list of its files.

    Attributes:
        producer: what wrote it.
        model: where the model comes from.
        contract: its input and output.
        precision: how the graph is typed.
        engines: compiled engines by name.
        checks: what the check at export found; None: it was not checked.
        bench: what ``vivit bench --save`` measured.
        cpu_graph: in a copy that was deployed for C++.
    """

    producer: Producer
    model: ModelRecord
    contract: Contract
    precision: PrecisionRecord
    engines: Mapping[str, EngineRecord] = field(default_factory=dict)
    checks: DriftReport | None = None
    bench: BenchRecord | None = None
    cpu_graph: CpuGraph | None = None


@dataclass(frozen=True, slots=True)
class Manifest(Content):
    """``bundle.json``.

    Attributes:
        files: every other file of the bundle by its path, with ``/`` between folders.
    """

    files: Mapping[str, FileRecord] = field(default_factory=dict)

    @property
    def content(self) -> Content:
        """All but the list of files."""
        return Content(**{f.name: getattr(self, f.name) for f in fields(Content)})
