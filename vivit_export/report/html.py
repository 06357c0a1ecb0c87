"""The report of a bundle: the same facts for machines (JSON) and for people (one HTML page)."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from html import escape
from pathlib import Path

from vivit_export.bundle import REPORT, REPORT_HTML
from vivit_export.bundle.bench import BenchRecord
from vivit_export.bundle.certainty import certainty_of
from vivit_export.bundle.checks import DriftReport
from vivit_export.bundle.engines import EngineRecord
from vivit_export.bundle.manifest import Content, PrecisionRecord, QuantizationRecord
from vivit_export.contract import Tensor
from vivit_export.errors import counted
from vivit_export.files import write_json
from vivit_export.records import to_json
from vivit_export.rewrite import Rewrite

FORMAT = "vivit-report/2"

_STYLE = """
body { font: 15px/1.5 system-ui, sans-serif; max-width: 62rem; margin: 2rem auto; padding: 0 1rem; color: #1a1a1a }
h1 { font-size: 1.5rem } h2 { font-size: 1.1rem; margin-top: 2rem }
table { border-collapse: collapse; width: 100% } td, th { padding: .3rem .6rem; border-bottom: 1px solid #ddd }
th { text-align: left; font-weight: 600 } td { font-variant-numeric: tabular-nums }
.note { color: #666 }
"""


def write_report(folder: Path, content: Content) -> None:
    """Write ``report.json`` and ``report.html`` from the contents of a bundle."""
    write_json(folder / REPORT, {"format": FORMAT, **to_json(content)})
    (folder / REPORT_HTML).write_text(render_html(content), encoding="utf-8")


def drift_rows(checks: DriftReport) -> list[list[str]]:
    """Return one row per run, for the terminal and the page."""
    rows = []
    for run in checks.runs:
        drift = run.drift
        name = run.engine + ("" if run.gated else " (not gated)")
        if drift is None:
            rows.append([name, str(run.batch), run.note, "", "", "", ""])
            continue
        rows.append(
            [
                name,
                str(run.batch),
                _share(drift.top1 if drift.agreement is None else drift.agreement),
                _number(drift.max_abs),
                _number(drift.max),
                _number(drift.kl),
                _cosine(drift.cosine if drift.cosine is not None else drift.embedding_cosine),
            ]
        )
    return rows


def drift_columns(checks: DriftReport) -> tuple[str, ...]:
    """Return the titles of `drift_rows`."""
    by_label = any(run.drift is not None and run.drift.agreement is not None for run in checks.runs)
    agreement = "label agreement" if by_label else "top-1 agreement"
    return ("run", "batch", agreement, "max |Δ logit|", "relative", "KL (nats)", "cosine")


def render_html(content: Content) -> str:
    """Return a self-contained page, without scripts and external resources."""
    model, precision, contract = content.model, content.precision, content.contract
    io, clip = contract.io, contract.clip
    facts = [
        ("model", f"{model.id} ({model.parameters / 1e6:.1f} M parameters)"),
        *[("checkpoint", note) for note in model.notes],
        ("precision", f"{precision.name}, attention as {precision.attention}, opset {precision.opset}"),
        *([("quantized", quantization_text(precision.quantization))] if precision.quantization else []),
        ("rewrites", rewrites_text(content) or "none"),
        *[("declined", text) for text in declined_texts(precision)],
        *[("weights", text) for text in [weights_text(precision)] if text],
        ("clip", f"{counted(clip.num_frames, 'frames')} of {clip.width}×{clip.height}, sampling {clip.sampling}"),
        ("inputs", _tensors(io.inputs)),
        ("outputs", _tensors(io.outputs)),
        *([("task", f"{contract.task.replace('_', ' ')}, {len(contract.labels)} outputs")] if contract.labels else []),
    ]
    body = [f"<h1>{escape(model.id)} · {escape(precision.name)}</h1>", _table(None, facts), "<h2>Drift</h2>"]
    body += _drift(content.checks) if content.checks else ['<p class="note">Not checked (--no-check).</p>']
    if precision.quantization:
        body += ["<h2>Quantized layers</h2>", _table(LAYER_COLUMNS, layer_rows(precision.quantization))]
    body.append("<h2>Engines</h2>")
    body += [_engine(name, engine) for name, engine in content.engines.items()] or ['<p class="note">None.</p>']
    if content.bench:
        body += ["<h2>Speed</h2>", _speed(content.bench)]
    title = f"<title>{escape(model.id)}</title>"
    head = f'<meta charset="utf-8">{title}<style>{_STYLE}</style>'
    return f'<!doctype html>\n<html lang="en"><head>{head}</head>\n<body>\n' + "\n".join(body) + "\n</body></html>\n"


def _drift(checks: DriftReport) -> list[str]:
    gate = ", ".join(f"{name} {limit:g}" for name, limit in sorted(checks.gate.limits.items()))
    certainty = certainty_of(checks)
    return [
        f"<p>Against {escape(checks.reference)} on {counted(len(checks.names), 'clips')} ({escape(checks.source)}). "
        f"Gate: {escape(gate)}.</p>",
        _table(drift_columns(checks), drift_rows(checks)),
        *([f"<p>Certainty: {escape(certainty.sentence)}.</p>"] if certainty else []),
        *(f"<p>Preprocessing: {escape(parity.sentence)}.</p>" for parity in checks.parity),
    ]


def rewrites_text(content: Content) -> str:
    """Return which exact rewrites changed the graph and in how many places, and out of how many if not in all."""
    blocks = content.model.num_blocks
    places = {rewrite.value: rewrite.places(blocks) for rewrite in Rewrite}
    texts = []
    for name, count in content.precision.rewrites.items():
        wanted = places.get(name, blocks)
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


def _engine(name: str, engine: EngineRecord) -> str:
    profile = engine.profile
    rows = [
        ("compiler", engine.compiler),
        ("compute capabilities", ", ".join(f"SM{sm}" for sm in engine.sms)),
        ("batch min / opt / max", f"{profile.min} / {profile.opt} / {profile.max}"),
        ("proof", "; ".join(engine.proof)),
        ("kernels", str(engine.plan.kernels)),
        ("activation memory", f"{engine.plan.activation_bytes / 1e6:.1f} MB"),
        ("size", f"{engine.size / 1e6:.1f} MB"),
    ]
    return f"<h3>{escape(name)}</h3>" + _table(None, rows)


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


def _speed(bench: BenchRecord) -> str:
    machine = bench.machine
    words = (
        f"{machine.cpu}, {machine.cores} cores, load {machine.load_before} before; {bench.rounds} rounds"
        f"{', partial' if bench.partial else ''}. Speed is relative to {bench.baseline}, the median "
        f"of the rounds with their 10th and 90th percentile. Not timed: {bench.excluded}."
    )
    rows = bench_rows(bench)
    bars = [(f"{row[0]}, batch {row[1]}", float(row[6])) for row in rows]
    return f"<p>{escape(words)}</p>" + _bars(bars, "clips/s") + _table(BENCH_COLUMNS, rows)


def _bars(values: Sequence[tuple[str, float]], unit: str) -> str:
    """Return a bar chart as inline SVG."""
    largest, height = max((value for _, value in values), default=0) or 1, 24
    lines = [
        f'<svg viewBox="0 0 760 {height * len(values)}" role="img" font-size="13" font-family="system-ui, sans-serif">'
    ]
    for i, (name, value) in enumerate(values):
        width, y = 360 * value / largest, height * i
        lines.append(f'<text x="0" y="{y + 16}">{escape(name)}</text>')
        lines.append(f'<rect x="260" y="{y + 4}" width="{width:.1f}" height="16" fill="#4477aa"/>')
        lines.append(f'<text x="{266 + width:.1f}" y="{y + 16}">{value:.2f} {escape(unit)}</text>')
    return "\n".join([*lines, "</svg>"])


def _table(columns: Sequence[str] | None, rows: Iterable[Sequence[str]]) -> str:
    head = "<tr>" + "".join(f"<th>{escape(c)}</th>" for c in columns) + "</tr>" if columns else ""
    lines = ["<tr>" + "".join(f"<td>{escape(cell)}</td>" for cell in row) + "</tr>" for row in rows]
    return "<table>" + head + "".join(lines) + "</table>"


def _tensors(tensors: Iterable[Tensor]) -> str:
    return "; ".join(f"{t.name} {t.dtype} ({', '.join(map(str, t.shape))})" for t in tensors)


def _percent(value: float | None, digits: int) -> str:
    return "" if value is None else f"{100 * value:.{digits}f} %"


def _share(value: float | None) -> str:
    return "–" if value is None else f"{100 * value:.1f} %"


def _number(value: float | None) -> str:
    return "–" if value is None else f"{value:.2g}"


def _cosine(value: float | None) -> str:
    return "–" if value is None else f"{value:.7f}"
