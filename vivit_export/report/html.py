"""The report of a bundle: the same facts for machines (JSON) and for people (one HTML page)."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from html import escape
from pathlib import Path
from typing import Any

from vivit_export.bundle import REPORT, REPORT_HTML, write_json
from vivit_export.precision import Precision
from vivit_export.rewrite import Rewrite

_STYLE = """
body { font: 15px/1.5 system-ui, sans-serif; max-width: 62rem; margin: 2rem auto; padding: 0 1rem; color: #1a1a1a }
h1 { font-size: 1.5rem } h2 { font-size: 1.1rem; margin-top: 2rem }
table { border-collapse: collapse; width: 100% } td, th { padding: .3rem .6rem; border-bottom: 1px solid #ddd }
th { text-align: left; font-weight: 600 } td { font-variant-numeric: tabular-nums }
.note { color: #666 }
"""


def write_report(folder: Path, manifest: dict[str, Any]) -> None:
    """Write ``report.json`` and ``report.html`` from the manifest's content."""
    sections = ("producer", "model", "contract", "precision", "engines", "checks", "bench")
    write_json(folder / REPORT, {"format": "vivit-report/1", **{k: manifest[k] for k in sections if k in manifest}})
    (folder / REPORT_HTML).write_text(render_html(manifest), encoding="utf-8")


def drift_rows(checks: dict[str, Any]) -> list[list[str]]:
    """One row per run, as the terminal and the page show it."""
    rows = []
    for run in checks.get("runs", []):
        drift = run["drift"]
        name = run["engine"] + ("" if run["gated"] else " (not gated)")
        if drift is None:
            rows.append([name, str(run["batch"]), run["note"], "", "", "", ""])
            continue
        rows.append(
            [
                name,
                str(run["batch"]),
                _share(drift["top1"]),
                _number(drift["max_abs"]),
                _number(drift["max"]),
                _number(drift["kl"]),
                _cosine(drift["cosine"] if drift["cosine"] is not None else drift["embedding_cosine"]),
            ]
        )
    return rows


DRIFT_COLUMNS = ("run", "batch", "top-1 agreement", "max |Δ logit|", "relative", "KL (nats)", "cosine")


def render_html(manifest: dict[str, Any]) -> str:
    """Return a self-contained page: no script, no outside resource."""
    model, precision, checks = manifest["model"], manifest["precision"], manifest["checks"]
    io, clip = manifest["contract"]["io"], manifest["contract"]["clip"]
    facts = [
        ("model", f"{model['id']} ({model['parameters'] / 1e6:.1f} M parameters)"),
        ("precision", f"{precision['name']}, attention as {precision['attention']}, opset {precision['opset']}"),
        *([("quantised", text)] if (text := quantisation_text(precision)) else []),
        ("rewrites", rewrites_text(manifest) or "none"),
        *[("declined", text) for text in declined_texts(precision)],
        *[("weights", text) for text in [weights_text(precision)] if text],
        ("clip", f"{clip['num_frames']} frames of {clip['width']}×{clip['height']}, sampling {clip['sampling']}"),
        ("inputs", _tensors(io["inputs"])),
        ("outputs", _tensors(io["outputs"])),
    ]
    body = [f"<h1>{escape(model['id'])} · {escape(precision['name'])}</h1>", _table(None, facts), "<h2>Drift</h2>"]
    if checks:
        clips = checks["clips"]
        gate = ", ".join(f"{k} {v:g}" for k, v in sorted(checks["gate"].items()))
        body.append(
            f"<p>Against {escape(checks['reference'])} on {len(clips['names'])} clips "
            f"({escape(clips['source'])}). Gate: {escape(gate)}.</p>"
        )
        body.append(_table(DRIFT_COLUMNS, drift_rows(checks)))
        body += [f"<p>Preprocessing: {escape(sentence)}.</p>" for sentence in parity_sentences(checks)]
    else:
        body.append('<p class="note">Not checked (--no-check).</p>')
    if "quantisation" in precision:
        body += ["<h2>Quantised layers</h2>", _table(LAYER_COLUMNS, layer_rows(precision["quantisation"]))]
    body.append("<h2>Engines</h2>")
    body += [_engine(name, sidecar) for name, sidecar in manifest["engines"].items()] or ['<p class="note">None.</p>']
    if "bench" in manifest:
        body += ["<h2>Speed</h2>", _speed(manifest["bench"])]
    title = f"<title>{escape(model['id'])}</title>"
    head = f'<meta charset="utf-8">{title}<style>{_STYLE}</style>'
    return f'<!doctype html>\n<html lang="en"><head>{head}</head>\n<body>\n' + "\n".join(body) + "\n</body></html>\n"


def parity_sentences(checks: dict[str, Any]) -> list[str]:
    """What comparing preprocessed pixels gave, in words."""
    from vivit_export.runtime.drift.parity import (
        Parity,  # it loads onnx, which showing a bundle does not need otherwise
    )

    return [Parity(**row).sentence for row in checks.get("parity", [])]


def rewrites_text(manifest: dict[str, Any]) -> str:
    """Which exact rewrites changed the graph, in how many places, and of how many where that is fewer."""
    layers = int(manifest["model"]["config"].get("num_hidden_layers", 0))
    wanted_by_name = {rewrite.value: rewrite.places(layers) for rewrite in Rewrite}
    texts = []
    for name, count in manifest["precision"].get("rewrites", {}).items():
        wanted = wanted_by_name.get(name, layers)
        texts.append(f"{name} {count}" if count >= wanted else f"{name} {count} of {wanted}")
    return ", ".join(texts)


def declined_texts(precision: dict[str, Any]) -> list[str]:
    """Which rewrites left places alone that they are meant for, and why; places of one reason together."""
    nodes: dict[tuple[str, str], list[str]] = {}
    for place in precision.get("declined", []):
        nodes.setdefault((place["rewrite"], place["reason"]), []).append(place["node"])
    texts = []
    for (rewrite, reason), names in nodes.items():
        more = f" and {len(names) - 1} more" if len(names) > 1 else ""
        texts.append(f"{rewrite} at {names[0]}{more}: {reason}")
    return texts


def weights_text(precision: dict[str, Any]) -> str:
    """How far the weights lie inside the range of their type; empty for fp32."""
    if "largest_weight" not in precision:
        return ""
    largest, subnormal = precision["largest_weight"], precision.get("subnormal_weights", 0.0)
    text = f"up to {largest['magnitude']:.3g} ({largest['name']})"
    base = Precision(precision["name"]).base
    return f"{text}, {100 * subnormal:.2g} % below the normal range of {base}" if subnormal else text


def quantisation_text(precision: dict[str, Any]) -> str:
    """How many layers are quantised, from which clips, and which are not."""
    if "quantisation" not in precision:
        return ""
    facts = precision["quantisation"]
    kept = [name for name, layer in facts["layers"].items() if layer["type"] == "float16"]
    smoothed = sum(layer.get("smoothing") is not None for layer in facts["layers"].values())
    corrected = sum(layer.get("bias_corrected", False) for layer in facts["layers"].values())
    clips = facts["clips"]
    share = f"{len(facts['layers']) - len(kept)} of {len(facts['layers'])} layers"
    share += " and attention" if "attention" in facts else ""
    how = f"{share} by {facts['method']}, {smoothed} smoothed, {corrected} with corrected bias"
    text = f"{how}; {clips['used']} clips: {clips['source']}"
    return f"{text}; in fp16: {', '.join(kept)}" if kept else text


LAYER_COLUMNS = ("layer", "type", "range", "smoothing", "output error", "alone", "without", "share")


def layer_rows(quantisation: dict[str, Any]) -> list[list[str]]:
    """How each layer is quantised, and what that does to the logits (`calibration.sensitivity`) where known."""
    measured = {one["layer"]: one for one in quantisation["sensitivity"]}
    rows = []
    for name, layer in quantisation["layers"].items():
        effect, smoothing = measured.get(name, {}), layer.get("smoothing")
        error = layer.get("error")
        rows.append(
            [
                name,
                layer["type"],
                f"{layer['amax']:.3g}" if "amax" in layer else "",
                f"{smoothing['alpha']:g}" if smoothing else "",
                f"{100 * error**0.5:.2f} %" if error is not None else "",
                *(f"{100 * effect[k]:.3f} %" if effect.get(k) is not None else "" for k in ("alone", "without")),
                f"{100 * effect['share']:.1f} %" if effect else "",
            ]
        )
    return rows


def _engine(name: str, sidecar: dict[str, Any]) -> str:
    plan = sidecar["plan"]
    profile = sidecar["profiles"][0]
    rows = [
        ("compiler", f"{sidecar['flavour']} {sidecar['version']}"),
        ("compute capabilities", ", ".join(f"SM{sm}" for sm in sidecar["sms"])),
        ("batch min / opt / max", f"{profile['min']} / {profile['opt']} / {profile['max']}"),
        ("proof", "; ".join(sidecar["proof"])),
        ("kernels", str(plan["kernels"])),
        ("activation memory", f"{plan['activation_bytes'] / 1e6:.1f} MB"),
        ("size", f"{sidecar['size'] / 1e6:.1f} MB"),
    ]
    return f"<h3>{escape(name)}</h3>" + _table(None, rows)


def bench_rows(bench: dict[str, Any]) -> list[list[str]]:
    """One row per contender and batch, as the terminal and the page show it."""
    rows = []
    for name, contender in bench["contenders"].items():
        for batch, f in contender["batches"].items():
            spread = f"{f['speed']:.2f} ({f['speed_low']:.2f} to {f['speed_high']:.2f})" if "speed" in f else "–"
            latency = [f"{f[p]:.1f}" for p in ("p50_ms", "p90_ms", "p95_ms", "p99_ms")]
            sizes = [contender[key] / 1e6 for key in ("peak_bytes", "gpu_bytes") if key in contender]
            peak = " + ".join(f"{size:.0f}" for size in sizes)
            rows.append([name, batch, *latency, f"{f['clips_per_second']:.2f}", spread, peak])
    return rows


BENCH_COLUMNS = ("contender", "batch", "p50 ms", "p90", "p95", "p99", "clips/s", "speed (spread)", "peak MB (+ GPU)")


def _speed(bench: dict[str, Any]) -> str:
    machine = bench["machine"]
    words = [
        f"{machine['cpu']}, {machine['cores']} cores, load {machine['load_before']} before; {bench['rounds']} rounds"
        f"{', partial' if bench['partial'] else ''}. Speed is relative to {bench['baseline']}, the median "
        f"of the rounds with their 10th and 90th percentile. Not timed: {bench['excluded']}."
    ]
    bars = [(f"{row[0]}, batch {row[1]}", float(row[6])) for row in bench_rows(bench)]
    return f"<p>{escape(words[0])}</p>" + _bars(bars, "clips/s") + _table(BENCH_COLUMNS, bench_rows(bench))


def _bars(values: Sequence[tuple[str, float]], unit: str) -> str:
    """A bar chart as inline SVG."""
    largest, height = max(value for _, value in values), 24
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


def _tensors(tensors: list[dict[str, Any]]) -> str:
    return "; ".join(f"{t['name']} {t['dtype']} ({', '.join(map(str, t['shape']))})" for t in tensors)


def _share(value: float | None) -> str:
    return "–" if value is None else f"{100 * value:.1f} %"


def _number(value: float | None) -> str:
    return "–" if value is None else f"{value:.2g}"


def _cosine(value: float | None) -> str:
    return "–" if value is None else f"{value:.7f}"
