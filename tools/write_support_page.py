"""Write ``docs/support.md``: which versions were tested, from what the tests install and from recorded tries.

    python tools/write_support_page.py

The newest versions are those of constraints.txt, the lowest those of constraints-lowest.txt, TensorRT's are those whose
bindings the tests fetch, and GPUs are those of `vivit_export.flavour`. ``benchmarks/results/versions.json`` has what
`record_versions` recorded, ``support.json`` what was tried by hand, and what others state, with the source. A test
compares the page.
"""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

from fetch_tensorrt_bindings import VERSIONS
from versions_section import section

from vivit_export.flavour import Flavour
from vivit_export.precision import Precision

ROOT = Path(__file__).parents[1]
PAGE = ROOT / "docs/support.md"
FACTS = Path(__file__).with_name("support.json")
RECORD = ROOT / "benchmarks/results/versions.json"

_SERVING = ("av", "click", "numpy", "onnx", "pillow", "rich", "safetensors", "onnxruntime", "openvino", "tritonclient")
_EXPORT = ("torch", "transformers", "onnx-ir", "onnxscript", "polygraphy", "tensorrt-rtx")


def page() -> str:
    """Return the page's text."""
    facts: dict[str, Any] = json.loads(FACTS.read_text(encoding="utf-8"))
    return "\n\n".join((_INTRO, _packages(facts), _tensorrt(facts), _gpus(), _triton(facts), _jetpack(facts))) + "\n"


_INTRO = """# What is supported

`tools/write_support_page.py` writes this page. "Tested" means that the test suite, or the try described, ran with that
version. Other versions that pip accepts may work; they were not tried."""


def _packages(facts: dict[str, Any]) -> str:
    newest, lowest = (_pins(name) for name in ("constraints.txt", "constraints-lowest.txt"))
    rows = [
        f"| {name} | {lowest.get(name, 'no environment of its own')} | {newest[name]} |" for name in _SERVING + _EXPORT
    ]
    pyav, record = facts["pyav_bits"], json.loads(RECORD.read_text(encoding="utf-8"))
    return "\n".join((
        "## Python packages",
        "",
        "The package asks for Python 3.10 or newer. `make test` runs the newest versions with Python 3.11, "
        "`make test-lowest` what serves a bundle with the lowest, without torch, and `make test-compat` the same with "
        f"another Python. {facts['lowest_onnx_ir']}.",
        "",
        "| package | lowest, in `make test-lowest` | newest, in `make test` |",
        "|---|---|---|",
        *rows,
        "",
        f"PyAV gives the same bits in {', '.join(pyav['same'])}, other colors in {', '.join(pyav['other'])}, and fails "
        "in 14.0.0 "
        f"({pyav['how']}). Versions before 17.1 are refused: {pyav['crash']}.",
        "",
        section(record, facts["transformers_refused"]),
    ))  # fmt: skip


def _tensorrt(facts: dict[str, Any]) -> str:
    rtx = facts["tensorrt_rtx_compiled"]
    return "\n".join((
        "## TensorRT",
        "",
        "| product | lowest accepted | tested | how |",
        "|---|---|---|---|",
        f"| TensorRT | {Flavour.TENSORRT.lowest} | {', '.join(VERSIONS)} | every name, signature and type that we use, "
        "against the real Python bindings |",
        f"| TensorRT for RTX | {Flavour.TENSORRT_RTX.lowest} | {', '.join(rtx['versions'])} | compiled: {rtx['how']} |",
        "",
        f"{facts['not_run']} TensorRT for RTX {rtx['refused']}.",
    ))  # fmt: skip


def _gpus() -> str:
    rows = [
        f"| `--{precision}` | {_joined(sm for sm in Flavour.TENSORRT_RTX.known_sms if sm >= precision.oldest_sm)} | "
        f"{precision.oldest_sm or 'any'} |"
        for precision in Precision
    ]
    return "\n".join((
        "## GPUs",
        "",
        "Compute capabilities (SM) that can be named at export, and the first with the arithmetic.",
        "",
        "| precision | TensorRT for RTX compiles for SM | first SM |",
        "|---|---|---|",
        *rows,
    ))  # fmt: skip


def _triton(facts: dict[str, Any]) -> str:
    known = facts["triton_onnxruntime"]
    return "\n".join((
        "## Triton",
        "",
        "The tests start a tritonserver with a stand-in for its back ends (see [Triton](triton.md)); no image of "
        f"NVIDIA's was run. [Triton's own table]({known['source']}) states the ONNX Runtime of each image:",
        "",
        "| tag | ONNX Runtime |",
        "|---|---|",
        *(f"| {tag}-py3 | {version} |" for tag, version in known["tags"].items()),
        "",
        f"For an image's TensorRT, see NVIDIA's [support matrix]({facts['triton_matrix']}). An engine runs only on the "
        "version that compiled it.",
    ))  # fmt: skip


def _jetpack(facts: dict[str, Any]) -> str:
    later = facts["jetpack_tensorrt_11"]
    return "\n".join((
        "## Jetson",
        "",
        "No Jetson was tested.",
        "",
        "| JetPack | TensorRT | stated by |",
        "|---|---|---|",
        *(f"| {row['jetpack']} | {row['tensorrt']} | [source]({row['source']}) |" for row in facts["jetpack"]),
        "",
        f"{later['text']} ([source]({later['source']})).",
    ))  # fmt: skip


def _pins(name: str) -> dict[str, str]:
    lines = [line for line in (ROOT / name).read_text(encoding="utf-8").splitlines() if not line.endswith("< '3.11'")]
    pins = (re.match(r"([\w-]+)==([^\s;]+)", line) for line in lines)
    return {found[1].replace("_", "-"): found[2] for found in pins if found}


def _joined(numbers: Any) -> str:
    return ", ".join(map(str, numbers))


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
    print(f"wrote {PAGE}")
