"""The text that commands print about a bundle."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from vivit_export.bundle import FORMAT, Bundle
from vivit_export.bundle.bench import BenchRecord
from vivit_export.bundle.certainty import certainty_of
from vivit_export.bundle.checks import Drift, DriftReport
from vivit_export.bundle.engines import EngineRecord, Verification
from vivit_export.contract import Clip
from vivit_export.errors import counted
from vivit_export.printing import one_line
from vivit_export.records import JsonObject, to_json
from vivit_export.report.accuracy import accuracy_lines
from vivit_export.report.clips import clip_lines
from vivit_export.report.facts import (
    BENCH_COLUMNS,
    bench_rows,
    declined_texts,
    quantization_text,
    rewrites_text,
    weights_text,
)
from vivit_export.report.search import search_text
from vivit_export.report.taps import kept_text, taps_lines

if TYPE_CHECKING:
    from vivit_export.calibration.ranges import Ranges
    from vivit_export.runtime.bench.serving import LoadReport
    from vivit_export.runtime.predict import VideoPrediction
    from vivit_export.runtime.session.prediction import Prediction
    from vivit_export.runtime.stream import StreamPrediction

_SHOWN_LABELS = 8
_PARTIAL = "partial: the run ended before everything was measured"


def summary_json(bundle: Bundle, seconds: dict[str, float] | None) -> JsonObject:
    """Return the manifest, its folder, and how long each stage of this command took."""
    where = {"bundle": str(bundle.path), "size": bundle.size_bytes}
    content = {**where, "format": FORMAT, **to_json(bundle.manifest)}
    return {**content, "seconds": seconds} if seconds is not None else content


def summary_text(bundle: Bundle) -> str:
    """Return a few lines for people."""
    manifest, path = bundle.manifest, bundle.path
    model, precision = manifest.model, manifest.precision
    clip, io = bundle.contract.clip, bundle.contract.io
    lines = [
        f"{path}  {_megabytes(bundle.size_bytes)}, {len(manifest.files)} files, hashes verified",
        f"  model      {model.id}, {model.parameters / 1e6:.1f} M parameters",
        *(f"  checkpoint {note}" for note in model.notes),
        f"  precision  {precision.name}, attention as {precision.attention}, opset {precision.opset}",
    ]
    if manifest.search:
        first, *rest = map(one_line, search_text(manifest.search))
        lines += [f"  chosen     {first}", *(f"             {line}" for line in rest)]
    if precision.quantization:
        lines.append(f"  quantized  {quantization_text(precision.quantization)}")
    if precision.kept_float32:
        lines.append(f"  kept       {kept_text(precision)}")
    lines += [f"  rewrites   {text}" for text in [rewrites_text(manifest)] if text]
    lines += [f"  declined   {text}" for text in declined_texts(precision)]
    lines += [f"  weights    {text}" for text in [weights_text(precision)] if text]
    for kind, tensors in (("input", io.inputs), ("output", io.outputs)):
        lines += [f"  {kind:<10} {t.name} {t.dtype} ({', '.join(map(str, t.shape))})" for t in tensors]
    lines.append(
        f"  clip       {counted(clip.num_frames, 'frames')}, {_sampling(clip)}, {manifest.model.anatomy.tokens} tokens"
    )
    lines += _drift_lines(manifest.checks) if manifest.checks else ["  drift      not checked"]
    for name, engine in bundle.engines.items():
        lines += _engine_lines(name, engine)
    if not bundle.engines:
        # No TensorRT has a kernel for attention as one op in fp32.
        buildable = bundle.precision.rounds or precision.attention != "fused-op"
        remedy = f"run: vivit build {path}" if buildable else "export with --fp16, or with --attention pattern"
        lines.append(f"  engine     none; {remedy}")
    return "\n".join(lines)


def contents_text(bundle: Bundle) -> list[str]:
    """Return lines on what an export does not print: the labels, and a check and timings that were saved later."""
    labels, bench = bundle.contract.labels, bundle.manifest.bench
    more = f" and {len(labels) - _SHOWN_LABELS} more, see --json" if len(labels) > _SHOWN_LABELS else ""
    lines = [f"  labels     {len(labels)}: {', '.join(map(one_line, labels[:_SHOWN_LABELS]))}{more}"] if labels else []
    if bundle.manifest.recheck:
        lines += [f"  {line}" for line in ["saved check", *drift_text(bundle.manifest.recheck).splitlines()]]
    if bench:
        lines += [f"  timings    {bench.machine.cpu}, {bench.rounds} rounds"]
        lines += [f"             {line}" for line in bench_text(bench).splitlines()]
    return lines


def _engine_lines(name: str, engine: EngineRecord) -> list[str]:
    sms = " ".join(f"SM{sm}" for sm in engine.sms)
    activations = f"{_megabytes(engine.plan.activation_bytes)} activations at batch {engine.profile.max}"
    return [
        f"  engine     {name}: {engine.compiler}, {sms}",
        *(f"             {sentence}" for sentence in engine.proof),
        *(f"             {verified_text(found)}" for found in engine.verified_on),
        f"             {engine.plan.kernels} kernels, {activations}, {_megabytes(engine.size)} on disk",
    ]


def verified_text(found: Verification) -> str:
    """Return where an engine ran the golden clips, and the largest difference at each batch."""
    figures = "; ".join(f"batch {each.batch}: {', '.join(_figures(each.drift))}" for each in found.batches)
    clips = counted(found.clips, "golden clips")
    return f"verified on {one_line(found.device)}, driver {one_line(found.driver)}, {clips}: {figures}"


def drift_text(report: DriftReport) -> str:
    """Return the output of ``vivit check``."""
    lines = _drift_lines(report)
    for i, line in enumerate(taps_lines(report.taps) if report.taps else []):
        lines.append(f"  {'' if i else 'block':<10} {line}")
    lines += clip_lines(report)
    lines += accuracy_lines(report)
    lines += [f"  baseline   {one_line(report.baseline.sentence)}"] if report.baseline else []
    certainty = certainty_of(report)
    lines += [f"  certainty  {certainty.sentence}"] if certainty else []
    limits = ", ".join(f"{name} {value:g}" for name, value in sorted(report.gate.limits.items()))
    lines.append(f"  gate       {'passed' if report.passed else 'FAILED'}: {limits}")
    return "\n".join(line.removeprefix("  ") for line in lines)


def bench_text(bench: BenchRecord) -> str:
    """Return the output of ``vivit bench``."""
    table = [BENCH_COLUMNS, *bench_rows(bench)]
    widths = [max(len(row[i]) for row in table) for i in range(len(BENCH_COLUMNS))]
    lines = ["  ".join([row[0].ljust(widths[0]), *map(str.rjust, row[1:], widths[1:])]) for row in table]
    for name, contender in bench.contenders.items():
        if contender.steps_seconds:
            steps = ", ".join(f"{step} {1e3 * seconds:.1f} ms" for step, seconds in contender.steps_seconds.items())
            lines.append(f"{name}, one clip: {steps}")
        computed = {batch: f.compute_ms for batch, f in contender.batches.items() if f.compute_ms is not None}
        if computed:
            times = ", ".join(f"batch {batch} {ms:.2f} ms" for batch, ms in computed.items())
            lines.append(f"{name}, without copies to and from the GPU: {times}")
        if contender.error:
            lines.append(f"{name} {'stopped' if contender.batches else 'left out'}: {contender.error}")
    lines.append(f"speed is relative to {bench.baseline}; not timed: {bench.excluded}")
    return "\n".join([*lines, *([_PARTIAL] if bench.partial else [])])


def load_text(report: LoadReport) -> str:
    """Return the output of ``vivit bench`` for a served model."""
    head = ["in flight", f"{report.request}s", f"{report.request}s/s", "p50 ms", "p95", "p99"]
    rows = [
        [count, str(f.requests), *(f"{x:.2f}" for x in (f.requests_per_second, f.p50_ms, f.p95_ms, f.p99_ms))]
        for count, f in report.in_flight.items()
    ]
    widths = [max(map(len, column)) for column in zip(head, *rows, strict=True)]
    lines = ["  ".join(map(str.rjust, row, widths)) for row in [head, *rows]]
    lines.append(f"{report.server}; {report.seconds:g} s each, sent from {report.client.cpu}")
    return "\n".join([*lines, *([_PARTIAL] if report.interrupted else [])])


def prediction_text(result: VideoPrediction | StreamPrediction, k: int) -> str:
    """Return the output of ``vivit predict`` for one video, or for one of its windows."""
    if result.prediction.logits is None:
        return one_line(str(result.place))
    top = [(one_line(label), _score(result.prediction, score)) for label, score in result.prediction.top(k)]
    if result.span_seconds is not None:
        start, end = result.span_seconds
        return f"{start:8.2f} s to {end:8.2f} s   " + ", ".join(f"{label} {score.lstrip()}" for label, score in top)
    width = max(len(label) for label, _ in top)
    return "\n".join([one_line(str(result.place)), *(f"  {label:<{width}}  {score}" for label, score in top)])


def _score(prediction: Prediction, score: float) -> str:
    """Return a value of a regression, or a probability in percent."""
    return f"{score:.6g}" if prediction.task == "regression" else f"{100 * score:5.1f} %"


def prediction_rows(
    result: VideoPrediction | StreamPrediction, k: int
) -> tuple[tuple[str, ...], list[tuple[object, ...]]]:
    """Return the header of a CSV file and the lines of one prediction: one per label, or one without labels."""
    facts = result.to_json(k)
    top = facts.get("top", [{"label": "", "probability": ""}])
    where = (facts["video"], facts.get("start_seconds", ""), facts.get("end_seconds", ""))
    rows = [(*where, rank if facts.get("top") else "", *entry.values()) for rank, entry in enumerate(top, 1)]
    return ("video", "start_seconds", "end_seconds", "rank", *top[0]), rows


def _sampling(clip: Clip) -> str:
    """Return the sampling rule in words, without default values."""
    words = [f"sampling {clip.sampling}{f' {clip.stride}' if clip.sampling == 'stride' else ''}"]
    words += [f"short videos: {clip.short}"] if clip.short != "refuse" else []
    words += [f"{clip.views[0]}x{clip.views[1]} views"] if clip.views != (1, 1) else []
    return ", ".join(words)


def ranges_text(ranges: Ranges, path: Path) -> str:
    """Return a table of layers for people: how each is quantized and, if measured, the effect."""
    clips = ranges.clips
    aside = f", {len(clips.set_aside)} set aside" if clips.set_aside else ""
    lines = [
        f"{path}  {ranges.precision} ranges by {ranges.method}, {counted(clips.used, 'clips')}{aside}: {clips.source}",
        f"  {'layer':<28} {'range':>8} {'largest':>8} {'alpha':>6} {'error':>8}"
        + (f" {'alone':>8} {'without':>8} {'share':>6}" if ranges.sensitivity else ""),
    ]
    measured = {effect.layer: effect for effect in ranges.sensitivity}
    for name in measured or ranges.layers:
        layer = ranges.layers[name]
        alpha = "–" if layer.alpha is None else f"{layer.alpha:g}"
        line = f"  {name:<28} {layer.amax:>8.3g} {layer.largest:>8.3g} {alpha:>6} {100 * layer.error**0.5:>6.2f} %"
        if effect := measured.get(name):
            line += f" {_percent(effect.alone)} {_percent(effect.without)} {100 * effect.share:>4.1f} %"
        lines.append(line)
    lines += [f"  {f'{path}: Q, K, V':<28} {amax:>8.3g}" for path, amax in ranges.attention.items()]
    lines.append("  error: relative RMS error of the layer's output, on the calibration's rows")
    if measured:
        lines.append("  alone, without: RMS change of the logits with only, or all but, this layer quantized")
    return "\n".join(lines)


def _percent(share: float | None) -> str:
    return f"{'':>8}" if share is None else f"{100 * share:>6.3f} %"


def _drift_lines(checks: DriftReport) -> list[str]:
    views = "" if checks.clips.views == (1, 1) else f" of {'x'.join(map(str, checks.clips.views))} views"
    lines = [f"  drift      against {checks.reference}, {counted(checks.clips.count, 'clips')}{views}: {checks.source}"]
    for run in checks.runs:
        drift, where = run.drift, f"{run.engine}, batch {run.batch}"
        if drift is None:
            lines.append(f"             {where}: {run.note}")
        else:
            lines.append(f"             {where}: {', '.join(_figures(drift))}")
    lines += [f"  pixels     {parity.sentence}" for parity in checks.parity]
    return lines


def _figures(drift: Drift) -> list[str]:
    """Return the main figures of a run in words; what the model or its task does not have is left out."""
    figures = []
    if drift.top1 is not None:
        figures.append(f"top-1 {100 * drift.top1:.1f} %")
    if drift.agreement is not None:
        figures.append(f"labels {100 * drift.agreement:.1f} %")
    if drift.max_abs is not None and drift.max is not None:
        figures.append(f"max |Δ| {drift.max_abs:.2g} ({100 * drift.max:.2g} % of the range)")
    if drift.cosine is not None:
        figures.append(f"cosine {drift.cosine:.7f}")
    elif drift.embedding_cosine is not None:
        figures.append(f"embedding cosine {drift.embedding_cosine:.7f}")
    return figures


def _megabytes(size: int) -> str:
    return f"{size / 1e6:.1f} MB"
