"""The performance page's section on ``benchmarks/results/gpu.json``."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

from markdown_table import megabytes, table

_EAGER, _SDPA = "pytorch eager", "pytorch sdpa"


def gpu_section(content: dict[str, Any]) -> str:
    """Write it from whatever parts were measured."""
    parts, missing = content["parts"], content["not_measured"]
    written = ["**Partial**: the run did not finish."] if content["partial"] else []
    written += content.get("remarks", [])
    if "gemm_gflops" in parts:
        written += _rates(parts["gemm_gflops"])
    batches = {int(name.split()[1].strip(",")): part for name, part in parts.items() if name.startswith("batch ")}
    if batches:
        written += [_contenders(dict(sorted(batches.items())), parts)]
    families = {name.partition(" ")[2]: part for name, part in parts.items() if name.startswith("family ")}
    if families:
        written += [_families(families)]
    checked = {name.split()[1]: part for name, part in parts.items() if name.startswith("drift ")}
    if checked:
        written += _drift(checked)
    for name in sorted(part for part in parts if part.startswith("kernels")):
        written += _kernels(parts[name])
    written += _documented(batches, parts, content["documented"])
    unmeasured = {
        **missing,
        **{f"{n} GEMM": r for n, r in parts.get("gemm_gflops", {}).get("not_measured", {}).items()},
    }
    if unmeasured:
        lines = [f"- {name}: {' '.join(reason.split())}" for name, reason in sorted(unmeasured.items())]
        written += ["What could not be measured:", "\n".join(lines)]
    return "\n\n".join(written)


def _rates(rates: dict[str, Any]) -> list[str]:
    shapes = {name: " x ".join(map(str, shape)) for name, shape in rates["shapes"].items()}
    rows = [
        (precision, *(f"{rates[precision][name] / 1e3:.1f}" if name in rates[precision] else "–" for name in shapes))
        for precision in ("fp32", "fp16", "bf16", "fp8")
    ]
    columns = ("TFLOP/s", *(f"{name}, {shape}" for name, shape in shapes.items()))
    return ["Matrix product rates on this machine in PyTorch (fp32 without TF32):", table(columns, rows)]


def _contenders(batches: dict[int, dict[str, Any]], parts: dict[str, Any]) -> str:
    rows = []
    for batch, contenders in batches.items():
        for name, f in sorted(contenders.items(), key=lambda item: _milliseconds(item[1])):
            per_clip = _milliseconds(f) / batch
            marked = f"{name} (beyond its drift gate)" if f.get("beyond_gate") else name
            memory = megabytes(f["gpu_bytes"]) if "gpu_bytes" in f else "–"
            speeds = [_against_pytorch(name, contenders, take) for take in (_milliseconds, _with_copies)]
            share = _share(name, per_clip, parts)
            rows.append((marked, batch, f"{per_clip:.2f}", f"{f['p50_ms'] / batch:.2f}", *speeds, memory, share))
    columns = (
        "contender",
        "batch",
        "ms per clip",
        "with copies",
        "x PyTorch",
        "x with copies",
        "GPU MB",
        "of GEMM rate",
    )
    words = (
        'Figures are medians. "ms per clip" is the network alone, with its input already on the GPU; "with copies" is '
        "from host memory to host memory, where PyTorch takes float32 pixels and ours uint8 crops. The columns after "
        "them compare with the fastest of PyTorch at that batch with as many bits, 16 or 32 (INT8: 16). "
        '"GPU MB" is the growth of used GPU memory, including the CUDA context.'
    )
    if "model" in parts:
        total, linear = (f"{parts['model'][name] / 1e9:.0f}" for name in ("flop_per_clip", "linear_flop_per_clip"))
        words += f" The last column divides a clip's {total} GFLOP ({linear} in Linears) by the best rate above."
    return f"{words}\n\n{table(columns, rows)}"


def _milliseconds(figures: dict[str, Any]) -> float:
    return float(figures.get("compute_ms", figures["p50_ms"]))


def _with_copies(figures: dict[str, Any]) -> float:
    return float(figures["p50_ms"])


def _against_pytorch(name: str, contenders: dict[str, Any], take: Callable[[dict[str, Any]], float]) -> str:
    """How many times as fast a contender is as the fastest of PyTorch beside it with as many bits."""
    theirs = [
        take(f) for other, f in contenders.items() if other.startswith("pytorch") and _is_32(other) == _is_32(name)
    ]
    return f"{min(theirs) / take(contenders[name]):.2f}" if theirs else "–"


def _is_32(name: str) -> bool:
    return not any(precision in name for precision in ("fp16", "bf16", "int8"))


def _families(families: dict[str, dict[str, Any]]) -> str:
    rows = []
    for title, contenders in families.items():
        model, _, batch = title.rpartition(", batch ")
        for name, f in sorted(contenders.items(), key=lambda item: _milliseconds(item[1])):
            marked = f"{name} (beyond its drift gate)" if f.get("beyond_gate") else name
            speeds = [_against_pytorch(name, contenders, take) for take in (_milliseconds, _with_copies)]
            times = [f"{take(f) / int(batch):.2f}" for take in (_milliseconds, _with_copies)]
            rows.append((model, marked.replace(f"{model}, ", ""), batch, *times, *speeds))
    columns = ("model", "contender", "batch", "ms per clip", "with copies", "x PyTorch", "x with copies")
    return f"Other families, with random weights:\n\n{table(columns, rows)}"


def _share(name: str, ms_per_clip: float, parts: dict[str, Any]) -> str:
    precision = next((p for p in ("fp16", "bf16") if p in name), "fp32")
    rates = parts.get("gemm_gflops", {}).get(precision)
    if not rates or "model" not in parts:
        return "–"
    return f"{100 * parts['model']['flop_per_clip'] / (ms_per_clip / 1e3) / (max(rates.values()) * 1e9):.0f} %"


def _drift(checked: dict[str, Any]) -> list[str]:
    rows = [
        (precision, f["engine"], f"{f['drift']['max']:.2g}", f"{100 * f['drift']['top1']:.0f} %", _verdict(f))
        for precision, engines in checked.items()
        for f in engines.values()
        if "error" not in f
    ]
    refused = [
        f"- {precision}, {name}: {' '.join(f['error'].split())}"
        for precision, engines in checked.items()
        for name, f in engines.items()
        if "error" in f
    ]
    columns = ("demo in", "engine", "max drift, of the range", "top-1 agreement", "gate")
    words = "The demo's golden clips on this machine, compared with eager PyTorch in fp32 on the CPU:"
    return [words, table(columns, rows), *(["\n".join(refused)] if refused else [])]


def _verdict(figures: dict[str, Any]) -> str:
    return "beyond: " + "; ".join(figures["beyond_gate"]) if figures["beyond_gate"] else "passed"


def _kernels(split: dict[str, Any]) -> list[str]:
    def rows(times: dict[str, float]) -> Iterator[tuple[str, str, str]]:
        for name, ms in sorted(times.items(), key=lambda item: -item[1]):
            yield name.replace("|", "\\|"), f"{ms:.3f}", f"{100 * ms / split['total_ms']:.1f} %"

    return [
        f"Time of {split['contender']} at batch {split['batch']} by kernel: {split['total_ms']:.2f} ms in "
        f"{split['num_kernels']} different kernels.",
        table(("kernels", "ms", "share"), rows(split["classes"])),
        table(("kernel", "ms", "share"), ((f"`{n[:80]}`", ms, share) for n, ms, share in rows(split["kernels"]))),
    ]


def _documented(batches: dict[int, dict[str, Any]], parts: dict[str, Any], documented: dict[str, Any]) -> list[str]:
    columns = ("", "eager ms", "SDPA ms", "faster", "documented", "eager MB", "SDPA MB", "saved", "documented")
    rows = []
    for batch, theirs in documented["inference"].items():
        both = batches.get(int(batch), {})
        if _EAGER in both and _SDPA in both:
            times = [_milliseconds(both[name]) for name in (_EAGER, _SDPA)]
            rows.append(
                _against(f"inference, batch {batch}", times, [_memory(both[n]) for n in (_EAGER, _SDPA)], theirs)
            )
    trained = [parts.get(f"training {kind}") for kind in ("eager", "sdpa")]
    if all(trained):
        times = [1e3 * t["seconds_per_step"] for t in trained if t]
        name = f"training, {trained[0]['steps']} steps" if trained[0] else ""
        rows.append(_against(name, times, [t["peak_bytes"] for t in trained if t], documented["training"]))
    if not rows:
        return []
    words = f"Eager attention and SDPA in float32, compared with the {documented['source']} (memory of tensors only):"
    return [words, table(columns, rows)]


def _against(name: str, ms: list[float], sizes: list[float], theirs: dict[str, float]) -> tuple[str, ...]:
    """Return one row: time and memory of eager and SDPA, and the documented figures."""
    return (
        name,
        *(f"{t:.2f}" for t in ms),
        f"{100 * (ms[0] / ms[1] - 1):.1f} %",
        f"{theirs['faster']} %",
        *(megabytes(size) for size in sizes),
        f"{100 * (1 - sizes[1] / sizes[0]):.1f} %",
        f"{100 * (1 - theirs['sdpa_mb'] / theirs['eager_mb']):.1f} %",
    )


def _memory(figures: dict[str, Any]) -> float:
    return float(figures.get("gpu_tensor_bytes", figures["peak_bytes"]))
