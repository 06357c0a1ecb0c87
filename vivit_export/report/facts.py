"""The facts of a bundle as rows and phrases, for the terminal and for the page alike."""

from __future__ import annotations

from collections.abc import Iterable

from vivit_export.bundle.bench import BenchRecord
from vivit_export.bundle.checks import DriftReport
from vivit_export.bundle.manifest import Content, PrecisionRecord, QuantizationRecord
from vivit_export.contract import Tensor
from vivit_export.errors import counted
from vivit_export.rewrite import Rewrite


def drift_rows(checks: DriftReport) -> list[list[str]]:
    """Return one row per run, for the page."""
    rows = []
    for run in checks.runs:
        drift = run.drift
        name = run.engine + ("" if run.gated else " (not gated)")
        if drift is None:
            rows.append([name, str(run.batch), "", "", "", "", "", run.note])
            continue
        rows.append(
            [
                name,
                str(run.batch),
                _share(drift.top1 if drift.agreement is None else drift.agreement),
                _number(drift.max_abs),
                "–" if drift.max is None else f"{100 * drift.max:.2g} %",
                _number(drift.kl),
                _cosine(drift.cosine if drift.cosine is not None else drift.embedding_cosine),
                "",
            ]
        )
    return rows


def drift_columns(checks: DriftReport) -> tuple[str, ...]:
    """Return the titles of `drift_rows`."""
    by_label = any(run.drift is not None and run.drift.agreement is not None for run in checks.runs)
    agreement = "label agreement" if by_label else "top-1 agreement"
    return ("run", "batch", agreement, "max |Δ logit|", "of the range", "KL (nats)", "cosine", "note")


def rewrites_text(content: Content) -> str:
    """Return which exact rewrites changed the graph and in how many places, and out of how many if not in all."""
    anatomy = content.model.anatomy
    places = {rewrite.value: rewrite.places(anatomy) for rewrite in Rewrite}
    texts = []
    for name, count in content.precision.rewrites.items():
        wanted = places.get(name, 1)
        texts.append(f"{name} {count}" if count >= wanted else f"{name} {count} of {wanted}")
    return ", ".join(texts)


def declined_texts(precision: PrecisionRecord) -> list[str]:
    """Return which rewrites left places alone that they are meant for, and why, grouped by reason."""
    nodes: dict[tuple[str, str], list[str]] = {}
    for place in precision.declined:
        nodes.setdefault((place.rewrite, place.reason), []).append(place.node)
    texts = []
    for (rewrite, reason), names in nodes.items():
        more = f" and {len(names) - 1} more" if len(names) > 1 else ""
        texts.append(f"{rewrite} at {names[0]}{more}: {reason}")
    return texts


def weights_text(precision: PrecisionRecord) -> str:
    """Return how far the weights are inside the range of their type; empty for fp32."""
    largest = precision.largest_weight
    if largest is None:
        return ""
    text = f"up to {largest.magnitude:.3g} ({largest.name})"
    below = precision.subnormal_weights
    return f"{text}, {100 * below:.2g} % below the normal range of {precision.name.base}" if below else text


def quantization_text(quantization: QuantizationRecord) -> str:
    """Return how many layers are quantized, from which clips, and which layers are not."""
    layers, clips = quantization.layers, quantization.clips
    kept = [name for name, layer in layers.items() if not layer.quantized]
    smoothed = sum(layer.smoothing is not None for layer in layers.values())
    corrected = sum(layer.bias_corrected for layer in layers.values())
    share = f"{len(layers) - len(kept)} of {len(layers)} layers"
    share += "" if quantization.attention is None else " and attention"
    how = f"{share} by {quantization.method}, {smoothed} smoothed, {corrected} with corrected bias"
    text = f"{how}; {counted(clips.used, 'clips')}: {clips.source}"
    return f"{text}; in fp16: {', '.join(kept)}" if kept else text


LAYER_COLUMNS = ("layer", "type", "range", "smoothing", "output error", "alone", "without", "share")


def layer_rows(quantization: QuantizationRecord) -> list[list[str]]:
    """Return how each layer is quantized and, if known, the effect on the logits (`calibration.sensitivity`)."""
    measured = {effect.layer: effect for effect in quantization.sensitivity}
    rows = []
    for name, layer in quantization.layers.items():
        effect = measured.get(name)
        rows.append(
            [
                name,
                layer.type,
                "" if layer.amax is None else f"{layer.amax:.3g}",
                f"{layer.smoothing.alpha:g}" if layer.smoothing else "",
                "" if layer.error is None else f"{100 * layer.error**0.5:.2f} %",
                *(_percent(value, 3) for value in ((effect.alone, effect.without) if effect else (None, None))),
                _percent(effect.share if effect else None, 1),
            ]
        )
    return rows


def bench_rows(bench: BenchRecord) -> list[list[str]]:
    """Return one row per contender and batch, for the terminal and the page."""
    rows = []
    for name, contender in bench.contenders.items():
        for batch, f in contender.batches.items():
            speeds = [speed for speed in (f.speed, f.speed_low, f.speed_high) if speed is not None]
            spread = "{:.2f} ({:.2f} to {:.2f})".format(*speeds) if len(speeds) == 3 else "–"
            latency = [f"{ms:.1f}" for ms in (f.p50_ms, f.p90_ms, f.p95_ms, f.p99_ms)]
            peak = " + ".join(f"{size / 1e6:.0f}" for size in (contender.peak_bytes, contender.gpu_bytes) if size)
            rows.append([name, batch, *latency, f"{f.clips_per_second:.2f}", spread, peak])
    return rows


BENCH_COLUMNS = ("contender", "batch", "p50 ms", "p90", "p95", "p99", "clips/s", "speed (spread)", "peak MB (+ GPU)")


def tensors_text(tensors: Iterable[Tensor]) -> str:
    """Return inputs or outputs with type and shape."""
    return "; ".join(f"{t.name} {t.dtype} ({', '.join(map(str, t.shape))})" for t in tensors)


def _percent(value: float | None, digits: int) -> str:
    return "" if value is None else f"{100 * value:.{digits}f} %"


def _share(value: float | None) -> str:
    return "–" if value is None else f"{100 * value:.1f} %"


def _number(value: float | None) -> str:
    return "–" if value is None else f"{value:.2g}"


def _cosine(value: float | None) -> str:
    return "–" if value is None else f"{value:.7f}"
