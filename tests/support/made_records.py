"""Sections of a manifest, made up: for tests of what only reads them."""

from __future__ import annotations

from dataclasses import fields, replace
from typing import Any

from anatomies import vivit

from vivit_export.bundle.checks import CheckedClips, DriftReport, Gate, Run
from vivit_export.bundle.engines import EngineRecord, PlanSummary, Profile
from vivit_export.bundle.manifest import Content, FileRecord, Manifest, ModelRecord, PrecisionRecord, Producer
from vivit_export.contract import Contract
from vivit_export.flavour import Flavour
from vivit_export.precision import Precision

PLAN = PlanSummary(9, 7, 1, {"Half": 1}, 0, 0, 2_000_000, 1_000_000, {"Half": 4}, ())


def engine_record(**changes: Any) -> EngineRecord:
    """An engine of full TensorRT for an H100, unless told otherwise."""
    made = EngineRecord(
        flavour=Flavour.TENSORRT,
        version="11.4.0.106",
        sms=(90,),
        profiles=(Profile(1, 4, 8),),
        precision=Precision.FP16,
        size=1_500_000,
        onnx_sha256="",
        proof=("attention fused in 1 of 1 blocks (Half)",),
        plan=PLAN,
    )
    return replace(made, **changes)


def drift_report(*runs: Run) -> DriftReport:
    """A check of one clip."""
    return DriftReport("eager fp32", CheckedClips("mine", ("a.mp4",)), Gate({"max": 1}), runs)


def content(contract: Contract, **changes: Any) -> Content:
    """A bundle in fp16 without engines that was not checked, unless told otherwise."""
    made = Content(
        Producer("0.1.0"),
        ModelRecord("demo", 3, 1, {}, vivit(1)),
        contract,
        PrecisionRecord(Precision.FP16, "pattern", 20),
    )
    return replace(made, **changes)


def manifest_of(content: Content, **files: FileRecord) -> Manifest:
    """The content with a list of files."""
    return Manifest(**{f.name: getattr(content, f.name) for f in fields(content)}, files=files)
