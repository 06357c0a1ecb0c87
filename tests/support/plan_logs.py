"""Real logs of TensorRT for RTX (1.7.1) that hold the layer plans of small ViViTs, and what a bundle keeps of one."""

from __future__ import annotations

from pathlib import Path

from made_records import engine_record

from vivit_export.bundle.engines import EngineRecord
from vivit_export.export.engine.plan import parse_rtx_log

ONE_ROW = ("rtx_fp16_one_row", "rtx_bf16_one_row_wide", "rtx_fp32_one_row")
"""Two blocks of our own graph at batch 1, of width 128, 256 and 192: after the last attention, one row is left."""

LOGS = ("rtx_fp16_two_blocks", "rtx_fp32_one_block", "rtx_int8_one_block", *ONE_ROW)
_FOLDER = Path(__file__).parents[1] / "export/engine/data"


def log(name: str) -> str:
    """One of LOGS."""
    return (_FOLDER / f"{name}.log").read_text()


def record(name: str) -> EngineRecord:
    """An engine's entry in the manifest, with the plan of that log."""
    return engine_record(sms=(89, 120), plan=parse_rtx_log(log(name)))
