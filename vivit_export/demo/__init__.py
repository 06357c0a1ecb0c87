"""A small trained ViViT checkpoint and labeled clips, so that everything runs offline.

The checkpoint distinguishes eight motions of a random texture (`vivit_export.demo.motion`);
``tools/train_demo.py`` trains it, and ``tools/make_demo_clips.py`` renders the clips.
"""

from __future__ import annotations

import json
from pathlib import Path

__all__ = ["checkpoint_path", "clip_labels", "clips_path"]

_HERE = Path(__file__).resolve().parent


def checkpoint_path() -> Path:
    """Return the folder of the checkpoint, in the layout of ``save_pretrained``."""
    return _HERE / "checkpoint"


def clips_path() -> Path:
    """Return the folder of the H.264 clips."""
    return _HERE / "clips"


def clip_labels() -> dict[str, str]:
    """Return the label of each file in `clips_path`, by file name in sorted order."""
    labels: dict[str, str] = json.loads((clips_path() / "labels.json").read_text(encoding="utf-8"))
    return labels
