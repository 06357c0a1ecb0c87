"""Write ``docs/performance.md`` from ``benchmarks/results/*.json``, so that no figure is typed by hand.

    python benchmarks/page/write_performance_page.py

A test runs it and compares. A missing result is listed as not measured.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from gpu_section import gpu_section
from line_chart import line_chart
from live_section import live_section, spans_section
from markdown_table import megabytes, table
from newcomer_section import newcomer_section
from page_of_results import machine, page_of
from peers_section import peers_section
from quantization_section import ideas_section, int8_attention_section, quantization_section
from taps_section import taps_section
from throughput_section import throughput_section

ROOT = Path(__file__).parents[2]
RESULTS = ROOT / "benchmarks/results"
PAGE = ROOT / "docs/performance.md"

_INTRO = """# Performance

`benchmarks/page/write_performance_page.py` writes this page from `benchmarks/results/`. Below each table are the
command that measured it and the machine. Contenders take turns, each in a process of its own, so ratios hold even when
the speed of the machine changes; seconds are specific to this machine. ViViT-B/16x2 (32 frames of 224x224, 3137 tokens,
903 GFLOP per clip, 533 of them in Linears) has random weights, because no checkpoint could be downloaded. The demo is
trained.
"""


def page(results: Path = RESULTS) -> str:
    """Write the whole page."""
    return page_of(_INTRO, SECTIONS, results, lambda name: f" (`benchmarks/{name}.py`)")


def _sessions(content: dict[str, Any]) -> str:
    rows = []
    again = content.get("measured_again", {})
    for bundle, contenders in content.items():
        if bundle in ("environment", "rounds", "measured_again"):
            continue
        for name, f in contenders.items():
            if name != "all":
                beyond = megabytes(f["peak_bytes_beyond_weights"])
                cells = (f["seconds_per_clip"], f["speed_to_sdpa"], megabytes(f["peak_bytes"]), beyond)
                rows.append((bundle, name, *cells, f"{f['max_logit_difference']:.2g}"))
    columns = ("bundle or model", "engine", "s per clip", "x SDPA", "peak MB", "MB beyond the weights", "max |Δ logit|")
    apart = [f"{bundle}: {machine(around)}" for bundle, around in again.items()]  # the others' is below
    return "\n\n".join([table(columns, rows), *apart])


def _plans(content: dict[str, Any]) -> str:
    models = {
        title: graphs for title, graphs in content.items() if title not in ("environment", "batches", "geometries")
    }
    models |= {f"small ViViT, {title}": graphs for title, graphs in content.get("geometries", {}).items()}
    rows = []
    for title, graphs in models.items():
        for name, by_sm in graphs.items():
            for sm, plan in by_sm.items():
                gemms = ", ".join(f"{count} {dtype}" for dtype, count in plan["gemms"].items())
                fused = f"{plan['attention_fused']} of {plan['attention']}"
                activations = f"{plan['activation_bytes'] / 1e6:.1f}"
                rows.append((title, name, sm.upper(), plan["kernels"], fused, gemms, activations))
    batches = "/".join(map(str, content["batches"]))
    columns = ("model", "graph", "GPU", "kernels", "attention fused", "GEMMs", f"activation MB, batch {batches}")
    return table(columns, rows)


_CHECKPOINTS = {
    "graph-vb": "ViViT-B/16x2",
    "graph-vb-outliers": "ViViT-B/16x2 with outlier channels",
    "demo-outliers": "demo with outlier channels",
}


def _rewrites(content: dict[str, Any]) -> str:
    rows = [
        (
            _CHECKPOINTS.get(name, name),
            f"{c['float64_max_difference']:.1g}",
            f"{c['float32_max_difference']:.1g}",
            *(f"{c['fp16'][kind]['rms']:.2g}" for kind in ("plain", "rewritten")),
            f"{c['logit_range']:.3g}",
        )
        for name, c in content["checkpoints"].items()
    ]
    columns = ("checkpoint", "float64 max |Δ|", "float32 max |Δ|", "fp16 RMS, plain", "fp16 RMS, rewritten", "range")
    return table(columns, rows)


def _export(content: dict[str, Any]) -> str:
    main = content["vivit_b_export_fp16"]
    stages = [(stage, f"{seconds:.1f}") for stage, seconds in main["stages"].items()]
    noise = [
        (name, f"{n['onnx']['max_abs']:.2g}", f"{n['eager attention instead of sdpa']['max_abs']:.2g}",
         f"{n['logit_range']:.3g}")
        for name, n in content["vivit_b_fp32_on_noise"].items()
    ]  # fmt: skip
    agreement = [
        (name, f"{100 * d['top1']:.1f} %", f"{d['max_abs']:.2g}")
        for name, d in content["demo_generated_200"].items()
        if isinstance(d, dict)
    ]
    cost = [
        (name, f"{c['seconds']:.1f}", megabytes(c["peak_bytes"])) for name, c in content["vivit_b_rewrites"].items()
    ]
    columns = ("weights", "ONNX fp32 against eager, max |Δ|", "eager attention against SDPA, max |Δ|", "range")
    return "\n\n".join(
        [
            f"`vivit-export … {main['options']}`: {main['seconds']:.0f} s, peak {megabytes(main['peak_bytes'])} MB.",
            table(("stage", "seconds"), stages),
            "Without check and engine, with and without the rewrites:",
            table(("rewrites", "seconds", "peak MB"), cost),
            "In float32, on N(0, 1) pixels:",
            table(columns, noise),
            "The demo, on 200 generated clips that it was not trained on:",
            table(("run", "top-1 agreement", "max |Δ logit|"), agreement),
        ]
    )


def _preprocess(content: dict[str, Any]) -> str:
    rows = [
        (r["frames"], r["transformers_median_ms"], r["vivit_export_median_ms"], r["ratio_of_median"])
        for r in content["results"]
    ]
    return table(("clip", "VivitImageProcessor, ms", "ours, ms", "x"), rows)


def _preprocess_cpp(content: dict[str, Any]) -> str:
    rows = [
        (r["frames"], r["transformers_median_ms"], r["pixels_median_ms"], r["ratio_of_median"], r["crops_median_ms"])
        for r in content["results"]
    ]
    columns = ("clip", "VivitImageProcessor, ms", "C++ pixels, ms", "x", "C++ crops, ms")
    return table(columns, rows) + f"\n\nFigures are medians, on {content['threads']} threads."


def _sdpa(content: dict[str, Any]) -> str:
    rows = []
    for batch, contenders in content["inference"].items():
        eager = contenders.get("pytorch eager")
        for name, f in contenders.items():
            gain = saved = "–"
            if eager and name != "pytorch eager":
                gain = f"{100 * (f['clips_per_second'] / eager['clips_per_second'] - 1):.1f} %"
                saved = f"{100 * (1 - f['peak_bytes'] / eager['peak_bytes']):.1f} %"
            seconds = f"{f['p50_ms'] / 1e3:.2f}"
            rows.append((batch, name, seconds, gain, megabytes(f["peak_bytes"]), saved))
    parts = [table(("batch", "contender", "s per batch", "faster than eager", "peak MB", "memory saved"), rows)]
    training = content.get("training", {})
    if training:
        done = [
            (kind, f"{t['seconds_per_step']:.1f}", megabytes(t["peak_bytes"]))
            if "error" not in t
            else (kind, t["error"], "")
            for kind, t in training.items()
        ]
        parts += [
            f"Training at batch 1, {content['steps']} timed step(s):",
            table(("attention", "s per step", "peak MB"), done),
        ]
    return "\n\n".join(parts)


_GROWTH = {
    "layers": "encoder layers",
    "frames": "tokens",
    "batch": "clips per call",
    "calibration": "calibration clips",
}
_EXPONENTS = {"layers": "layers", "frames": "tokens", "batch": "batch", "calibration": "clips"}
_SERIES = {
    "export_seconds": "export time",
    "export_peak_bytes": "export memory",
    "engine_bytes": "engine size",
    "activation_bytes": "engine activations",
    "seconds_per_call": "CPU latency",
    "peak_bytes": "CPU memory",
    "calibration_seconds": "calibration, observing",
    "ranges_seconds": "calibration, finding ranges",
    "calibration_peak_bytes": "calibration memory",
}


def growth_charts(content: dict[str, Any]) -> dict[str, str]:
    """Draw one chart, by file name, for each quantity that was varied."""
    charts = {}
    for key, x_name in _varied(content).items():
        rows = _rows(content, key)
        xs = [float(row["tokens"]) if key == "frames" else float(size) for size, row in rows.items()]
        first = next(iter(rows.values()))
        series = {words: [row[name] for row in rows.values()] for name, words in _SERIES.items() if name in first}
        charts[f"growth-{key}.svg"] = line_chart(f"Growth with {x_name}, relative to the smallest", x_name, xs, series)
    return charts


def _varied(content: dict[str, Any]) -> dict[str, str]:
    """Return the series that were measured."""
    return {key: x_name for key, x_name in _GROWTH.items() if key in content}


def _rows(content: dict[str, Any], key: str) -> dict[str, Any]:
    """Return the rows of a series from small to large; JSON sorts them as text."""
    rows = content[key]["rows"] if key == "calibration" else content[key]
    return dict(sorted(rows.items(), key=lambda item: int(item[0])))


def _scaling(content: dict[str, Any]) -> str:
    exponents, varied = content["exponents"], _varied(content)
    rows = []
    for name, words in _SERIES.items():
        cells = [exponents[_EXPONENTS[key]].get(name, "–") for key in varied]
        rows += [(words, *cells)] if set(cells) != {"–"} else []
    pictures = [f"![growth with {x_name}](growth-{key}.svg)" for key, x_name in varied.items()]
    layers, tokens = exponents["layers"], exponents["tokens"]
    first, shallow = next(iter(_rows(content, "layers").items()))
    words = (
        "The table shows the exponent b of y = a x^b, fitted over each series: 1 is proportional, 0 is constant. At "
        f"the width of ViViT-B, latency grows as layers^{layers['seconds_per_call']}: {first} layers take "
        f"{shallow['seconds_per_call']:.2f} s and each further layer "
        f"{_step(content, 'layers', 'seconds_per_call'):.2f} s, because the last layer computes only the class token. "
        "Latency grows as "
        f"tokens^{tokens['seconds_per_call']} (attention is quadratic, the Linears are not). Engine activations grow "
        f"as tokens^{tokens['activation_bytes']}, because fused attention stores no tokens-by-tokens matrix. "
        f"The size of the engine follows the weights alone (tokens^{tokens['engine_bytes']}), "
        f"{megabytes(_step(content, 'layers', 'engine_bytes'))} MB per layer."
    )
    columns = ("", *(f"over {x_name}" for x_name in varied.values()))
    return "\n\n".join([words, *_calibration_growth(content), table(columns, rows), *pictures])


def _step(content: dict[str, Any], key: str, figure: str) -> float:
    """Return how much a figure grows per step, averaged from the smallest to the largest of a series."""
    (few, least), *_, (many, most) = _rows(content, key).items()
    return float(most[figure] - least[figure]) / (int(many) - int(few))


def _calibration_growth(content: dict[str, Any]) -> list[str]:
    if "calibration" not in content:
        return []
    calibration, b = content["calibration"], content["exponents"]["clips"]
    rows = list(_rows(content, "calibration").items())
    ends = (
        f"{row['calibration_seconds']:.1f} s and {megabytes(row['calibration_peak_bytes'])} MB for {count} clips"
        for count, row in (rows[0], rows[-1])
    )
    return [
        f"At {calibration['layers']} layers and {calibration['tokens']} tokens, observing the activations takes "
        f"{' and '.join(ends)}: {_step(content, 'calibration', 'calibration_seconds'):.2f} s per further clip. The "
        f"time to find the ranges grows as clips^{b['ranges_seconds']}, memory as clips^{b['calibration_peak_bytes']}: "
        "calibration holds one clip at a time and a summary of fixed size for each tensor.",
        machine(calibration["environment"]),
    ]


SECTIONS: tuple[tuple[str, str, Callable[[dict[str, Any]], str]], ...] = (
    ("peers", "Every peer side by side, ViViT-B on the CPU", peers_section),
    ("gpu", "ViViT-B on a GPU", gpu_section),
    ("session", "Sessions on the CPU, ViViT-B", _sessions),
    ("session_families", "Sessions on the CPU, other model families", _sessions),
    ("sdpa", "Eager attention and SDPA, as in the Transformers documentation", _sdpa),
    ("quantization", "INT8 and FP8", quantization_section),
    ("quantization_ideas", "INT8 and FP8: what bias correction and clipped weights gain", ideas_section),
    ("int8_attention", "INT8 attention of a short sequence", int8_attention_section),
    ("taps", "Where drift begins: the taps of a check", taps_section),
    ("throughput", "From file to label", throughput_section),
    ("live", "Live video", live_section),
    ("spans", "Spans", spans_section),
    ("plan", "What TensorRT for RTX compiles", _plans),
    ("plan_families", "What TensorRT for RTX compiles: other model families", _plans),
    ("rewrites", "How the exact rewrites change the results", _rewrites),
    ("export", "The export", _export),
    ("newcomer", "A newcomer's path", newcomer_section),
    ("preprocess", "Preprocessing 32 frames", _preprocess),
    ("preprocess_cpp", "Preprocessing 32 frames in C++", _preprocess_cpp),
    ("scaling", "Growth", _scaling),
)


if __name__ == "__main__":
    PAGE.parent.mkdir(exist_ok=True)
    PAGE.write_text(page(), encoding="utf-8")
    if (RESULTS / "scaling.json").exists():
        for name, chart in growth_charts(json.loads((RESULTS / "scaling.json").read_text(encoding="utf-8"))).items():
            (PAGE.parent / name).write_text(chart, encoding="utf-8")
    print(f"wrote {PAGE}")
