"""Triton's configuration of a bundle: the message ``ModelConfig``, derived from contract and engines.

Field names and meaning: ``model_config.proto`` of triton-inference-server/common, and the model
configuration page of its documentation.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import get_args

from vivit_export.bundle import MODEL, MODEL_DATA, Bundle
from vivit_export.bundle.engines import EngineRecord
from vivit_export.choices import ServerBackend
from vivit_export.contract import Contract, Tensor
from vivit_export.deploy.triton.pbtxt import Message, Symbol, map_field
from vivit_export.errors import BundleError, UsageError, option
from vivit_export.flavour import Flavour
from vivit_export.precision import Precision
from vivit_export.runtime.session.onnxruntime import prepare_for_cuda
from vivit_export.runtime.session.triton.protocol import CONTRACT, ENGINE, ONNX_SHA256

BACKENDS: tuple[ServerBackend, ...] = get_args(ServerBackend)

CONFIG = "config.pbtxt"
LABELS = "labels.txt"
CHECK, CHECK_FACTS = "check.py", "check.json"
"""A copy of `vivit_export.deploy.triton.golden_check`, and what it reads."""

DEFAULT_DELAY_US = 1000
"""How long a request waits for others to share its batch, if the engine was not timed. While the engine is
busy, requests gather anyway; a single client pays the full delay on every request."""

_ONNXRUNTIME = option("backend", "onnxruntime")
_TENSORRT_MODES = {Precision.FP32: "FP32", Precision.FP16: "FP16"}  # of ONNX Runtime's TensorRT provider
# Whose fused attention every ONNX Runtime of a Triton image has; bf16's came with 1.24, and a server cannot fall back.
_FUSED = (Precision.FP32, Precision.FP16, Precision.INT8)
_DELAY_SHARE = 0.1  # of the time for one clip, if it was measured: what a single client may lose
_TIMED_AS = {"tensorrt": ("tensorrt",), "onnxruntime": ("onnxruntime-cuda", "onnxruntime-cpu")}  # by backend
_UNCHECKED_BATCH = 8  # largest batch of a graph that was never run: what a profile has by default
_TYPES = {"uint8": "TYPE_UINT8", "float32": "TYPE_FP32", "float16": "TYPE_FP16"}
# TF32 would give an fp32 graph the products of 10-bit mantissas; sessions on this machine switch it off too.
_NO_TF32: Message = {"name": "cuda", "parameters": map_field({"use_tf32": "0"})}


@dataclass(frozen=True, slots=True)
class Engine:
    """What Triton loads, and the batches that it accepts.

    Attributes:
        backend: Triton's back end; ``onnxruntime-tensorrt``: ONNX Runtime with its TensorRT provider, on a GPU.
        title: description with version and GPUs, for people.
        files: file of the bundle, by its name in the version folder.
        by_capability: name in the version folder by compute capability (``9.0``), if there are several.
        batches: sizes that it is tuned for or was checked at, ascending; the last is the largest.
        prepared: bytes to write in place of such a file: the graph with fused attention.
    """

    backend: ServerBackend
    title: str
    files: dict[str, Path]
    by_capability: dict[str, str]
    batches: tuple[int, ...]
    prepared: Mapping[str, bytes] = field(default_factory=dict)


def choose_engine(bundle: Bundle, backend: ServerBackend | None = None) -> Engine:
    """Choose what Triton will run.

    Args:
        bundle: a verified bundle.
        backend: None: TensorRT if the bundle has a TensorRT engine, else ONNX Runtime.

    Raises:
        UsageError: the back end is unknown.
        BundleError: the bundle has no engine for it, or has engines that one server cannot offer together.
    """
    if backend not in (None, *BACKENDS):
        raise UsageError(f"{option('backend', backend)} is unknown; use auto, {', '.join(BACKENDS)}")
    plans = {name: e for name, e in sorted(bundle.engines.items()) if e.flavour is Flavour.TENSORRT}
    if backend == "tensorrt" and not plans:
        found = f" (that back end cannot load its {', '.join(sorted(bundle.engines))})" if bundle.engines else ""
        raise BundleError(
            f"{bundle.path} has no full TensorRT engine for Triton{found}; add one with: vivit build {bundle.path} "
            f"--target tensorrt, or use {_ONNXRUNTIME}"
        )
    if plans and backend in (None, "tensorrt"):
        return _tensorrt(bundle, plans)
    if backend == "onnxruntime-tensorrt" and bundle.precision not in _TENSORRT_MODES:
        raise BundleError(
            f"{bundle.path} is in {bundle.precision}, which ONNX Runtime's TensorRT provider does not support; use "
            f"{_ONNXRUNTIME}, or export with {option('precision', 'fp16')}"
        )
    return _onnxruntime(bundle, backend or "onnxruntime")


def engine_config(
    name: str, bundle: Bundle, contract: Contract, engine: Engine, *, delay_us: int, instances: int | None
) -> Message:
    """Return the ``ModelConfig`` of the model that runs the engine.

    Args:
        name: name of the model.
        bundle: a verified bundle.
        contract: the bundle's contract, possibly with other labels or another sampling rule.
        engine: see `choose_engine`.
        delay_us: how long a request may wait for others to share its batch, in microseconds.
        instances: copies of the engine per GPU (or on the CPU); None: Triton chooses.
    """
    io = contract.io
    return {
        "name": name,
        **_platform(engine),
        "max_batch_size": engine.batches[-1],
        "input": [tensor_message(tensor) for tensor in io.inputs],
        "output": [output_message(tensor, contract) for tensor in io.outputs],
        "version_policy": {"latest": {"num_versions": 1}},
        "dynamic_batching": {"max_queue_delay_microseconds": delay_us},
        **_instance_group(engine, bundle.precision, instances),
        "optimization": _optimization(engine, io.inputs[0], bundle.precision),
        "model_warmup": [_warmup(size, io.inputs[0], bundle.golden is not None) for size in engine.batches],
        "parameters": parameters(bundle, contract, engine),
    }


def tensor_message(tensor: Tensor) -> Message:
    """Return an input or output without its batch dimension."""
    dims = [int(d) for d in tensor.shape[1:]]
    return {"name": tensor.name, "data_type": Symbol(_TYPES[tensor.dtype]), "dims": dims}


def output_message(tensor: Tensor, contract: Contract) -> Message:
    """Return an output; logits come with the file of their labels."""
    labels = {"label_filename": LABELS} if tensor.name == "logits" and contract.labels else {}
    return {**tensor_message(tensor), **labels}


def choose_delay_us(bundle: Bundle, engine: Engine) -> int:
    """A tenth of the time for one clip on this engine if ``vivit bench --save`` measured it, else the default."""
    timed = bundle.manifest.bench.contenders if bundle.manifest.bench else {}
    for name in _TIMED_AS.get(engine.backend, ()):
        alone = timed[name].batches.get("1") if name in timed else None
        if alone is not None:
            return max(1, round(_DELAY_SHARE * 1e3 * alone.p50_ms))
    return DEFAULT_DELAY_US


def parameters(bundle: Bundle, contract: Contract, engine: Engine, **more: str) -> list[Message]:
    """Return what clients read about a model: contract, graph hash, engine, and anything in ``more``."""
    facts = {
        CONTRACT: json.dumps(contract.to_json(), sort_keys=True, separators=(",", ":")),
        ONNX_SHA256: bundle.manifest.files[MODEL].sha256,
        ENGINE: f"{engine.title}, {bundle.precision}",
        **more,
    }
    return map_field({key: {"string_value": value} for key, value in facts.items()})


def _tensorrt(bundle: Bundle, plans: dict[str, EngineRecord]) -> Engine:
    for name, plan in plans.items():
        if plan.profile.min > 1:
            raise BundleError(
                f"engine {name} takes batches of {plan.profile.min} or more, but Triton also runs single requests; "
                f"build it again with {option('batches.min', 1)}"
            )
    versions = sorted({plan.version for plan in plans.values()})
    if len(versions) > 1:
        raise BundleError(
            f"the engines of {bundle.path} are of TensorRT {' and '.join(versions)}, but a server has one version; "
            "build them again with one"
        )
    by_sm = {sm: name for name, plan in plans.items() for sm in plan.sms}
    gpus = ", ".join(f"sm_{sm}" for sm in sorted(by_sm))
    title = f"TensorRT {versions[0]} on {gpus}"
    batches = _batches_of_all(plans.values())
    if len(plans) == 1:
        return Engine("tensorrt", title, {"model.plan": bundle.engine_path(*plans)}, {}, batches)
    files = {f"model_sm{sm}.plan": bundle.engine_path(name) for sm, name in sorted(by_sm.items())}
    by_capability = {f"{sm // 10}.{sm % 10}": f"model_sm{sm}.plan" for sm in sorted(by_sm)}
    return Engine("tensorrt", title, files, by_capability, batches)


def _batches_of_all(plans: Iterable[EngineRecord]) -> tuple[int, ...]:
    """Return the batches that every engine accepts, because one configuration serves them all."""
    profiles = [plan.profile for plan in plans]
    largest = min(profile.max for profile in profiles)
    tuned = {size for profile in profiles for size in (profile.min, profile.opt)}
    return _ascending({1, largest, *(size for size in tuned if size < largest)})


def _onnxruntime(bundle: Bundle, backend: ServerBackend) -> Engine:
    files = {name: bundle.path / name for name in (MODEL, MODEL_DATA) if name in bundle.manifest.files}
    checks = bundle.manifest.checks
    checked = {run.batch for run in checks.runs} if checks else set()
    batches = _ascending({1, *(checked or {_UNCHECKED_BATCH})})
    title = "ONNX Runtime" if backend == "onnxruntime" else "ONNX Runtime with TensorRT"
    plain = Engine(backend, f"{title}, opset {bundle.manifest.precision.opset}", files, {}, batches)
    if backend != "onnxruntime" or bundle.precision not in _FUSED:  # TensorRT fuses attention itself
        return plain
    model, fused = prepare_for_cuda(bundle)
    if not fused:
        return plain
    (opset,) = (opset.version for opset in model.opset_import if not opset.domain)
    prepared = {MODEL: model.SerializeToString(deterministic=True)}
    return Engine(backend, f"{title}, opset {opset}, {fused}", files, {}, batches, prepared)


def _ascending(sizes: Iterable[int]) -> tuple[int, ...]:
    return tuple(sorted(sizes))


def _platform(engine: Engine) -> Message:
    if engine.backend != "tensorrt":
        return {"backend": "onnxruntime"}
    names = {"cc_model_filenames": map_field(dict(engine.by_capability))} if engine.by_capability else {}
    return {"platform": "tensorrt_plan", **names}


def _instance_group(engine: Engine, precision: Precision, instances: int | None) -> Message:
    """Return the instance group; by default, Triton makes one per GPU or, without a GPU, two on the CPU.

    What a CPU cannot run says so: then Triton refuses a machine without a GPU in a sentence.
    """
    on_cpu = engine.backend == "onnxruntime" and precision.cpu_kernels
    if instances is None and (on_cpu or engine.backend == "tensorrt"):
        return {}
    kind = {} if on_cpu else {"kind": Symbol("KIND_GPU")}
    return {"instance_group": [{"count": instances or 1, **kind}]}


def _optimization(engine: Engine, source: Tensor, precision: Precision) -> Message:
    if engine.backend != "tensorrt":
        provider = [_tensorrt_provider(engine, source, precision)] if engine.backend == "onnxruntime-tensorrt" else []
        return {"execution_accelerators": {"gpu_execution_accelerator": [*provider, _NO_TF32]}}
    shape = map_field({source.name: {"dim": [int(d) for d in source.shape[1:]]}})
    # No lower bounds: a padded graph would run on what an earlier batch left behind.
    return {"cuda": {"graphs": True, "graph_spec": [{"batch_size": b, "input": shape} for b in engine.batches]}}


def _tensorrt_provider(engine: Engine, source: Tensor, precision: Precision) -> Message:
    """Return the provider's options, named in the README of triton-inference-server/onnxruntime_backend.

    One profile covers all batches: without it, the provider would build an engine again for every larger batch.
    """
    clip = "x".join(str(d) for d in source.shape[1:])
    shapes = {"min": engine.batches[0], "opt": engine.batches[-2:][0], "max": engine.batches[-1]}
    profile = {f"trt_profile_{name}_shapes": f"{source.name}:{size}x{clip}" for name, size in shapes.items()}
    options = {"precision_mode": _TENSORRT_MODES[precision], "trt_layer_norm_fp32_fallback": "1", **profile}
    return {"name": "tensorrt", "parameters": map_field(options)}


def _warmup(size: int, source: Tensor, has_clip: bool) -> Message:
    data = {"input_data_file": source.name} if has_clip else {"random_data": True}
    value = {key: field for key, field in tensor_message(source).items() if key != "name"}
    return {"name": f"batch {size}", "batch_size": size, "inputs": map_field({source.name: {**value, **data}})}
