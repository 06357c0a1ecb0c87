"""Add compiled engines to a bundle, during an export or long after it, without torch."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from vivit_export import bundle
from vivit_export.bundle import Bundle, read_bundle
from vivit_export.contract import Contract
from vivit_export.errors import EnvironmentFault, OutputError, UsageError, option
from vivit_export.export.amend import amend
from vivit_export.export.engine.compile import EngineRequest, build_engine
from vivit_export.export.engine.options import EngineOptions
from vivit_export.export.engine.plan import prove
from vivit_export.flavour import Flavour
from vivit_export.precision import Precision
from vivit_export.progress import Progress, Silent


def add_engine(
    folder: Path,
    manifest: dict[str, Any],
    flavour: Flavour,
    options: EngineOptions,
) -> tuple[str, dict[str, Any]]:
    """Compile ``folder/model.onnx`` and prove the plan.

    Args:
        folder: bundle under construction.
        manifest: its content so far (contract, precision, model).
        flavour: which compiler.
        options: what this flavour cannot be told is passed over.

    Returns:
        Name and sidecar of the engine; both files are in ``folder/engines``, where the sidecar also lists the
        layers of the plan.

    Raises:
        BuildError: the compiler failed.
        PrecisionError: the plan keeps less than was promised.
    """
    contract = Contract.from_json(manifest["contract"])
    precision = Precision(manifest["precision"]["name"])
    options = options.for_flavour(flavour)
    name = options.engine_name(flavour)
    (folder / bundle.ENGINES).mkdir(exist_ok=True)
    source = contract.io.inputs[0]
    request = EngineRequest(
        flavour=flavour,
        onnx=folder / bundle.MODEL,
        input_name=source.name,
        input_shape=tuple(int(d) for d in source.shape[1:]),
        batches=options.batches,
        sms=flavour.check_sms(options.sms, precision),
        timing_cache=options.timing_cache,
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
        attention_dtype=Precision.FP8.plan_type if "attention" in quantisation else None,
        allow_unfused=options.allow_unfused,
    )
    sidecar = {
        "flavour": flavour,
        "version": built.version,
        "sms": list(built.sms),
        "profiles": [dict(zip(("min", "opt", "max"), options.batches, strict=True))],
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
        sms: compute capabilities to compile for ahead of time; empty: the flavour's default.
        batches: (min, opt, max) of the optimization profile, in clips.
        timing_cache: TensorRT's timing cache file.
        allow_unfused: do not insist on fused attention.
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
        raise UsageError(f"{option('targets', 'onnx')}: the bundle holds its ONNX graph already; name an engine")
    options = EngineOptions(batches, sms, timing_cache, allow_unfused)
    options.check_targets(targets, source.precision)
    flavours = _available(targets, options, progress)
    for flavour in flavours:
        name = options.engine_name(flavour)
        if name in source.engines and not force:
            raise OutputError(f"{source.path} already has the engine {name}; pass {option('force')} to build it again")

    def add_engines(work: Path, content: dict[str, Any]) -> None:
        for flavour in flavours:
            with progress.stage(f"compile {options.engine_name(flavour)}"):
                name, sidecar = add_engine(work, content, flavour, options)
            content["engines"] = {**content["engines"], name: sidecar}

    return amend(source, add_engines, progress)


def _available(targets: Sequence[str], options: EngineOptions, progress: Progress) -> list[Flavour]:
    flavours, skipped = options.choose_flavours(targets)
    reasons = [f"{flavour}: {reason}" for flavour, reason in skipped.items()]
    if not flavours:
        raise EnvironmentFault(f"no engine can be built here: {'; '.join(reasons)}")
    for reason in reasons:
        progress.note(f"left out: {reason}")
    return flavours
