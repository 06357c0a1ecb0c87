"""Record in ``benchmarks/results/versions.json`` what passed with which versions; `write_support_page` shows it.

    ENV/bin/python tools/record_versions.py serving LABEL JUNIT...    # after pytest --junitxml=JUNIT in that Python
    ENV/bin/python tools/record_versions.py export [--tests]          # in a Python with torch and tensorrt-rtx

Run it with the Python that is tried. A new record takes the place of the one with the same versions.
"""

from __future__ import annotations

import datetime
import json
import os
import platform
import subprocess
import sys
import tempfile
import xml.etree.ElementTree as ET
from collections.abc import Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from vivit_export.precision import Precision

ROOT = Path(__file__).parents[1]
RECORD = ROOT / "benchmarks/results/versions.json"
SERVING = ("av", "click", "numpy", "onnx", "pillow", "rich", "safetensors", "onnxruntime", "openvino", "tritonclient",
           "cryptography", "aiohttp", "jinja2", "tensorrt-rtx", "ray", "pyarrow", "huggingface-hub")  # fmt: skip
EXPORT = ("torch", "transformers", "onnx-ir", "onnxscript", "onnx", "onnxruntime", "tensorrt-rtx", "numpy")
TRACE_TESTS = ("tests/export/graph/test_trace.py", "tests/export/checkpoint/test_weights.py")
PRECISIONS = (Precision.FP32, Precision.FP16, Precision.INT8)


def add(kind: str, record: dict[str, Any], same: Sequence[str], path: Path = RECORD) -> None:
    """Store a record, in the place of one that agrees in the fields ``same``.

    Args:
        kind: list that it belongs to.
        record: what is stored.
        same: fields that tell records apart.
        path: file of all records; made if it does not exist.
    """
    everything: dict[str, list[dict[str, Any]]] = json.loads(path.read_text()) if path.exists() else {}
    others = [old for old in everything.get(kind, []) if any(old[name] != record[name] for name in same)]
    everything[kind] = [*others, record]
    path.write_text(json.dumps(everything, indent=1, sort_keys=True) + "\n")


def counted(reports: Sequence[Path]) -> dict[str, int]:
    """Count the tests in reports that pytest wrote with ``--junitxml``; what ran again counts as in the last report."""
    results: dict[tuple[str | None, str | None], str] = {}
    for report in reports:
        for case in ET.parse(report).iter("testcase"):
            found = {child.tag for child in case}
            result = "failed" if found & {"failure", "error"} else "skipped" if "skipped" in found else "passed"
            results[case.get("classname"), case.get("name")] = result
    return {result: list(results.values()).count(result) for result in ("passed", "skipped", "failed")}


def folders(reports: Sequence[Path]) -> list[str]:
    """Return which folders the tests of those reports lie in; ``tests`` has the files that lie in no other."""
    names = {case.get("classname", "") for report in reports for case in ET.parse(report).iter("testcase")}
    return sorted({"/".join(part for part in name.split(".")[:2] if not part.startswith("test_")) for name in names})


def serving(label: str, reports: Sequence[Path]) -> dict[str, Any]:
    """Return the record of a run of what serves a bundle, in this Python."""
    return {"label": label, **_here(SERVING), "folders": folders(reports), "tests": counted(reports)}


def export(*, tests: bool) -> dict[str, Any]:
    """Export the demo in some precisions, run the tests of tracing and of weights if asked, and return the record.

    Raises:
        PackageNotFoundError: one of `EXPORT` is not installed, or was replaced meanwhile.
    """
    with tempfile.TemporaryDirectory() as room:
        exports = {str(precision): _exported(precision, Path(room) / str(precision)) for precision in PRECISIONS}
        for package in EXPORT:
            version(package)
        if not tests:
            return {**_here(EXPORT), "exports": exports, "tests": None}
        report = Path(room) / "junit.xml"
        pytest = [sys.executable, "-m", "pytest", "-q", "--no-header", f"--junitxml={report}", *TRACE_TESTS]
        subprocess.run(pytest, cwd=ROOT, env={**os.environ, "PYTHONPATH": str(ROOT)}, check=False)
        return {**_here(EXPORT), "exports": exports, "tests": counted([report])}


def _exported(precision: Precision, target: Path) -> dict[str, Any]:
    import vivit_export as ve

    manifest = ve.export_model("demo", target, precision=precision).manifest
    quantization, drift = manifest.precision.quantization, manifest.checks
    assert drift is not None
    engine = manifest.engines.get("tensorrt-rtx")
    return {
        "rewrites": dict(sorted(manifest.precision.rewrites.items())),
        "declined": len(manifest.precision.declined),
        "blocks": manifest.model.num_blocks,
        "attention_fused": engine.plan.attention_fused if engine else None,
        "quantized": len(quantization.layers) if quantization else None,
        "proof": list(engine.proof) if engine else [],
    }


def _here(packages: Sequence[str]) -> dict[str, Any]:
    return {
        "date": datetime.datetime.now(datetime.timezone.utc).date().isoformat(),
        "python": platform.python_version(),
        "packages": {name: found for name in packages if (found := _version(name)) is not None},
    }


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


if __name__ == "__main__":
    if sys.argv[1] == "serving":
        add("serving", serving(sys.argv[2], [Path(name) for name in sys.argv[3:]]), ("label", "python"))
    else:
        add("export", export(tests="--tests" in sys.argv), ("python", "packages"))
    print(f"wrote {RECORD}")
