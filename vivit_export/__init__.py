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
    from vivit_export.bundle.signatures.sign import sign_bundle, verify_bundle
    from vivit_export.bundle.signatures.verify import Signer
    from vivit_export.calibration.options import CalibrationOptions
    from vivit_export.calibration.ranges import Ranges
    from vivit_export.contract import Contract
    from vivit_export.deploy.cpp.deploy import deploy_cpp
    from vivit_export.deploy.triton.deploy import TritonOptions, deploy_triton
    from vivit_export.errors import VivitExportError
    from vivit_export.export.bench import bench
    from vivit_export.export.build import build, build_engines
    from vivit_export.export.calibration_run import calibrate
    from vivit_export.export.convert import convert_scenic
    from vivit_export.export.inspection import Inspection, inspect
    from vivit_export.export.options import ExportOptions
    from vivit_export.export.pipeline import export_model
    from vivit_export.export.recheck import assert_no_drift, check
    from vivit_export.report.card import card
    from vivit_export.runtime.bench.report import BenchReport
    from vivit_export.runtime.select import open_session
    from vivit_export.runtime.session.prediction import Prediction
    from vivit_export.runtime.session.session import Session
    from vivit_export.runtime.stream import StreamPrediction, stream
    from vivit_export.sharing import Pushed, pull, push

__version__ = "0.1.0"

__all__ = [
    "BenchReport",
    "Bundle",
    "CalibrationOptions",
    "Contract",
    "DriftReport",
    "ExportOptions",
    "Inspection",
    "Prediction",
    "Pushed",
    "Ranges",
    "Session",
    "Signer",
    "StreamPrediction",
    "TritonOptions",
    "VivitExportError",
    "__version__",
    "assert_no_drift",
    "bench",
    "build",
    "build_engines",
    "calibrate",
    "card",
    "check",
    "convert_scenic",
    "deploy_cpp",
    "deploy_triton",
    "export_model",
    "inspect",
    "open_session",
    "pull",
    "push",
    "read_bundle",
    "runtime",
    "sign_bundle",
    "stream",
    "verify_bundle",
]

_HOMES = {
    "BenchReport": "runtime.bench.report",
    "Bundle": "bundle",
    "CalibrationOptions": "calibration.options",
    "Contract": "contract",
    "DriftReport": "bundle.checks",
    "ExportOptions": "export.options",
    "Inspection": "export.inspection",
    "Prediction": "runtime.session.prediction",
    "Pushed": "sharing",
    "Ranges": "calibration.ranges",
    "Session": "runtime.session.session",
    "Signer": "bundle.signatures.verify",
    "StreamPrediction": "runtime.stream",
    "TritonOptions": "deploy.triton.deploy",
    "VivitExportError": "errors",
    "assert_no_drift": "export.recheck",
    "bench": "export.bench",
    "build": "export.build",
    "build_engines": "export.build",
    "calibrate": "export.calibration_run",
    "card": "report.card",
    "check": "export.recheck",
    "convert_scenic": "export.convert",
    "deploy_cpp": "deploy.cpp.deploy",
    "deploy_triton": "deploy.triton.deploy",
    "export_model": "export.pipeline",
    "inspect": "export.inspection",
    "open_session": "runtime.select",
    "pull": "sharing",
    "push": "sharing",
    "read_bundle": "bundle",
    "runtime": "",
    "sign_bundle": "bundle.signatures.sign",
    "stream": "runtime.stream",
    "verify_bundle": "bundle.signatures.sign",
}

__getattr__, __dir__ = lazy_names(__name__, _HOMES)
