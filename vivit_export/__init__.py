"""Export ViViT (video vision transformers) to ONNX and TensorRT, check the result, and run it.

    import vivit_export as ve
    bundle = ve.export_model("demo", "out", precision="fp16")

Names are loaded on first use: importing the package imports neither torch nor onnxruntime.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from vivit_export.lazy import lazy_names

if TYPE_CHECKING:
    from vivit_export import runtime
    from vivit_export.bundle import Bundle, read_bundle
    from vivit_export.bundle.checks import DriftReport
    from vivit_export.contract import Contract
    from vivit_export.errors import VivitExportError
    from vivit_export.export.build import build_engines
    from vivit_export.export.options import ExportOptions
    from vivit_export.export.pipeline import export_model
    from vivit_export.export.recheck import assert_no_drift, check
    from vivit_export.runtime.select import open_session
    from vivit_export.runtime.session.prediction import Prediction
    from vivit_export.runtime.session.session import Session

__version__ = "0.1.0"

__all__ = [
    "Bundle",
    "Contract",
    "DriftReport",
    "ExportOptions",
    "Prediction",
    "Session",
    "VivitExportError",
    "__version__",
    "assert_no_drift",
    "build_engines",
    "check",
    "export_model",
    "open_session",
    "read_bundle",
    "runtime",
]

_HOMES = {
    "Bundle": "bundle",
    "Contract": "contract",
    "DriftReport": "bundle.checks",
    "ExportOptions": "export.options",
    "Prediction": "runtime.session.prediction",
    "Session": "runtime.session.session",
    "VivitExportError": "errors",
    "assert_no_drift": "export.recheck",
    "build_engines": "export.build",
    "check": "export.recheck",
    "export_model": "export.pipeline",
    "open_session": "runtime.select",
    "read_bundle": "bundle",
    "runtime": "",
}

__getattr__, __dir__ = lazy_names(__name__, _HOMES)
