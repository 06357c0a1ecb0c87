"""From a video to the tensor the engine takes, without torch or transformers.

Names are loaded on first use, so that importing the package costs nothing and machines that feed
the engine with their own frames need no video decoder.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from vivit_export.runtime.preprocess import Preprocessor
    from vivit_export.runtime.video import find_clips, read_clip

__all__ = ["Preprocessor", "find_clips", "read_clip"]

_HOMES = {"Preprocessor": "preprocess", "find_clips": "video", "read_clip": "video"}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
