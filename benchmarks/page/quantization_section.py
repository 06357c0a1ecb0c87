"""The performance page's sections on INT8 and FP8."""

from __future__ import annotations

from typing import Any

from markdown_table import megabytes, table

_PLANS, _TIME = "plans", "calibration time"


def quantization_section(content: dict[str, Any]) -> str:
    """Write accuracy, memory and time beside the peers, then the compiled plans."""
    models = {title: found for title, found in content.items() if "float32" in found and title != _TIME}
    rows = [
        (title, name, *_figures(one))
        for title, found in models.items()
        for name, one in sorted(found.items(), key=lambda item: item[1].get("rms", 1.0))
        if name != "float32"
    ]
    columns = ("model", "quantizer", "top-1 agreement", "accuracy", "max |Δ|", "RMS", "cosine", "seconds", "peak MB")
    words = (
        "Differences are from the float32 graph, relative to the logit range. All quantizers work on the same Linears "
        "of the same graph, whose heads were equalized. They calibrate on the same clips and are compared on other "
        "clips. Clips to calibrate on and to compare on: "
        f"{_used({title: found['float32'] for title, found in models.items()})}. "
        "Seconds and memory are for the whole process."
    )
    parts = [words, table(columns, rows)]
    if _TIME in content:
        parts.append(_calibration_time(content[_TIME]))
    return "\n\n".join([*parts, *([_plan_table(content[_PLANS])] if _PLANS in content else [])])


def _calibration_time(found: dict[str, Any]) -> str:
    clips, forward, stages = (
        found["float32"]["calibrated_on"],
        found["float32"]["seconds_per_clip"],
        found["ours int8"]["stages"],
    )
    seconds = sum(stages.values())
    return (
        f"Calibrating ViViT-B for INT8 on {clips} clips takes {seconds:.0f} s once the graph exists (running clips, "
        f"observing, choosing ranges and smoothing). That is {seconds / (clips * forward):.2f} times as long as "
        f"{clips} forward passes of the same float32 graph, at {forward:.2f} s each."
    )


def _figures(one: dict[str, Any]) -> tuple[str, ...]:
    if "error" in one:
        return (one["error"], *[""] * 6)
    accuracy = f"{100 * one['accuracy']:.1f} %" if one["accuracy"] is not None else "–"
    return (
        f"{100 * one['top1']:.1f} %",
        accuracy,
        f"{100 * one['max']:.2f} %",
        f"{100 * one['rms']:.3f} %",
        f"{one['cosine']:.6f}",
        f"{one['seconds']:.0f}",
        megabytes(one["peak_bytes"]),
    )


def _plan_table(plans: dict[str, Any]) -> str:
    rows = [
        (name, plan["kernels"], plan["attention_fused"], plan["evidence"][1], f"{plan['activation_bytes'] / 1e6:.1f}")
        for name, plan in plans.items()
    ]
    columns = ("ViViT-B/16x2, SM89", "kernels", "attention fused", "Linears", "activation MB, batch 8")
    return table(columns, rows)


def ideas_section(content: dict[str, Any]) -> str:
    """Write what bias correction and weight clipping gain, and what another form of bias correction would gain."""
    parts = {title: found for title, found in content.items() if "int8" in found}
    rows = [
        (title, precision, idea, f"{100 * one['max']:.2f} %", f"{100 * one['rms']:.4f} %", f"{one['cosine']:.6f}")
        for title, found in parts.items()
        for precision in ("int8", "fp8")
        for idea, one in found[precision].items()
    ]
    columns = ("model", "precision", "variant", "max |Δ|", "RMS", "cosine")
    words = (
        "Differences are from the float32 graph, on clips that were not used for calibration. Clips to calibrate on "
        f"and to compare on: {_used(parts)}."
    )
    return f"{words}\n\n{table(columns, rows)}"


def int8_attention_section(content: dict[str, Any]) -> str:
    """Write what INT8 in attention itself does to the plan of a short sequence, and to the logits."""
    plans = [
        (
            form,
            gpu.upper(),
            plan["kernels"],
            plan["copies"],
            ", ".join(f"{count} {dtype}" for dtype, count in plan["attention_dtypes"].items()),
            f"{plan['activation_bytes'] / 1e6:.1f}",
        )
        for form, by_gpu in content["plans"].items()
        for gpu, plan in by_gpu.items()
    ]
    drift = [
        (name, f"{100 * one['top1']:.1f} %", f"{100 * one['max']:.2f} %", f"{100 * one['rms']:.3f} %")
        for name, one in content["drift"].items()
    ]
    blocks = content["blocks"]
    words = (
        f"Factorised encoder of ViViT-B/16x2 with {blocks['num_hidden_layers']} spatial blocks of 197 tokens and "
        f"{blocks['temporal_num_hidden_layers']} temporal one, INT8 Linears, batch 8. TensorRT for RTX has an INT8 "
        "kernel for the spatial blocks, but Q, K and V are copied in front of it, and there are more kernels and "
        "activations than with attention in fp16. No GPU was there to time either, so INT8 attention is not offered. "
        "Drift is that of the small trained factorised encoder of the tests, on "
        f"{content['compared_on']} clips, if nothing but attention is rounded."
    )
    columns = ("graph", "GPU", "kernels", "copies", "fused attention", "activation MB")
    tables = table(columns, plans), table(("attention", "top-1 agreement", "max |Δ|", "RMS"), drift)
    return "\n\n".join([words, *tables])


def _used(parts: dict[str, Any]) -> str:
    return "; ".join(f"{title}: {one['calibrated_on']} and {one['compared_on']}" for title, one in parts.items())
