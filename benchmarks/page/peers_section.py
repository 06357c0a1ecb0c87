"""The performance page's section on every peer, ViViT-B on the CPU."""

from __future__ import annotations

from typing import Any

from markdown_table import megabytes, table

_GEMM_FLOP, _FLOP = 533e9, 903e9  # of a clip: in Linears, and in all


def peers_section(content: dict[str, Any]) -> str:
    """Write tables of the contenders and their limit, of the rates behind the limit, and of the cost of making them."""
    differences, artifacts = content["max_logit_difference"], content["artifacts"]
    rows = []
    fastest_first = sorted(content["bench"]["contenders"].items(), key=_clips_per_second, reverse=True)
    for name, contender in fastest_first:
        for batch, f in contender["batches"].items():
            spread = f"{f['speed']:.2f} ({f['speed_low']:.2f}–{f['speed_high']:.2f})"
            difference = f"{differences[name]:.2g}" if name in differences else "–"
            share = f"{100 * _least_seconds(name, content['gemm_gflops']) * f['clips_per_second']:.0f} %"
            seconds = f"{1 / f['clips_per_second']:.2f}"
            rows.append((name, batch, seconds, spread, megabytes(contender["peak_bytes"]), difference, share))
    left_out = [
        f"{name}: {c['error']}"
        for name, c in content["bench"]["contenders"].items()
        if "error" in c and not c["batches"]
    ]
    made = [
        (name, f"{a['export_seconds']:.0f}", megabytes(a["peak_bytes"]), megabytes(a["size"]))
        for name, a in artifacts.items()
    ]
    columns = (
        "contender",
        "batch",
        "s per clip",
        "x SDPA (p10–p90)",
        "peak MB",
        "max |Δ logit|",
        "of its limit",
    )
    return "\n\n".join(
        [
            table(columns, rows),
            "The limit is the time for a clip's matrix products at this machine's best rate for their type "
            f"(below). A clip has {_GEMM_FLOP / 1e9:.0f} GFLOP in Linears, which INT8 contenders compute in int8, and "
            f"{(_FLOP - _GEMM_FLOP) / 1e9:.0f} GFLOP in attention and the rest, which they compute in float32, or in "
            "bf16 if their name says so. Our graphs skip most of the last layer, because only its class token is read. "
            f"The logits span {content['logit_range']:.3g}.",
            _gemm_table(content["gemm_gflops"]),
            table(("artifact", "seconds to make", "peak MB while making", "MB"), made),
            "Our fp32 contenders differ from PyTorch only by float32 rounding, as does the transformers export. Our "
            "export takes more memory than the transformers export: it holds the rewritten weights and the network's "
            "own, which its check compares with.",
            *(["Left out: " + "; ".join(left_out) + "."] if left_out else []),
        ]
    )


def _least_seconds(contender: str, rates: dict[str, dict[str, float]]) -> float:
    """Return the seconds for the matrix products of a ViViT-B clip at the best rates for the contender's types."""
    around = "bfloat16" if "bf16" in contender else "float32"
    linears = "int8" if "int8" in contender else around
    best = {kind: 1e9 * max(of.values()) for kind, of in rates.items()}
    return _GEMM_FLOP / best[linears] + (_FLOP - _GEMM_FLOP) / best[around]


def _gemm_table(rates: dict[str, dict[str, float]]) -> str:
    """GFLOP/s by type and library."""
    libraries = sorted({library for of in rates.values() for library in of})
    rows = [
        (kind, *(f"{of[library]:.0f}" if library in of else "–" for library in libraries)) for kind, of in rates.items()
    ]
    return table(("GFLOP/s of fc1's product", *libraries), rows)


def _clips_per_second(named: tuple[str, dict[str, Any]]) -> float:
    return max((figures["clips_per_second"] for figures in named[1]["batches"].values()), default=0.0)
