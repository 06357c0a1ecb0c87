"""A bundle that the demo is not: no head, a run that was left out, an engine with its proof."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from anatomies import vivit
from made_records import content, drift_report, engine_record, manifest_of

from vivit_export.bundle import Bundle
from vivit_export.bundle.checks import Drift, Run
from vivit_export.bundle.manifest import FileRecord, ModelRecord
from vivit_export.contract import IO, Clip, Contract, Preprocess, Tensor
from vivit_export.flavour import Flavour

DRIFT = Drift(1, None, None, None, None, None, None, None, None, None, 0.99987, 0)
CHECKS = drift_report(
    Run("onnxruntime 1", 1, True, DRIFT), Run("onnxruntime 1", 8, True, None, "not run: needs 2.0 GiB")
)
ENGINE = engine_record(flavour=Flavour.TENSORRT_RTX, version="1.7", sms=(89, 120))


def headless(**sections: Any) -> Bundle:
    contract = Contract(
        Clip(2, 8, 8, (1, 8, 8)),
        Preprocess(size=(8, 8), crop_size=(8, 8)),
        IO("pixels", (Tensor("x", "float32", ("batch", 2, 3, 8, 8)),), (Tensor("embedding", "float32", ("batch", 4)),)),
    )
    made = content(
        contract,
        **{
            "model": ModelRecord(
                "<b>mine</b>", 2_500_000, 1, {}, vivit(num_frames=2, image_size=8, tubelet_size=[1, 8, 8])
            ),
            **sections,
        },
    )
    files = {"model.onnx": FileRecord("", 1_000_000), "golden.safetensors": FileRecord("", 234_000)}
    return Bundle(Path("out"), manifest_of(made, **files))
