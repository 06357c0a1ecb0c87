"""Reading the results of runs on Ray, and what a single process says about the same clips."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from vivit_export.bundle import Bundle
from vivit_export.contract import Contract
from vivit_export.progress import Silent
from vivit_export.runtime.clips.windows import WindowRule
from vivit_export.runtime.predict import VideoFault, VideoPrediction, predict_bundle

Row = dict[str, object]


def read_table(folder: Path, kind: str) -> list[dict[str, Any]]:
    """Every row of every partition, in the order of the inputs."""
    files = sorted((folder / kind).glob("*.parquet"))
    return [row for file in files for row in pq.read_table(file).to_pylist()]


def single_process(
    bundle: Bundle,
    files: Sequence[Path],
    *,
    contract: Contract | None = None,
    windows: WindowRule | None = None,
    top_k: int = 5,
) -> tuple[list[Row], list[Row]]:
    """The rows and the faults that `vivit predict` without Ray leads to."""
    rows: list[Row] = []
    faults: list[Row] = []
    results = predict_bundle(bundle, files, contract=contract or bundle.contract, windows=windows, progress=Silent())
    for result in results:
        if isinstance(result, VideoFault):
            faults.append({"video": str(result.path), "sentence": str(result.error), "code": result.error.exit_code})
        else:
            rows.append(_row(result, top_k))
    return rows, faults


def _row(result: VideoPrediction, top_k: int) -> Row:
    prediction = result.prediction
    start, end = result.span_seconds or (None, None)
    row: Row = {"video": str(result.path), "start_seconds": start, "end_seconds": end}
    if prediction.logits is not None:
        best = prediction.top(top_k)
        row |= {"labels": [name for name, _ in best], "scores": [score for _, score in best]}
        row["logits"] = prediction.logits.tolist()
    if prediction.embedding is not None:
        row["embedding"] = prediction.embedding.tolist()
    return row


def without(rows: Iterable[Row], *names: str) -> list[Row]:
    """Rows without some columns."""
    return [{name: value for name, value in row.items() if name not in names} for row in rows]


def write_table(place: Path, /, **columns: list[Any]) -> Path:
    """A Parquet file."""
    pq.write_table(pa.table(columns), place)
    return place
