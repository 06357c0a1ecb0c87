"""Whether Python and C++ agree on a manifest: both accept it, or both refuse it.

C++ reads only what it needs. What it passes over, Python may refuse alone.
"""

from __future__ import annotations

import json
import os
import re
import struct
import subprocess
from pathlib import Path
from types import TracebackType
from typing import final

import corpora

from vivit_export.bundle import MANIFEST, read_bundle
from vivit_export.errors import VivitExportError

_PASSED_OVER = re.compile(
    r"(producer|model|anatomy|precision|checks|recheck|bench|search)\b|an engine has the version"
    r"|drift \w+=|left_out=|the share |the gate limits |no model could pass "
    r"|bundle (has an unknown field|lacks the field 'producer')"
    r"|engines\.[^ ]*?\.(flavour|sms|profiles\[\d+\]|precision|size|proof|plan|version|onnx_sha256|verified_on)\b"
)
"""How Python's sentence begins, after the path, if C++ need not refuse the same."""


@final
class Readers:
    """Asks the program that ``build_cpp.py`` made why it refuses a manifest; a context manager.

    Args:
        program: that program.
        folder: an empty folder, where the bundle is.
    """

    def __init__(self, program: Path, folder: Path) -> None:
        self.folder = corpora.lay_out(folder)
        environment = {**os.environ, "VIVIT_FUZZ_SERVER": "1", "VIVIT_FUZZ_ROOM": str(folder)}
        pipe = subprocess.PIPE
        self._process = subprocess.Popen([program], stdin=pipe, stdout=pipe, env=environment)

    def __enter__(self) -> Readers:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._process.communicate(timeout=10)

    def in_cpp(self, data: bytes) -> str | None:
        """Return the sentence with which C++ refuses a manifest; None: it accepts it.

        Raises:
            RuntimeError: the program ended.
        """
        assert self._process.stdin is not None and self._process.stdout is not None
        self._process.stdin.write(struct.pack("<Q", len(data)) + data)
        self._process.stdin.flush()
        line = self._process.stdout.readline()
        if not line:
            raise RuntimeError(f"the C++ readers ended with {self._process.wait()}")
        told: str | None = json.loads(line)
        return told

    def in_python(self, data: bytes) -> str | None:
        """Do the same with Python."""
        (self.folder / MANIFEST).write_bytes(data)
        try:
            read_bundle(self.folder)
        except VivitExportError as e:
            return str(e)
        return None

    def disagreement(self, data: bytes) -> str | None:
        """Return how the two disagree on whether to refuse a manifest; None: they agree."""
        ours, theirs = self.in_python(data), self.in_cpp(data)
        if (ours is None) == (theirs is None) or (theirs is None and is_passed_over(self.folder, ours)):
            return None
        return f"Python: {ours or 'accepted'}; C++: {theirs or 'accepted'}"


def is_passed_over(folder: Path, sentence: str | None) -> bool:
    """Return whether a sentence of Python's is about what C++ does not read."""
    told = (sentence or "").removeprefix(f"{folder / MANIFEST}: ")
    return _PASSED_OVER.match(told) is not None
