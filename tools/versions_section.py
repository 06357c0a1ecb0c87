"""The section of ``docs/support.md`` on what `record_versions` recorded."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

# What `make test-lowest` and `make test-compat` run; ``tests`` are the files that lie in no folder.
FOLDERS = ("tests", "tests/bundle", "tests/calibration", "tests/deploy", "tests/report", "tests/runtime")


def section(record: dict[str, list[dict[str, Any]]], refused: str) -> str:
    """Return it as Markdown.

    Args:
        record: has every number.
        refused: which versions of transformers were tried and refused.
    """
    return "\n".join((
        "### What passed with which versions",
        "",
        "What serves a bundle, without torch (`make test-lowest`, `make test-compat`):",
        "",
        "| versions | Python | PyAV | ONNX Runtime | NumPy | Pillow | folders of tests | passed | skipped | "
        "failed | date |",
        "|---|---|---|---|---|---|---|---|---|---|---|",
        *(_serving_row(run) for run in sorted(record["serving"], key=_of_serving)),
        "",
        "What exports: the demo in fp32, fp16 and int8, compiled by TensorRT for RTX, and the tests of tracing and of "
        "reading weights. Every rewrite that fits a precision must match in all blocks, attention must be fused in all "
        "of fp16's and int8's, and int8 must quantize every layer.",
        "",
        "| torch | transformers | onnxscript | Python | rewrites in fp32, fp16, int8 | fused attention in fp16, int8 | "
        "layers in int8 | tests passed | failed | date |",
        "|---|---|---|---|---|---|---|---|---|---|",
        *(_export_row(run) for run in sorted(record["export"], key=lambda run: [
            _numbers(run["packages"][name]) for name in ("torch", "transformers")])),
        "",
        f"transformers {refused}: the command says what to install, with exit code 7.",
        "",
        "torch for CUDA ran on the CPU, with stand-ins for NVIDIA's libraries, which it loads but does not use there.",
    ))  # fmt: skip


def _of_serving(run: dict[str, Any]) -> tuple[str, tuple[int, ...]]:
    return run["label"], _numbers(run["python"])


def _serving_row(run: dict[str, Any]) -> str:
    have, tests = run["packages"], run["tests"]
    ran = "all" if set(FOLDERS) <= set(run["folders"]) else ", ".join(run["folders"])
    names = ("av", "onnxruntime", "numpy", "pillow")
    versions = [run["label"], run["python"], *(have[name] for name in names)]
    return _row([*versions, ran, f"{tests['passed']:,}", tests["skipped"], tests["failed"], run["date"]])


def _export_row(run: dict[str, Any]) -> str:
    have, made, tests = run["packages"], run["exports"], run["tests"] or {"passed": "not run", "failed": ""}
    return _row([
        have["torch"], have["transformers"], have["onnxscript"], run["python"],
        ", ".join(str(sum(made[name]["rewrites"].values())) for name in ("fp32", "fp16", "int8")),
        ", ".join(f"{made[name]['attention_fused']} of {made[name]['blocks']}" for name in ("fp16", "int8")),
        made["int8"]["quantized"], tests["passed"], tests["failed"], run["date"],
    ])  # fmt: skip


def _row(cells: Sequence[object]) -> str:
    return f"| {' | '.join(map(str, cells))} |"


def _numbers(version: str) -> tuple[int, ...]:
    return tuple(int(part) for part in version.partition("+")[0].split(".") if part.isdigit())
