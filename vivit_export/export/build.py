"""Add compiled engines to a bundle, during or after an export, without torch."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import replace
from pathlib import Path

from vivit_export.arguments import texts
from vivit_export.bundle import ENGINES, MODEL, Bundle, read_bundle
from vivit_export.bundle.engines import EngineRecord, PlanSummary, Profile
from vivit_export.bundle.graph import require_sound_graph
from vivit_export.bundle.manifest import Content
from vivit_export.errors import EnvironmentFault, OutputError, UsageError, option
from vivit_export.export.amend import amend
from vivit_export.export.engine.compile import EngineRequest, build_engine
from vivit_export.export.engine.options import EngineOptions
from vivit_export.export.engine.plan import prove
from vivit_export.export.engine.promise import kept_attentions, kept_products, promised_linears
from vivit_export.export.failed import keeping_the_report
from vivit_export.export.verify import verify_engine
from vivit_export.files import sha256_of, write_json
from vivit_export.flavour import Flavour
from vivit_export.hub import require_not_cached
from vivit_export.progress import Progress, default_progress
from vivit_export.records import to_json
from vivit_export.rewrite import Rewrite, merged_linears


def add_engine(folder: Path, content: Content, flavour: Flavour, options: EngineOptions, progress: Progress) -> Content:
    """Compile ``folder/model.onnx``, prove the plan and, if the engine runs on this machine, its results.

    Args:
        folder: bundle under construction; the engine and its sidecar, which lists the layers of the plan, are
            written to ``folder/engines``.
        content: what the bundle says about itself so far.
        flavour: which compiler.
        options: how to build; options that this flavour does not have are ignored.
        progress: receives both stages.

    Returns:
        The content with the engine.

    Raises:
        BuildError: the compiler failed, or the engine crashed.
        PrecisionError: the plan shows less than was promised.
        DriftError: its results are beyond the gate; see `verify_engine`.
    """
    options = options.for_flavour(flavour)
    name = options.engine_name(flavour)
    engines = folder / ENGINES
    engines.mkdir(exist_ok=True)
    source = content.contract.io.inputs[0]
    request = EngineRequest(
        flavour=flavour,
        onnx=folder / MODEL,
        input_name=source.name,
        input_shape=tuple(int(d) for d in source.shape[1:]),
        batches=options.batches,
        sms=flavour.check_sms(options.sms, content.precision.name),
        timing_cache=options.timing_cache,
    )
    log = engines / f".{name}.log"
    try:
        with progress.stage(f"compile {name}"):
            built = build_engine(request, engines / f"{name}.plan", log)
    finally:
        log.unlink(missing_ok=True)
    record = EngineRecord(
        flavour=flavour,
        version=built.version,
        sms=built.sms,
        profiles=(Profile(*options.batches),),
        precision=content.precision.name,
        size=built.size_bytes,
        onnx_sha256=sha256_of(folder / MODEL),
        proof=tuple(_prove(built.plan, content, options)),
        plan=built.plan,
    )
    content = replace(content, engines={**content.engines, name: record})
    content = verify_engine(folder, content, name, progress)
    layers = [to_json(layer.record()) for layer in built.layers]
    write_json(engines / f"{name}.json", {**to_json(content.engines[name]), "layers": layers})
    return content


def _prove(plan: PlanSummary, content: Content, options: EngineOptions) -> list[str]:
    precision = content.precision
    attention = precision.quantization is not None and precision.quantization.attention is not None
    return prove(
        plan,
        precision=precision.name,
        num_attention=content.model.anatomy.num_attentions,
        num_gemms=content.model.anatomy.num_gemms - merged_linears(precision.rewrites),
        single_query=precision.rewrites.get(Rewrite.CLASS_TOKEN, 0),
        linears=promised_linears(precision),
        attention_dtype=precision.name.plan_type if attention else None,
        allow_unfused=options.allow_unfused,
        kept=kept_products(precision),
        kept_attention=len(kept_attentions(precision)),
    )


def build_engines(
    path: Bundle | str | Path,
    targets: str | Sequence[str] = ("auto",),
    *,
    sms: int | Sequence[int] = (),
    batches: Sequence[int] = (1, 4, 8),
    timing_cache: str | Path | None = None,
    allow_unfused: bool = False,
    force: bool = False,
    progress: Progress | None = None,
) -> Bundle:
    """Add engines to an existing bundle, completely or not at all.

    Args:
        path: folder of the bundle, or what `read_bundle` returned; it is read again.
        targets: ``tensorrt``, ``tensorrt-rtx``, or ``auto``: all that this machine can build.
        sms: compute capabilities to compile for ahead of time; empty: the flavour's default.
        batches: (min, opt, max) of the optimization profile, in clips.
        timing_cache: TensorRT's timing cache file.
        allow_unfused: do not insist on fused attention.
        force: replace an engine of the same name.
        progress: receives each stage.

    Returns:
        The bundle, read back from disk with its hashes verified.

    Raises:
        UsageError: the options conflict.
        BundleError: the bundle is damaged.
        EnvironmentFault: nothing can be built on this machine.
        DriftError: an engine computes wrongly on this machine; the bundle is as it was, and the report is beside it.
        OutputError: an engine of that name exists, or the bundle cannot be replaced.
    """
    progress = progress if progress is not None else default_progress()
    with progress.stage("verify the bundle"):
        source = read_bundle(path.path if isinstance(path, Bundle) else path)
        require_not_cached(source.path)  # before engines are compiled
        require_sound_graph(source)
    targets = texts("targets", targets)
    if "onnx" in targets:
        raise UsageError(f"{option('targets', 'onnx')}: the bundle holds its ONNX graph already; name an engine")
    options = EngineOptions(batches, sms, timing_cache, allow_unfused)  # type: ignore[arg-type]  # it takes all that
    options.check_targets(targets, source.precision)
    flavours = _available(targets, options, progress)

    def require_new(engines: Collection[str]) -> None:
        for name in map(options.engine_name, flavours):
            if name in engines and not force:
                raise OutputError(
                    f"{source.path} already has the engine {name}; pass {option('force')} to build it again"
                )

    def add_engines(work: Path, content: Content) -> Content:
        require_new(content.engines)  # again: another process may have built it meanwhile
        for flavour in flavours:
            content = add_engine(work, content, flavour, options, progress)
        return content

    require_new(source.engines)
    with keeping_the_report(source.path, progress):
        return amend(source.path, add_engines, progress)


build = build_engines
"""The same, by the name of the command."""


def _available(targets: Sequence[str], options: EngineOptions, progress: Progress) -> list[Flavour]:
    flavours, skipped = options.choose_flavours(targets)
    reasons = [f"{flavour}: {reason}" for flavour, reason in skipped.items()]
    if not flavours:
        raise EnvironmentFault(f"no engine can be built here: {'; '.join(reasons)}")
    for reason in reasons:
        progress.note(f"left out: {reason}")
    return flavours
