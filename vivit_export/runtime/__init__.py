"""From a video to the engine's input tensor, without torch or transformers.

Names are loaded on first use, so that importing the package costs nothing and machines that feed
the engine with their own frames need no video decoder.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from vivit_export.lazy import lazy_names

if TYPE_CHECKING:
    from vivit_export.runtime.clips.clip import read_clip
    from vivit_export.runtime.clips.folder import find_clips
    from vivit_export.runtime.clips.pixels.preprocess import Preprocessor
    from vivit_export.runtime.clips.sampling import clip_indices
    from vivit_export.runtime.clips.views import average_views, read_views
    from vivit_export.runtime.clips.windows import Window, WindowRule, read_windows
    from vivit_export.runtime.predict import VideoFault, VideoPrediction, predict_videos

__all__ = [
    "Preprocessor",
    "VideoFault",
    "VideoPrediction",
    "Window",
    "WindowRule",
    "average_views",
    "clip_indices",
    "find_clips",
    "predict_videos",
    "read_clip",
    "read_views",
    "read_windows",
]

_HOMES = {
    "Preprocessor": "clips.pixels.preprocess",
    "VideoFault": "predict",
    "VideoPrediction": "predict",
    "Window": "clips.windows",
    "WindowRule": "clips.windows",
    "average_views": "clips.views",
    "clip_indices": "clips.sampling",
    "find_clips": "clips.folder",
    "predict_videos": "predict",
    "read_clip": "clips.clip",
    "read_views": "clips.views",
    "read_windows": "clips.windows",
}

__getattr__, __dir__ = lazy_names(__name__, _HOMES)
