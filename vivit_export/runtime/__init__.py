"""From a video to the tensor the engine takes, without torch or transformers.

Names are loaded on first use, so that importing the package costs nothing and machines that feed
the engine with their own frames need no video decoder.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from vivit_export.lazy import lazy_names

if TYPE_CHECKING:
    from vivit_export.runtime.predict import VideoFault, VideoPrediction, WindowRule, predict_videos
    from vivit_export.runtime.preprocess import Preprocessor
    from vivit_export.runtime.sampling import clip_indices
    from vivit_export.runtime.video import find_clips, read_clip
    from vivit_export.runtime.views import average_views, read_views
    from vivit_export.runtime.windows import Window, read_windows

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
    "Preprocessor": "preprocess",
    "VideoFault": "predict",
    "VideoPrediction": "predict",
    "Window": "windows",
    "WindowRule": "predict",
    "average_views": "views",
    "clip_indices": "sampling",
    "find_clips": "video",
    "predict_videos": "predict",
    "read_clip": "video",
    "read_views": "views",
    "read_windows": "windows",
}

__getattr__, __dir__ = lazy_names(__name__, _HOMES)
