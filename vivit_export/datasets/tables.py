"""Results as Parquet tables, and lists of paths in Parquet files. The only module that knows pyarrow."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from vivit_export.bundle.clip_view import VideoFacts
from vivit_export.contract import Contract
from vivit_export.errors import ClipError, OutputError
from vivit_export.files import refusals, replacing
from vivit_export.records import parse_json

if TYPE_CHECKING:
    from vivit_export.datasets.work import Fault, Float32, Row

Schema = pa.Schema
_PATHS = ("path", "video")
_KEY = b"vivit"


def rows_schema(contract: Contract) -> pa.Schema:
    """Return the columns of a table of results: what the clip is, its best labels, and every output."""
    outputs = [(tensor.name, pa.list_(pa.float32(), int(tensor.shape[1]))) for tensor in contract.io.outputs]
    labels = [("labels", pa.list_(pa.string())), ("scores", pa.list_(pa.float32()))] if contract.labels else []
    return pa.schema(
        [
            ("clip", pa.int64()),
            ("video", pa.string()),
            ("window", pa.int32()),
            ("start_seconds", pa.float64()),
            ("end_seconds", pa.float64()),
            *labels,
            *outputs,
        ]
    )


_FACTS = pa.schema(
    [
        ("width", pa.int32()),
        ("height", pa.int32()),
        ("fps", pa.float64()),
        ("seconds", pa.float64()),
        ("codec", pa.string()),
    ]
)


def check_schema(contract: Contract, runs: Sequence[str]) -> pa.Schema:
    """Return the columns of a table of a check: what the clip is, and every output of each run.

    Args:
        contract: of the model.
        runs: what the names of their outputs begin with.
    """
    outputs = [
        (f"{run}{tensor.name}", pa.list_(pa.float32(), int(tensor.shape[1])))
        for run in runs
        for tensor in contract.io.outputs
    ]
    return pa.schema([("clip", pa.int64()), ("video", pa.string()), *_FACTS, *outputs])


FAULTS = pa.schema([("clip", pa.int64()), ("video", pa.string()), ("sentence", pa.string()), ("code", pa.int32())])


def write_rows(path: Path, rows: Sequence[Row], schema: pa.Schema, key: str) -> None:
    """Write a table of results, completely or not at all.

    Args:
        path: the file.
        rows: in order.
        schema: its columns.
        key: of the run, which is kept in the file.

    Raises:
        OutputError: the disk is full, or the folder cannot be written.
    """
    arrays = [pa.array(map(_CELLS[f.name], rows), f.type) if f.name in _CELLS else _outputs(rows, f) for f in schema]
    _write(path, pa.table(arrays, schema), key)


def _fact(name: str, row: Row) -> object:
    return getattr(row.place.facts, name, None)


_CELLS: dict[str, Callable[[Row], object]] = {
    "clip": lambda row: row.place.clip,
    "video": lambda row: as_text(row.place.video),
    "window": lambda row: row.place.window,
    "start_seconds": lambda row: row.place.span_seconds and row.place.span_seconds[0],
    "end_seconds": lambda row: row.place.span_seconds and row.place.span_seconds[1],
    "labels": lambda row: [label for label, _ in row.best],
    "scores": lambda row: [score for _, score in row.best],
    **{name: partial(_fact, name) for name in _FACTS.names},
}


def _outputs(rows: Sequence[Row], field: pa.Field) -> pa.Array:
    """Return an output of the model of all rows, bit for bit."""
    flat = np.concatenate([row.outputs[field.name] for row in rows]) if rows else np.empty(0, np.float32)
    return pa.FixedSizeListArray.from_arrays(pa.array(flat, pa.float32()), field.type.list_size)


def write_faults(path: Path, faults: Sequence[Fault], key: str) -> None:
    """Write a table of clips that could not be used; see `write_rows`."""
    columns = [
        [fault.clip for fault in faults],
        [as_text(fault.video) for fault in faults],
        [as_text(fault.sentence) for fault in faults],
        [fault.code for fault in faults],
    ]
    _write(path, pa.table([pa.array(c, f.type) for c, f in zip(columns, FAULTS, strict=True)], FAULTS), key)


def as_text(name: str) -> str:
    """Return a name that may hold bytes of no encoding, as UTF-8 can hold it."""
    return name.encode(errors="surrogateescape").decode(errors="backslashreplace")


def _write(path: Path, table: pa.Table, key: str) -> None:
    told = json.dumps({"key": key, "rows": table.num_rows})
    kept = pa.BufferOutputStream()
    names = [name for name in ("video", "labels.list.element") if name.partition(".")[0] in table.column_names]
    # A dictionary of numbers that are all different would only add to them.
    pq.write_table(table.replace_schema_metadata({_KEY: told}), kept, use_dictionary=names)
    with refusals(path, any_reason=True), replacing(path) as part, part.open("wb") as file:
        file.write(kept.getvalue())


def read_outputs(path: Path, names: Sequence[str]) -> dict[str, Float32]:
    """Return outputs of a table of results by name, each (rows, values)."""
    table = pq.read_table(path, columns=list(names))
    return {name: _array(table.column(name).combine_chunks()) for name in names}


def _array(column: pa.FixedSizeListArray) -> Float32:
    values: Float32 = column.flatten().to_numpy(zero_copy_only=False).reshape(-1, column.type.list_size)
    return values


def read_videos(path: Path, *, facts: bool = False) -> list[tuple[str, VideoFacts | None]]:
    """Return the videos that a table of results or of faults names, in order, with what their headers say.

    Args:
        path: the file.
        facts: whether it has that.
    """
    table = pq.read_table(path, columns=["video", *(_FACTS.names if facts else [])])
    names, *told = (column.to_pylist() for column in table.columns)
    if not facts:
        return [(name, None) for name in names]
    return [
        # Many clips have one codec.
        (name, None if codec is None else VideoFacts(width, height, fps, seconds, sys.intern(codec)))
        for name, width, height, fps, seconds, codec in zip(names, *told, strict=True)
    ]


def read_reason(path: Path) -> str:
    """Return why the first clip of a table of faults could not be used."""
    return str(pq.read_table(path, columns=["sentence"]).column(0)[0].as_py())


def rows_of(path: Path, key: str) -> int:
    """Return how many rows a table of a run has, from its end alone.

    Raises:
        OutputError: it is no such table, or of another run.
    """
    try:
        told = parse_json(pq.read_metadata(path).metadata[_KEY].decode())
        if told["key"] == key:
            return int(told["rows"])
    except (OSError, ValueError, KeyError, TypeError) as e:
        raise OutputError(f"{path} is not a table of results ({e}); remove it, and the run writes it again") from e
    raise OutputError(f"{path} is of another run; remove it, and the run writes it again")


def read_paths(place: Path) -> Iterator[str]:
    """Yield the paths that a Parquet file lists: its column ``path`` or ``video``, or its only one of text.

    Raises:
        ClipError: it cannot be read, has no such column, or lists nothing.
    """
    try:
        with pq.ParquetFile(place) as file:
            column, is_empty = _column(place, file.schema_arrow), True
            for batch in file.iter_batches(columns=[column]):
                names = list(filter(None, batch.column(0).to_pylist()))  # as a list's empty lines
                is_empty &= not names
                yield from names
            if is_empty:
                raise ClipError(f"{place} lists no videos; write one path a row")
    except (OSError, pa.ArrowException) as e:
        raise ClipError(f"{place} cannot be read as a Parquet file ({_first_line(e)}); write it again") from e


def _column(place: Path, schema: pa.Schema) -> str:
    texts = [f.name for f in schema if pa.types.is_string(f.type) or pa.types.is_large_string(f.type)]
    named = [name for name in _PATHS if name in texts] or (texts if len(texts) == 1 else [])
    if not named:
        raise ClipError(
            f"{place} has no column of text named {' or '.join(_PATHS)}, only {', '.join(schema.names) or 'none'}; "
            "rename the one with the paths"
        )
    return str(named[0])


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0]
