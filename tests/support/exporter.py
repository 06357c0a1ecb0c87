"""Exports for a Python without torch, made by another that has it: ``VIVIT_TEST_EXPORTER`` names its executable.

``make test-lowest`` runs the tests of what serves a bundle in such a Python, with the lowest versions of everything.
"""

from __future__ import annotations

import os
import pickle
import re
import subprocess
import sys
import traceback
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path, PurePath
from typing import TYPE_CHECKING, Any

from safetensors.numpy import load_file

if TYPE_CHECKING:
    import onnx_ir as ir

    from vivit_export.export.checkpoint.load import Checkpoint

EXPORTER = os.environ.get("VIVIT_TEST_EXPORTER", "")
# What a test file that needs torch imports: torch itself, or a module of support/ that does.
_TORCH = (
    r"torch|transformers|checkpoints|pixels|rewriting|vivit_export\.export\.(?:checkpoint|graph\.trace|graph\.build)"
)


def is_for_torch(path: Path) -> bool:
    """Whether a test file cannot be imported without torch."""
    text = path.read_text(encoding="utf-8")
    return re.search(rf"^(?:import|from) (?:{_TORCH})\b", text, re.MULTILINE) is not None


def export_demo(target: Path, options: Mapping[str, Any]) -> None:
    """Export the demo in the other Python."""
    _run("export", target, options)


def golden_of_the_demo(folder: Path, contract: object) -> dict[str, Any]:
    """Crops of three clips and what eager PyTorch makes of them; see `bundles.Bundles.golden`."""
    _run("golden", folder / "golden.safetensors", contract)
    return dict(load_file(folder / "golden.safetensors"))


class _PathsAsText(pickle.Pickler):
    """Python 3.13 names the module of a path as no other version does."""

    def reducer_override(self, obj: object) -> Any:
        return (str, (str(obj),)) if isinstance(obj, PurePath) else NotImplemented


def _run(*job: object) -> None:
    """Have the other Python do something; it stays, because it takes seconds to load torch."""
    child = _child()
    assert child.stdin is not None and child.stdout is not None
    _PathsAsText(child.stdin).dump(job)
    child.stdin.flush()
    failure = pickle.load(child.stdout)
    assert failure is None, failure


@cache
def _child() -> subprocess.Popen[bytes]:
    """Start it; it ends when this process does, and closes its standard input."""
    return subprocess.Popen([EXPORTER, __file__], stdin=subprocess.PIPE, stdout=subprocess.PIPE)


def _serve() -> None:
    """Do what comes on standard input, and answer with None or a traceback."""
    answers = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # what libraries print is not an answer
    _trace_once()
    while True:
        try:
            job = pickle.load(sys.stdin.buffer)
        except EOFError:
            return
        failure = None
        try:
            _do(*job)
        except Exception:
            failure = traceback.format_exc()
        pickle.dump(failure, answers)
        answers.flush()


def _trace_once() -> None:
    """Trace the demo once for each choice of outputs, as that takes most of an export's time."""
    from vivit_export.export.graph import build, trace

    traced: dict[tuple[str, ...], ir.Model] = {}

    def once(checkpoint: Checkpoint, outputs: Sequence[str]) -> ir.Model:
        names = tuple(outputs)
        if names not in traced:
            traced[names] = trace.trace(checkpoint, names)
        return traced[names].clone()

    build.trace = once  # type: ignore[attr-defined]  # imported there to be called


def _do(what: str, target: str, argument: Any) -> None:
    import vivit_export as ve

    if what == "export":
        ve.export_model("demo", target, **argument)
        return
    from safetensors.numpy import save_file

    from vivit_export.export.checkpoint.load import load_checkpoint
    from vivit_export.export.clips import load_check_clips

    clips = load_check_clips(argument, None, 3)
    save_file({"frames": clips.frames, **load_checkpoint("demo").run_eager(clips.each)}, target)


if __name__ == "__main__":
    _serve()
