"""Exports for a Python without torch, made by another that has it: ``VIVIT_TEST_EXPORTER`` names its executable.

``make test-lowest`` runs the tests of what serves a bundle in such a Python, with the lowest versions of everything.
"""

from __future__ import annotations

import os
import pickle
import re
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from safetensors.numpy import load_file

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


def _run(*job: object) -> None:
    done = subprocess.run([EXPORTER, __file__], input=pickle.dumps(job), capture_output=True, check=False)
    assert done.returncode == 0, done.stderr.decode()


def _main() -> None:
    import vivit_export as ve

    what, target, argument = pickle.load(sys.stdin.buffer)
    if what == "export":
        ve.export_model("demo", target, **argument)
        return
    from safetensors.numpy import save_file

    from vivit_export.export.checkpoint.load import load_checkpoint
    from vivit_export.export.clips import load_check_clips

    clips = load_check_clips(argument, None, 3)
    save_file({"frames": clips.frames, **load_checkpoint("demo").run_eager(clips.pixels)}, target)


if __name__ == "__main__":
    _main()
