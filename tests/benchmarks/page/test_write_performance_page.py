"""The performance page is what the results make of it, and nothing else."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest
from gpu_section import gpu_section
from line_chart import line_chart
from markdown_table import table
from peers_section import peers_section
from sdpa import DOCUMENTED
from write_performance_page import PAGE, RESULTS, SECTIONS, growth_charts, page


def test_the_page_is_up_to_date() -> None:
    assert PAGE.read_text(encoding="utf-8") == page(), "run: python benchmarks/page/write_performance_page.py"


def test_every_result_has_a_section_or_is_listed_as_not_measured() -> None:
    written = page()
    for name, title, _ in SECTIONS:
        measured = (RESULTS / f"{name}.json").exists()
        assert (f"## {title}\n" in written) == measured
        assert (f"- {title} (`benchmarks/{name}.py`)" in written) != measured
    known = {name for name, _, _ in SECTIONS} | {"versions"}  # which docs/support.md shows
    assert {path.stem for path in RESULTS.glob("*.json")} <= known


def test_without_results_nothing_is_claimed(tmp_path: Path) -> None:
    written = page(tmp_path)
    assert "|" not in written
    assert written.count("\n- ") == len(SECTIONS)


def test_a_changed_figure_changes_the_page(tmp_path: Path) -> None:
    content = json.loads((RESULTS / "preprocess.json").read_text())
    content["results"][0]["ratio_of_median"] = 123.45
    (tmp_path / "preprocess.json").write_text(json.dumps(content))
    assert "| 123.45 |" in page(tmp_path)


FIGURES = {"p50_ms": 30.0, "peak_bytes": 9e8}
GPU: dict[str, Any] = {
    "environment": {"cpu": "AMD", "cores": 16, "gpu": "NVIDIA H200, 580", "load_before": 0, "packages": {}},
    "documented": DOCUMENTED,
    "partial": True,
    "not_measured": {"ours fp16, tensorrt": "TensorRT is not\ninstalled", "pytorch eager, batch 32": "out of memory"},
    "parts": {
        "model": {"flop_per_clip": 900e9, "linear_flop_per_clip": 500e9},
        "gemm_gflops": {
            "shapes": {"fc1": [16, 8, 4], "square": [8, 8, 8]},
            "not_measured": {"fp8 fc1": "no such kernel"},
            **{name: {"fc1": 500e3, "square": 600e3} for name in ("fp32", "fp16", "bf16")},
            "fp8": {"square": 1200e3},
        },
        "batch 8": {
            "pytorch eager": {**FIGURES, "compute_ms": 80.0, "gpu_bytes": 6e9, "gpu_tensor_bytes": 4e9},
            "pytorch sdpa": {**FIGURES, "compute_ms": 64.0, "gpu_bytes": 2e9, "gpu_tensor_bytes": 1e9},
            "ours fp16, tensorrt": {**FIGURES, "compute_ms": 16.0, "gpu_bytes": 1e9, "beyond_gate": ["max"]},
            "pytorch sdpa-bf16": {"p50_ms": 60.0, "compute_ms": 40.0},
        },
        "family X-B 8x4, batch 8": {
            "ours fp16, X-B 8x4, tensorrt": {**FIGURES, "compute_ms": 16.0},
            "pytorch sdpa-fp16": {**FIGURES, "compute_ms": 24.0},
        },
        "batch 16, interrupted": {"pytorch sdpa-bf16": FIGURES},
        "training eager": {"seconds_per_step": 0.3, "peak_bytes": 6e9, "steps": 100},
        "training sdpa": {"seconds_per_step": 0.2, "peak_bytes": 3e9, "steps": 100},
        "kernels ours": {"contender": "x", "batch": 8, "total_ms": 4.0, "num_kernels": 2,
                    "classes": {"attention": 1.0, "copies": 3.0}, "kernels": {"fmha": 1.0, "copy|all": 3.0}},
    },
}  # fmt: skip


def test_a_gpu_s_figures_are_set_beside_the_limit_and_the_documentation(tmp_path: Path) -> None:
    (tmp_path / "gpu.json").write_text(json.dumps(GPU))
    written = page(tmp_path)
    for line in (
        "**Partial**: the run did not finish.",
        "| fp16 | 500.0 | 600.0 |",
        "| fp8 | – | 1200.0 |",
        "| ours fp16, tensorrt (beyond its drift gate) | 8 | 2.00 | 3.75 | 2.50 | 2.00 | 1000 | 75 % |",
        "| pytorch eager | 8 | 10.00 | 3.75 | 0.80 | 1.00 | 6000 | 15 % |",
        "| pytorch sdpa-bf16 | 16 | 1.88 | 1.88 | 1.00 | 1.00 | – | 80 % |",
        "| X-B 8x4 | ours fp16, tensorrt | 8 | 2.00 | 3.75 | 1.50 | 1.00 |",
        "| inference, batch 8 | 80.00 | 64.00 | 25.0 % | 19.3 % | 4000 | 1000 | 75.0 % | 71.7 % |",
        "| training, 100 steps | 300.00 | 200.00 | 50.0 % | 7.1 % | 6000 | 3000 | 50.0 % | 56.6 % |",
        "| `copy\\|all` | 3.000 | 75.0 % |",
        "- fp8 fc1 GEMM: no such kernel",
        "- ours fp16, tensorrt: TensorRT is not installed",
        "- pytorch eager, batch 32: out of memory",
    ):
        assert f"\n{line}\n" in written, line
    assert "NVIDIA H200, 580; AMD, 16 cores" in written


def test_of_a_gpu_run_that_hardly_began_what_there_is_is_shown() -> None:
    nothing = {"parts": {}, "not_measured": {}, "partial": True, "documented": DOCUMENTED}
    assert gpu_section(nothing) == "**Partial**: the run did not finish."
    some = {**nothing, "parts": {"batch 8": {"pytorch sdpa": FIGURES}}}
    assert "| pytorch sdpa | 8 | 3.75 | 3.75 | 1.00 | 1.00 | – | – |" in gpu_section(some)


def test_each_peer_is_set_beside_the_limit_of_its_own_types() -> None:
    batch = {"clips_per_second": 0.1, "speed": 1.0, "speed_low": 0.9, "speed_high": 1.1}
    names = ("pytorch sdpa", "pytorch sdpa-bf16", "ours int8, openvino", "ours int8, openvino, bf16")
    content = {
        "max_logit_difference": {"ours int8, openvino": 0.123},
        "artifacts": {"ours int8": {"export_seconds": 99.6, "peak_bytes": 2.5e9, "size": 98e6}},
        "logit_range": 26.7,
        "gemm_gflops": {"float32": {"a": 100.0, "b": 370.0}, "bfloat16": {"a": 740.0}, "int8": {"b": 1066.0}},
        "bench": {
            "contenders": {
                **{name: {"batches": {"1": batch}, "peak_bytes": 1e9} for name in names},
                "compile": {"batches": {}, "error": "no compiler"},
            }
        },
    }
    written = peers_section(content)
    seconds = (903 / 370, 903 / 740, 533 / 1066 + 1, 533 / 1066 + 0.5)
    for name, limit in zip(names, seconds, strict=True):
        assert f"\n| {name} | 1 | 10.00 | 1.00 (0.90–1.10) | 1000 |" in written
        (row,) = (line for line in written.splitlines() if line.startswith(f"| {name} |"))
        assert row.endswith(f"| {100 * limit / 10:.0f} % |")
    assert "| float32 | 100 | 370 |" in written and "| int8 | – | 1066 |" in written
    assert "| ours int8 | 100 | 2500 | 98 |" in written and written.endswith("Left out: compile: no compiler.")


def test_charts_are_up_to_date() -> None:
    path = RESULTS / "scaling.json"
    if not path.exists():
        pytest.skip("growth was not measured")
    for name, chart in growth_charts(json.loads(path.read_text())).items():
        assert (PAGE.parent / name).read_text(encoding="utf-8") == chart


def test_growth_is_drawn_from_small_to_large_and_calibration_where_it_was_measured() -> None:
    content = json.loads((RESULTS / "scaling.json").read_text())
    same = {"ranges_seconds": 1.5, "calibration_peak_bytes": 5e8}
    rows = {str(n): {"calibration_seconds": 2.0 * n, **same} for n in (16, 2, 4)}
    content["calibration"] = {"layers": 2, "tokens": 3137, "rows": rows, "environment": content["environment"]}
    content["exponents"]["clips"] = {"calibration_seconds": 1.0, "ranges_seconds": 0.0, "calibration_peak_bytes": 0.0}
    charts = growth_charts(content)
    assert set(charts) == {f"growth-{key}.svg" for key in ("layers", "frames", "batch", "calibration")}
    for chart in charts.values():
        for element in ElementTree.fromstring(chart).iter():
            if element.tag.endswith("polyline"):
                places = [float(pair.split(",")[0]) for pair in element.attrib["points"].split()]
                assert places == sorted(places) and places[0] == 60
    written = {name: write for name, _, write in SECTIONS}["scaling"](content)
    assert "| calibration memory | – | – | – | 0.0 |" in written and "![growth with calibration clips]" in written
    assert (
        "At 2 layers and 3137 tokens, observing the activations takes 4.0 s and 500 MB for 2 clips and 32.0 s and 500 "
        "MB for 16 clips: 2.00 s per further clip." in written
    )


def test_a_chart_is_svg_with_a_line_for_each_series() -> None:
    root = ElementTree.fromstring(line_chart("a < b", "x", [1, 2, 4], {"up": [1, 2, 4], "flat": [3, 3, 3]}))
    lines = [element for element in root.iter() if element.tag.endswith("polyline")]
    assert len(lines) == 2
    up, flat = ([float(pair.split(",")[1]) for pair in line.attrib["points"].split()] for line in lines)
    assert up[0] > up[1] > up[2] and len(set(flat)) == 1
    assert "a < b" in [element.text for element in root.iter()]


def test_tables_are_markdown() -> None:
    assert table(("a", "b"), [(1, "x")]).splitlines() == ["| a | b |", "| --- | --- |", "| 1 | x |"]
