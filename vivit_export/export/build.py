"""Add compiled engines to a bundle, during an export or long after it, without torch."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from vivit_export import bundle
from vivit_export.bundle import Bundle, read_bundle
from vivit_export.contract import Contract
from vivit_export.errors import EnvironmentFault, OutputError, UsageError
from vivit_export.export.amend import amend
from vivit_export.export.engine.compile import EngineRequest, Flavour, build_engine, check_sms
from vivit_export.export.engine.plan import PROMISED_DTYPE, prove
from vivit_export.export.options import check_batches, check_targets, choose_flavours
from vivit_export.progress import Progress, Silent


def engine_name(flavour: Flavour, sms: Sequence[int]) -> str:
    """Name of an engine in the bundle: its flavour, and the SMs it was compiled ahead of time for."""
    return "-".join([flavour, *(f"sm{sm}" for sm in sorted(set(sms)))])


def add_engine(
    folder: Path,
    manifest: dict[str, Any],
    flavour: Flavour,
    *,
    sms: tuple[int, ...],
    batches: tuple[int, int, int],
    timing_cache: Path | None = None,
    allow_unfused: bool = False,
) -> tuple[str, dict[str, Any]]:
    """Compile ``folder/model.onnx`` and prove the plan.

    Args:
        folder: bundle under construction.
        manifest: its content so far (contract, precision, model).
        flavour: which compiler.
        sms: compute capabilities to build for ahead of time; empty means the flavour's default.
        batches: (min, opt, max).
        timing_cache: TensorRT's timing cache file.
        allow_unfused: do not insist on fused attention.

    Returns:
        Name and sidecar of the engine; both files are in ``folder/engines``, where the sidecar also lists the
        layers of the plan.

    Raises:
        BuildError: the compiler failed.
        PrecisionError: the plan keeps less than was promised.
    """
    contract = Contract.from_json(manifest["contract"])
    precision = str(manifest["precision"]["name"])
    name = engine_name(flavour, sms)
    (folder / bundle.ENGINES).mkdir(exist_ok=True)
    source = contract.io.inputs[0]
    request = EngineRequest(
        flavour=flavour,
        onnx=folder / bundle.MODEL,
        input_name=source.name,
        input_shape=tuple(int(d) for d in source.shape[1:]),
        batches=batches,
        sms=check_sms(flavour, sms, precision),
        timing_cache=timing_cache,
    )
    log = folder / bundle.ENGINES / f".{name}.log"
    try:
        built = build_engine(request, folder / bundle.ENGINES / f"{name}.plan", log)
    finally:
        log.unlink(missing_ok=True)
    quantisation = manifest["precision"].get("quantisation", {})
    proof = prove(
        built.plan,
        precision=precision,
        num_attention=int(manifest["model"]["config"]["num_hidden_layers"]),
        single_query=int(manifest["precision"].get("rewrites", {}).get("class-token", 0)),
        linears=_promised_linears(manifest["precision"]),
        attention_dtype=PROMISED_DTYPE["fp8"] if "attention" in quantisation else None,
        allow_unfused=allow_unfused,
    )
    sidecar = {
        "flavour": flavour,
        "version": built.version,
        "sms": list(built.sms),
        "profiles": [{"min": batches[0], "opt": batches[1], "max": batches[2]}],
        "precision": precision,
        "size": built.size_bytes,
        "onnx_sha256": bundle.sha256_of(folder / bundle.MODEL),
        "proof": proof,
        "plan": built.plan.to_json(),
    }
    layers = [layer.to_json() for layer in built.layers]
    bundle.write_json(folder / bundle.ENGINES / f"{name}.json", {**sidecar, "layers": layers})
    return name, sidecar


def _promised_linears(precision: dict[str, Any]) -> list[str]:
    """ONNX nodes of the quantised Linears, where some were kept in fp16; empty: all of the encoder is promised."""
    layers = precision.get("quantisation", {}).get("layers", {})
    if all(layer["type"] != "float16" for layer in layers.values()):
        return []
    return [
        f"{linear}/MatMul" for layer in layers.values() if layer["type"] != "float16" for linear in layer["linears"]
    ]


def build_engines(
    path: str | Path,
    targets: Sequence[str] = ("auto",),
    *,
    sms: tuple[int, ...] = (),
    batches: tuple[int, int, int] = (1, 4, 8),
    timing_cache: Path | None = None,
    allow_unfused: bool = False,
    force: bool = False,
    progress: Progress | None = None,
) -> Bundle:
    """Add engines to an existing bundle; the bundle is replaced as a whole, or not at all.

    Args:
        path: the bundle.
        targets: ``tensorrt``, ``tensorrt-rtx``, or ``auto``: all that this machine can build.
        sms: see `add_engine`.
        batches: see `add_engine`.
        timing_cache: see `add_engine`.
        allow_unfused: see `add_engine`.
        force: replace an engine of the same name.
        progress: told about each stage.

    Returns:
        The bundle, read back from disk with its hashes verified.

    Raises:
        UsageError: the options conflict.
        BundleError: the bundle is damaged.
        EnvironmentFault: nothing can be built here.
        OutputError: an engine of that name is there already, or the bundle cannot be replaced.
    """
    progress = progress if progress is not None else Silent()
    with progress.stage("verify the bundle"):
        source = read_bundle(path)
    if "onnx" in targets:
        raise UsageError("--target onnx: the bundle holds its ONNX graph already; name an engine")
    check_batches(batches)
    check_targets(targets, sms, timing_cache, source.precision)
    flavours = _available(targets, sms, timing_cache, progress)
    for flavour in flavours:
        name = engine_name(flavour, sms if flavour == "tensorrt-rtx" else ())
        if name in source.engines and not force:
            raise OutputError(f"{source.path} already has the engine {name}; pass --force to build it again")

    def add_engines(work: Path, content: dict[str, Any]) -> None:
        for flavour in flavours:
            flavour_sms = sms if flavour == "tensorrt-rtx" else ()
            with progress.stage(f"compile {engine_name(flavour, flavour_sms)}"):
                name, sidecar = add_engine(
                    work,
                    content,
                    flavour,
                    sms=flavour_sms,
                    batches=batches,
                    timing_cache=timing_cache if flavour == "tensorrt" else None,
                    allow_unfused=allow_unfused,
                )
            content["engines"] = {**content["engines"], name: sidecar}

    return amend(source, add_engines, progress)


def _available(
    targets: Sequence[str], sms: tuple[int, ...], timing_cache: Path | None, progress: Progress
) -> list[Flavour]:
    flavours, skipped = choose_flavours(targets, sms, timing_cache)
    reasons = [f"{flavour}: {reason}" for flavour, reason in skipped.items()]
    if not flavours:
        raise EnvironmentFault(f"no engine can be built here: {'; '.join(reasons)}")
    for reason in reasons:
        progress.note(f"left out: {reason}")
    return flavours
