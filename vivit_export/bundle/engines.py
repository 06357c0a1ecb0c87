"""What the bundle says about an engine: the records of ``engines/NAME.json``."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

from vivit_export.bundle.checks import Drift
from vivit_export.errors import InputError
from vivit_export.flavour import Flavour
from vivit_export.limits import MOST_BATCH, MOST_SM
from vivit_export.precision import Precision
from vivit_export.records import shown

_VERSION = re.compile(r"[A-Za-z0-9][A-Za-z0-9.+-]{0,31}", re.ASCII)  # it stands in commands of READMEs


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
class PlanSummary:
    """A summary of what an engine does.

    Attributes:
        layers: entries of the plan.
        kernels: entries that run on the GPU (no host-side shape arithmetic, no stream events).
        attention_fused: attention kernels that never write the score matrix.
        attention_dtypes: how many of those read Q in each type.
        unfused_matmuls: products of two activations; an unfused attention has two.
        copies: kernels that only change a layout, at most adding, scaling or rounding on the way.
        activation_bytes: scratch memory of one execution context at the largest batch.
        weight_bytes: weights in the engine.
        gemms: how many products with weights multiply in each type.
        gemm_layers: every product with weights, in order of execution.
    """

    layers: int
    kernels: int
    attention_fused: int
    attention_dtypes: Mapping[str, int]
    unfused_matmuls: int
    copies: int
    activation_bytes: int
    weight_bytes: int
    gemms: Mapping[str, int]
    gemm_layers: tuple[Gemm, ...]


@dataclass(frozen=True, slots=True)
class Profile:
    """Batches of an optimization profile, in clips.

    Attributes:
        min: smallest batch that it accepts.
        opt: batch that its kernels are tuned for.
        max: largest batch that it accepts.
    """

    min: int
    opt: int
    max: int

    def __post_init__(self) -> None:
        if not 1 <= self.min <= self.opt <= self.max <= MOST_BATCH:
            raise InputError(
                f"an engine has the profile min={self.min}, opt={self.opt}, max={self.max}, which must rise from 1 or "
                f"more to at most {MOST_BATCH}; build it again"
            )


@dataclass(frozen=True, slots=True)
class BatchDrift:
    """How far an engine's results were from the reference at one batch size.

    Attributes:
        batch: clips per call.
        drift: of the golden clips, which are repeated if there are fewer.
    """

    batch: int
    drift: Drift


@dataclass(frozen=True, slots=True)
class Verification:
    """A device on which an engine ran the golden clips, within the gate at every batch.

    Attributes:
        device: name of the GPU, such as NVIDIA H100 80GB HBM3.
        driver: version of its driver, such as 580.65.06, CUDA 13.0.
        versions: of what ran the engine, by name.
        clips: how many golden clips there were.
        batches: figures at batch 1 (or the smallest of the profile), the one that it is tuned for, and the largest.
    """

    device: str
    driver: str
    versions: Mapping[str, str]
    clips: int
    batches: tuple[BatchDrift, ...]


@dataclass(frozen=True, slots=True)
class EngineRecord:
    """A compiled engine; its file is ``engines/NAME.plan``.

    Attributes:
        flavour: which compiler.
        version: its exact version; an engine runs on no other.
        sms: compute capabilities that it runs on, ascending.
        profiles: a list of one; only the first counts.
        precision: precision of the graph that it was compiled from.
        size: size of the engine in bytes.
        onnx_sha256: hash of that graph.
        proof: what its plan shows, in sentences.
        plan: summary of the plan.
        verified_on: devices on which its results were compared with the reference when it was built.
    """

    flavour: Flavour
    version: str
    sms: tuple[int, ...]
    profiles: tuple[Profile, ...]
    precision: Precision
    size: int
    onnx_sha256: str
    proof: tuple[str, ...]
    plan: PlanSummary
    verified_on: tuple[Verification, ...] = ()

    def __post_init__(self) -> None:
        if not self.profiles:
            raise InputError("an engine has no profile; build it again")
        if not _VERSION.fullmatch(self.version):
            raise InputError(f"an engine has the version {shown(self.version)}, which is not a version; build it again")
        for sm in self.sms:
            if not 1 <= sm <= MOST_SM:
                raise InputError(f"an engine has the compute capability {sm}, which does not exist; build it again")

    @property
    def profile(self) -> Profile:
        """The batches that it accepts."""
        return self.profiles[0]

    @property
    def compiler(self) -> str:
        """Flavour and version, for people."""
        return f"{self.flavour} {self.version}"


@dataclass(frozen=True, slots=True)
class LayerRecord:
    """One entry of a compiled plan, as the sidecar has it; a tensor is text, as in ``Half[-1,257,64] q``.

    Attributes:
        name: the compiler's.
        kind: what the compiler calls this kind of layer, in lower case.
        inputs: activations.
        constants: weights and scalars.
        outputs: activations.
        tactic: the kernel, where the compiler names it.
        nodes: names of the ONNX nodes it carries out.
    """

    name: str
    kind: str
    inputs: tuple[str, ...]
    constants: tuple[str, ...]
    outputs: tuple[str, ...]
    tactic: str
    nodes: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Sidecar(EngineRecord):
    """``engines/NAME.json``: what the manifest says, and the whole plan.

    Attributes:
        layers: the plan in order of execution; empty in a bundle from before they were recorded.
    """

    layers: tuple[LayerRecord, ...] = ()
