"""What a command prints about a bundle."""

from __future__ import annotations

from typing import Any

from vivit_export.bundle import Bundle
from vivit_export.export.report import rewrites_text


def summary_json(bundle: Bundle, seconds: dict[str, float] | None) -> dict[str, Any]:
    """The manifest, where it lies, and how long each stage of this command took."""
    content = {"bundle": str(bundle.path), "size": bundle.size_bytes, **bundle.manifest}
    return {**content, "seconds": seconds} if seconds is not None else content


def summary_text(bundle: Bundle) -> str:
    """A few lines for people."""
    manifest = bundle.manifest
    model, precision = manifest["model"], manifest["precision"]
    clip, io = bundle.contract.clip, bundle.contract.io
    lines = [
        f"{bundle.path}  {_megabytes(bundle.size_bytes)}, {len(manifest['files'])} files, hashes verified",
        f"  model      {model['id']}, {model['parameters'] / 1e6:.1f} M parameters",
        f"  precision  {precision['name']}, attention as {precision['attention']}, opset {precision['opset']}",
    ]
    lines += [f"  rewrites   {text}" for text in [rewrites_text(precision)] if text]
    for kind, tensors in (("input", io.inputs), ("output", io.outputs)):
        lines += [f"  {kind:<10} {t.name} {t.dtype} ({', '.join(map(str, t.shape))})" for t in tensors]
    lines.append(f"  clip       {clip.num_frames} frames, sampling {clip.sampling}, {clip.num_tokens} tokens")
    lines += _drift_lines(manifest["checks"])
    for name, sidecar in bundle.engines.items():
        sms = " ".join(f"SM{sm}" for sm in sidecar["sms"])
        lines.append(f"  engine     {name}: {sidecar['flavour']} {sidecar['version']}, {sms}")
        lines += [f"             {sentence}" for sentence in sidecar["proof"]]
        plan = sidecar["plan"]
        lines.append(
            f"             {plan['kernels']} kernels, {_megabytes(plan['activation_bytes'])} activations at batch "
            f"{sidecar['profiles'][0]['max']}, {_megabytes(sidecar['size'])} on disk"
        )
    if not bundle.engines:
        # No TensorRT has a kernel for attention as one op in fp32.
        buildable = (precision["name"], precision["attention"]) != ("fp32", "fused-op")
        remedy = f"run: vivit build {bundle.path}" if buildable else "export with --fp16, or with --attention pattern"
        lines.append(f"  engine     none; {remedy}")
    return "\n".join(lines)


def _drift_lines(checks: dict[str, Any]) -> list[str]:
    if not checks:
        return ["  drift      not checked"]
    clips = checks["clips"]
    lines = [f"  drift      against {checks['reference']}, {len(clips['names'])} clips: {clips['source']}"]
    for run in checks["runs"]:
        drift, where = run["drift"], f"{run['engine']}, batch {run['batch']}"
        if drift is None:
            lines.append(f"             {where}: {run['note']}")
        elif drift["top1"] is None:
            lines.append(f"             {where}: embedding cosine {drift['embedding_cosine']:.7f}")
        else:
            lines.append(
                f"             {where}: top-1 {100 * drift['top1']:.1f} %, max |Δ| {drift['max_abs']:.2g} "
                f"({100 * drift['max']:.2g} % of the range), cosine {drift['cosine']:.7f}"
            )
    return lines


def _megabytes(size: int) -> str:
    return f"{size / 1e6:.1f} MB"
