"""A safetensors file of embeddings that grows while videos are predicted, and appears when it is complete.

Rows are kept in files without a name in the target's folder, which vanish however the process ends. So memory does not
grow, and no file is ever half written.
"""

from __future__ import annotations

import json
import os
import shutil
import struct
import tempfile
from collections.abc import Callable
from contextlib import ExitStack, suppress
from pathlib import Path
from types import TracebackType
from typing import IO, final

import numpy as np

from vivit_export.errors import OutputError, UsageError, option
from vivit_export.files import check_file, refusals, writing_file
from vivit_export.runtime.session.prediction import Prediction

_MOST_HEADER_BYTES = 100_000_000  # readers refuse more
_ROOM_FOR_TENSORS = 1000


@final
class EmbeddingFile:
    """Collects embeddings; a context manager that drops what is not saved.

    The file holds ``embedding`` float32 (N, hidden) and, for windows, ``span_seconds`` float64 (N, 2). Its metadata
    hold ``videos``, a JSON list of the N paths; or, of live video, its one ``source``.

    Args:
        path: the file; a symbolic link is followed.
        force: replace an existing file.
        source: the live video that all rows come from; None: each row names its video.
        note: told of what an interrupted run left of this file, which is removed.

    Attributes:
        count: rows so far.
    """

    def __init__(
        self, path: Path, *, force: bool = False, source: str | None = None, note: Callable[[str], object] = str
    ) -> None:
        self.count = 0
        self._path, self._force, self._source, self._note = path, force, source, note
        self._has_spans = True
        self._files = ExitStack()
        check_file(path, force)
        with refusals(self._path, any_reason=True):
            self._rows, self._spans, self._names = (self._unnamed() for _ in range(3))
        self._hidden = 0

    def __enter__(self) -> EmbeddingFile:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        with suppress(OSError):  # a full disk has been reported
            self._files.close()

    def add(self, prediction: Prediction, video: str, span_seconds: tuple[float, float] | None) -> None:
        """Append the embedding of a video, or of a window of it.

        Raises:
            UsageError: there is none.
            OutputError: the disk is full, or the names of all videos are too long for one file.
        """
        row = prediction.embedding
        if row is None:
            raise UsageError(f"this bundle has no embedding; export it with {option('outputs', 'logits,embedding')}")
        self._has_spans &= span_seconds is not None
        with refusals(self._path, any_reason=True):
            self._rows.write(np.ascontiguousarray(row, "<f4").tobytes())
            self._spans.write(struct.pack("<2d", *(span_seconds or (0, 0))))
            if self._source is None:
                name = json.dumps(json.dumps(video))[1:-1]
                self._names.write(f"{', ' if self.count else ''}{name}".encode())
                if self._names.tell() > _MOST_HEADER_BYTES - _ROOM_FOR_TENSORS:
                    raise OutputError(
                        f"{self._path} cannot name more than the {self.count} videos and windows so far; predict them "
                        "in several parts"
                    )
        self.count, self._hidden = self.count + 1, len(row)

    def save(self) -> None:
        """Write the file, if there is anything to write.

        Raises:
            OutputError: the file exists by now, or cannot be written.
        """
        if not self.count:
            return
        with writing_file(self._path, force=self._force, note=self._note) as part, part.open("wb") as file:
            self._write_header(file)
            for kept in [*[self._spans] * self._has_spans, self._rows]:
                kept.seek(0)
                shutil.copyfileobj(kept, file)

    def _write_header(self, file: IO[bytes]) -> None:
        row_bytes, span_bytes = 4 * self._hidden * self.count, 16 * self.count * self._has_spans
        tensors = {
            "embedding": {
                "dtype": "F32",
                "shape": [self.count, self._hidden],
                "data_offsets": [span_bytes, span_bytes + row_bytes],
            }
        }
        if self._has_spans:
            tensors["span_seconds"] = {"dtype": "F64", "shape": [self.count, 2], "data_offsets": [0, span_bytes]}
        named = self._source is None
        given = '{"__metadata__":{"videos":"[' if named else f'{{"__metadata__":{{"source":{json.dumps(self._source)}'
        before = given.encode()
        after = (']"},' if named else "},").encode() + json.dumps(tensors, separators=(",", ":"))[1:].encode()
        length = len(before) + self._names.tell() + len(after)
        padding = -length % 8
        file.write(struct.pack("<Q", length + padding) + before)
        self._names.seek(0)
        shutil.copyfileobj(self._names, file)
        file.write(after + b" " * padding)

    def _unnamed(self) -> IO[bytes]:
        folder = os.path.dirname(os.path.realpath(self._path))
        return self._files.enter_context(tempfile.TemporaryFile(dir=folder))
